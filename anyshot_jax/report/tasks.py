"""The parts of the page that come from the trained model: tasks, confusion, map, classes."""

from collections.abc import Sequence

import numpy as np

from anyshot_jax.report import figures, probe
from anyshot_jax.report.page import escape, meter, name, note, section, table
from anyshot_jax.types import Episode


def task(test: probe.Pool, drawn: tuple[Episode, probe.Answers]) -> str:
    """One test episode with the answers to it."""
    episode, answers = drawn
    ways, shots, queries = test.ways, test.shots, test.queries
    predicted = answers.predicted[0]
    chances, word = probe.confidence(answers.scores[0])
    right = int((predicted == np.arange(ways)[:, None]).sum())
    most = min(queries, max(3, 40 // ways))  # 20-way tasks stay on the page
    rows = []
    for w in range(ways):
        label = test.names[int(episode.class_id[w])]
        support = ''.join(
            figures.item(x, f'example of {label}')
            for x in episode.x_s[w * shots : w * shots + min(shots, 5)]
        )
        more = f'<span class="dim">+ {shots - 5}</span>' if shots > 5 else ''
        order = np.argsort(predicted[w] == w, kind='stable')[:most]  # the wrong ones first
        asked = ''.join(
            _query(
                episode.x_q[w * queries + q],
                label,
                w,
                int(predicted[w, q]),
                test.names[int(episode.class_id[predicted[w, q]])],
                float(chances[w, q, predicted[w, q]]),
            )
            for q in order
        )
        hits = int((predicted[w] == w).sum())
        rows.append(
            f'<div class="way"><div><h3><span class="number">{w + 1}</span>{name(label)}</h3>'
            f'<p>{hits} of {queries} right</p></div>'
            f'<div class="strip support"><span class="label">examples</span>{support}{more}</div>'
            f'<div class="strip"><span class="label">queries</span>{asked}</div></div>'
        )
    intro = (
        f'One {test.size} task from the test classes, as it was drawn: {right} of '
        f'{ways * queries} queries right ({right / (ways * queries) * 100:.1f} %). Each row is a '
        'class: the examples that the method was given, then queries that it had to name'
        + (f' ({most} of {queries} shown, wrong ones first)' if most < queries else '')
        + '. A solid green frame and ✓ is a right answer; a dashed red frame and ✗ is a wrong one, '
        f'followed by the number of the class it was taken for. The percentage is the {word} of '
        'the answer given.'
    )
    return section('task', 'One test task', f'<p>{intro}</p>', *rows)


def _query(x: np.ndarray, label: str, w: int, p: int, answer: str, chance: float) -> str:
    share = f'{chance * 100:.0f} %'
    if p == w:
        alt, style, text = f'query of {label}: right, {share}', 'query', f'✓ {share}'
    else:
        alt = f'query of {label}: wrong, taken for {answer}, {share}'
        style, text = 'query wrong', f'✗ {p + 1} · {share}'
    return (
        f'<figure class="{style}" title="{escape(alt)}">{figures.item(x, alt)}'
        f'<figcaption>{text}</figcaption></figure>'
    )


def confusion(test: probe.Pool, answers: probe.Answers) -> str:
    """The confusion matrix of one set of classes."""
    ids, shares = probe.confusion(answers)
    labels = [test.names[c] for c in ids]
    thumbs = [figures.item(test.first(c), f'example of {test.names[c]}') for c in ids]
    intro = (
        f'The same {len(ids)} test classes in {len(answers.class_id):,} {test.size} tasks, with '
        'other examples each time. A row is the true class, a column the answer; a cell says in '
        'per cent how often the one was called the other, and each row sums to 100. Blue is right, '
        'red is wrong; cells without a number are zero.'
    )
    off = shares * (1 - np.eye(len(ids)))
    i, j = np.unravel_index(off.argmax(), off.shape)
    if off[i, j] > 0:
        pair = (
            '<div class="pair"><span>Most confused:</span>'
            f'<figure>{thumbs[i]}<span>{name(labels[i])}</span></figure>'
            f'<span>called, in {off[i, j] * 100:.1f} % of its queries,</span>'
            f'<figure>{thumbs[j]}<span>{name(labels[j])}</span></figure></div>'
        )
    else:
        pair = '<p>No query was called by a wrong name.</p>'
    grid = matrix(labels, thumbs, shares)
    return section('confusion', 'Confusion in a fixed task', f'<p>{intro}</p>', pair, grid)


def matrix(
    labels: Sequence[str],
    thumbs: Sequence[str],
    shares: np.ndarray,
    count: np.ndarray | None = None,
) -> str:
    """A confusion matrix; thumbs are HTML, shares [W, W] of 1, count [W, W] what they are of."""
    ways = range(len(labels))
    head = ''.join(
        f'<th scope="col" title="{escape(label)}">{thumb}<span class="number">{k}</span></th>'
        for k, (label, thumb) in enumerate(zip(labels, thumbs, strict=True), 1)
    )
    body = ''.join(
        f'<tr><th scope="row"><span class="who"><span>{name(labels[i])}</span>'
        f'<span class="number">{i + 1}</span>{thumbs[i]}</span></th>'
        + ''.join(
            _cell(shares[i, j], i == j, '' if count is None else f'{count[i, j]:,}') for j in ways
        )
        + '</tr>'
        for i in ways
    )
    return (
        f'<div class="scroll"><table class="matrix{" many" if len(labels) > 8 else ""}">'
        '<thead><tr><td class="dim">true ↓ called →</td>'
        f'{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _cell(share: float, right: bool, count: str) -> str:
    if share == 0:
        return '<td></td>'
    # Errors are rare in a good model: the square root makes even one of a thousand visible.
    depth = share if right else min(1.0, share**0.5)
    tint = 'var(--blue)' if right else 'var(--redtint)'
    full = ' class="full"' if depth > 0.6 else ''
    full += f' title="{count}"' if count else ''
    return f'<td{full} style="background:rgb({tint}/{depth:.2f})">{share * 100:.1f}</td>'


def no_map() -> str:
    """In place of the map."""
    return section('map', 'Map of embeddings', note('This method has no embedding to map.'))


def map_of(test: probe.Pool, found: probe.Map | None) -> str:
    """Test items on a plane."""
    title = 'Map of embeddings'
    if found is None:
        return section('map', title, note('The embeddings are not finite: there is no map.'))
    labels = [test.names[int(c)] for c in found.class_id]
    items = [test.first(int(c)) for c in found.class_id] if test.imaged else None
    total = sum(len(p) for p in found.points)
    intro = (
        f'{total} test items of {len(labels)} classes, their {found.dim:,} embedding numbers '
        f'projected on the two principal axes, which hold {found.explained * 100:.0f} % of the '
        'variance. Each dot is an item, tied to the centre of its class; tight stars far from each '
        'other are classes that are easily told apart. Stars that overlap here may still be apart '
        'in the axes that a plane leaves out.'
    )
    svg = figures.scatter(
        found.points, items, label=f'Map of {total} embeddings of the classes {", ".join(labels)}.'
    )
    key = ''.join(
        f'<li><span class="number c{k % 12}">{k + 1}</span>{name(n)}</li>'
        for k, n in enumerate(labels)
    )
    return section('map', title, f'<p>{intro}</p><div class="atlas">{svg}<ol>{key}</ol></div>')


def hardest(test: probe.Pool, answers: probe.Answers) -> str:
    """The test classes with the lowest accuracy."""
    found = probe.hardness(answers)
    rows = []
    for h in found[:10]:
        share = h.right / h.asked
        other = _who(test, h.taken_for) if h.taken_for is not None else '&ndash;'
        shown = f'{share * 100:.1f} %'
        rows.append(
            (_who(test, h.class_id), shown, meter(share, 1 / test.ways), str(h.asked), other)
        )
    shares = np.array([h.right / h.asked for h in found])
    perfect = int((shares == 1).sum())
    left = len(test.names) - len(found)
    intro = (
        f'Accuracy by class over {len(answers.class_id):,} further {test.size} tasks in which '
        f'{"the" if not left else f"{len(found):,} of {len(test.names):,}"} test classes took part '
        f'about equally often; the {len(rows)} lowest of {len(found):,}. The median class has '
        f'{np.median(shares) * 100:.1f} %, and {perfect:,} made no error. With few '
        'queries a class, the order is a hint where to look, not a measurement.'
    )
    head = ('class', 'accuracy', '', 'queries', 'most often taken for')
    return section('hardest', 'Hardest test classes', f'<p>{intro}</p>', table(head, rows, 'hard'))


def _who(test: probe.Pool, class_id: int) -> str:
    label = test.names[class_id]
    thumb = figures.item(test.first(class_id), f'example of {label}')
    return f'<span class="who">{thumb}<span>{name(label)}</span></span>'
