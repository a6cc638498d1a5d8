"""The parts of the page that come from the trained model: tasks, confusion, map, classes."""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from anyshot_jax.report import figures, maps, probe
from anyshot_jax.report.page import (
    NOTHING,
    framed,
    html,
    join,
    meter,
    name,
    note,
    paragraph,
    section,
    table,
    way,
)
from anyshot_jax.report.subject import Subject
from anyshot_jax.types import Episode


def parts(subject: Subject) -> list[Markup]:
    """One task, the confusion of some classes, the map of embeddings and the hardest classes."""
    method, pool, rng = subject.method, subject.pool, subject.rng
    if pool is None:
        return [note('No images of tasks: the data has no test classes to draw from.')]
    sections = []
    ask = probe.asker(method, subject.state) if method.predict else None
    if ask is None:
        sections.append(note('No tasks are drawn: this method has no predict function.'))
    else:
        sections.append(task(pool, probe.one_task(ask, pool, subject.config)))
        sections.append(confusion(pool, probe.fixed_classes(ask, pool, rng)))
    sections.append(embedding_map(subject) if method.embed else no_map())
    if ask is not None:
        sections.append(hardest(pool, probe.every_class(ask, pool, rng)))
    return sections


def embedding_map(subject: Subject) -> Markup:
    """The map of the test classes' embeddings."""
    assert subject.pool
    z = probe.embeddings(subject.method, subject.state, subject.pool, subject.rng)
    return map_of(subject.pool, z)


def task(test: probe.Pool, drawn: tuple[Episode, probe.Answers]) -> Markup:
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
        support = join(
            figures.item(x, f'example of {label}')
            for x in episode.x_s[w * shots : w * shots + min(shots, 5)]
        )
        if shots > 5:
            support += html('<span class="dim">+ {{ more }}</span>', more=shots - 5)
        order = np.argsort(predicted[w] == w, kind='stable')[:most]  # the wrong ones first
        asked = join(
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
        heading = html(
            '<span class="number">{{ number }}</span>{{ name }}', number=w + 1, name=name(label)
        )
        strips = [('examples', support), ('queries', asked)]
        rows.append(way(heading, f'{hits} of {queries} right', strips))
    intro = (
        f'One {test.size} task from the test classes, as it was drawn: {right} of '
        f'{ways * queries} queries right ({right / (ways * queries) * 100:.1f} %). Each row is a '
        'class: the examples that the method was given, then queries that it had to name'
        + (f' ({most} of {queries} shown, wrong ones first)' if most < queries else '')
        + '. A solid green frame and ✓ is a right answer; a dashed red frame and ✗ is a wrong one, '
        f'followed by the number of the class it was taken for. The percentage is the {word} of '
        'the answer given.'
    )
    return section('task', 'One test task', paragraph(intro), *rows)


def _query(x: np.ndarray, label: str, w: int, p: int, answer: str, chance: float) -> Markup:
    share = f'{chance * 100:.0f} %'
    if p == w:
        title, caption = f'query of {label}: right, {share}', f'✓ {share}'
    else:
        title = f'query of {label}: wrong, taken for {answer}, {share}'
        caption = f'✗ {p + 1} · {share}'
    return framed(figures.item(x, title), p == w, title, caption)


def confusion(test: probe.Pool, answers: probe.Answers) -> Markup:
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
        pair = html(
            '<div class="pair"><span>Most confused:</span>'
            '<figure>{{ one }}<span>{{ its_name }}</span></figure>'
            '<span>called, in {{ often }} % of its queries,</span>'
            '<figure>{{ other }}<span>{{ other_name }}</span></figure></div>',
            one=thumbs[i], its_name=name(labels[i]), often=f'{off[i, j] * 100:.1f}',
            other=thumbs[j], other_name=name(labels[j]),
        )  # fmt: skip
    else:
        pair = paragraph('No query was called by a wrong name.')
    grid = matrix(labels, thumbs, shares)
    return section('confusion', 'Confusion in a fixed task', paragraph(intro), pair, grid)


def matrix(
    labels: Sequence[str],
    thumbs: Sequence[object],
    shares: np.ndarray,
    count: np.ndarray | None = None,
) -> Markup:
    """A confusion matrix; shares [W, W] of 1, count [W, W] what they are of."""
    ways = range(len(labels))
    cells = [
        [_cell(shares[i, j], i == j, '' if count is None else f'{count[i, j]:,}') for j in ways]
        for i in ways
    ]
    return html(
        '<div class="scroll"><table class="matrix{{ " many" if labels|length > 8 }}"><thead><tr>'
        '<td class="dim">true ↓ called →</td>{% for label in labels %}<th scope="col" '
        'title="{{ label }}">{{ thumbs[loop.index0] }}<span class="number">{{ loop.index }}</span>'
        '</th>{% endfor %}</tr></thead><tbody>{% for label in labels %}<tr><th scope="row">'
        '<span class="who"><span><bdi>{{ label }}</bdi></span><span class="number">'
        '{{ loop.index }}</span>{{ thumbs[loop.index0] }}</span></th>'
        '{% for cell in cells[loop.index0] %}{{ cell }}{% endfor %}</tr>{% endfor %}'
        '</tbody></table></div>',
        labels=labels, thumbs=thumbs, cells=cells,
    )  # fmt: skip


def _cell(share: float, right: bool, count: str) -> Markup:
    if share == 0:
        return Markup('<td></td>')
    # Errors are rare in a good model: the square root makes even one of a thousand visible.
    depth = share if right else min(1.0, share**0.5)
    return html(
        '<td{% if full %} class="full"{% endif %}{% if count %} title="{{ count }}"{% endif %} '
        'style="background:rgb(var(--{{ tint }})/{{ depth }})">{{ share }}</td>',
        full=depth > 0.6, count=count, tint='blue' if right else 'redtint', depth=f'{depth:.2f}',
        share=f'{share * 100:.1f}',
    )  # fmt: skip


def no_map() -> Markup:
    """In place of the map."""
    return section('map', 'Map of embeddings', note('This method has no embedding to map.'))


def map_of(test: probe.Pool, found: probe.Map | None) -> Markup:
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
    svg = maps.scatter(
        found.points, items, label=f'Map of {total} embeddings of the classes {", ".join(labels)}.'
    )
    atlas = html(
        '<div class="atlas">{{ svg }}<ol>{% for label in labels %}<li><span class="number '
        'c{{ loop.index0 % 12 }}">{{ loop.index }}</span><bdi>{{ label }}</bdi></li>{% endfor %}'
        '</ol></div>',
        svg=svg, labels=labels,
    )  # fmt: skip
    return section('map', title, paragraph(intro), atlas)


def hardest(test: probe.Pool, answers: probe.Answers) -> Markup:
    """The test classes with the lowest accuracy."""
    found = probe.hardness(answers)
    rows = []
    for h in found[:10]:
        share = h.right / h.asked
        other = _who(test, h.taken_for) if h.taken_for is not None else NOTHING
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
    return section('hardest', 'Hardest test classes', paragraph(intro), table(head, rows, 'hard'))


def _who(test: probe.Pool, class_id: int) -> Markup:
    label = test.names[class_id]
    thumb = figures.item(test.first(class_id), f'example of {label}')
    return html(
        '<span class="who">{{ thumb }}<span>{{ name }}</span></span>', thumb=thumb, name=name(label)
    )
