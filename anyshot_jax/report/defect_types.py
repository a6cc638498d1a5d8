"""The part of the page about types of defects: a task as it was drawn, and what is called what."""

import jax
import numpy as np
from markupsafe import Markup
from ml_collections import ConfigDict

from anyshot_jax.defects.draws import askable
from anyshot_jax.report import figures, overlay, tasks
from anyshot_jax.report.page import framed, html, join, name, paragraph, section, way
from anyshot_jax.report.subject import Subject
from anyshot_jax.types import Array, Data, Dataset, Method, TrainState

QUERIES, SIDE = 6, 120  # of a type in the task that is shown, and pixels of their images


def parts(subject: Subject) -> list[Markup]:
    """Draws of support for every number of shots, and the map of embeddings."""
    s = subject
    drawn = _sections(s.method, s.state, s.data, s.config, s.images)
    # No other tasks: they would have near copies of one part on both sides.
    return drawn if s.pool is None or s.method.embed is None else [*drawn, tasks.embedding_map(s)]


def _sections(
    method: Method, state: TrainState, data: Data, config: ConfigDict, images_of: Array | None
) -> list[Markup]:
    """The sections for a run of `anomaly`, one for each number of shots."""
    # One device answers, as for the other parts.
    data = jax.device_put(data, jax.local_devices()[0])
    key = jax.random.split(jax.random.key(int(config.get('seed', 0))), 4)[3]  # the test's
    found = jax.device_get(method.export(state, data, key))
    test = data.roles['test']
    shown = np.asarray(test.x if images_of is None else images_of)
    return [
        _types(test, shown, shots, found[f'{shots}-shot support'], found[f'{shots}-shot answers'])
        for shots in config.method.shots
    ]


def count(answers: Array, label: Array, kept: Array) -> np.ndarray:
    """[W, W] int: how many queries of type kept[i] were called kept[j].

    Args:
      answers: [E, N], the type that each item was called in each draw, -1: not asked for.
      label: [N] true types. kept: [W] types that the draws are about.
    """
    true = np.broadcast_to(label, np.shape(answers))
    pair = lambda i, j: int(((true == i) & (answers == j)).sum())
    return np.array([[pair(i, j) for j in kept] for i in kept])


def some_of(right: Array, group: Array, most: int) -> np.ndarray:
    """Picks the queries [n] to show, wrong ones first.

    Half of each kind, or more of the one where the other has too few; of as many groups as there
    are.
    """
    picked: dict[bool, list[int]] = {}
    for kind in (False, True):
        rows = np.flatnonzero(np.asarray(right) == kind)
        # The how-manieth of its group each is: all first ones come before the second ones.
        turn = [int((group[rows[:i]] == group[row]).sum()) for i, row in enumerate(rows)]
        picked[kind] = rows[np.argsort(np.array(turn, int), kind='stable')].tolist()
    wrong = max(most - most // 2, most - len(picked[True]))
    shown = picked[False][:wrong]
    return np.array(shown + picked[True][: most - len(shown)], int)


def _types(test: Dataset, shown: Array, shots: int, support: Array, answers: Array) -> Markup:
    label = np.asarray(test.label)
    kept = askable(test, shots)
    rows = [_row(test, shown, kept, c, support[0, w], answers[0]) for w, c in enumerate(kept)]
    asked = answers[0] >= 0
    right = int((answers[0] == label)[asked].sum())
    aside = [test.names[c] for c in range(len(test.names)) if c not in kept]
    some = f'{shots} example{"" if shots == 1 else "s"} of each type'
    intro = (
        f'The first of the draws, as it was drawn: {right} of {int(asked.sum())} queries named '
        f'right ({right / max(asked.sum(), 1) * 100:.1f} %) from {some}. No query shares a part '
        f'with an example. Each row is a type; of its queries {QUERIES} are shown, half of them '
        'wrong ones if there are, of different parts if there are. A solid green frame and ✓ is a '
        'right answer, a dashed red frame and ✗ a wrong one with the type it was taken for'
        + ('; masks are outlined in green' if test.mask is not None else '')
        + '.'
    )
    if aside:
        intro = html(
            '{{ intro }} Left out, with too few parts: {{ names }}.',
            intro=intro, names=join(map(name, aside), ', '),
        )  # fmt: skip
    matrix = count(answers, label, np.array(kept))
    total = matrix.sum(1)
    share = matrix / np.maximum(total, 1)[:, None]
    over = (
        f'Over {len(answers)} draws with other examples each time, {int(total.sum()):,} queries: '
        f'{np.trace(matrix) / max(total.sum(), 1) * 100:.1f} % of them named right, '
        f'{np.diag(share)[total > 0].mean() * 100:.1f} % as the mean of the types. A row is the '
        'true type, a column the answer; a cell says in per cent how often the one was called the '
        'other (how many queries, if pointed at), and each row sums to 100.'
    )
    labels = [test.names[c] for c in kept]
    thumbs = [figures.item(shown[int(test.offset[c])], f'example of {test.names[c]}') for c in kept]
    return section(
        f'types-{shots}',
        f'Types from {shots} example{"" if shots == 1 else "s"}',
        paragraph(intro),
        html('<div class="types">{{ rows }}</div>', rows=join(rows)),
        paragraph(over),
        tasks.matrix(labels, thumbs, share, matrix),
    )


def _row(
    test: Dataset, shown: Array, kept: tuple[int, ...], c: int, support: Array, answer: Array
) -> Markup:
    """A type with its examples and some of its queries."""
    label = test.names[c]
    mine = np.flatnonzero((np.asarray(test.label) == c) & (answer >= 0))
    right = answer[mine] == c
    group = np.asarray(test.group)[mine]
    picked = mine[some_of(right, group, QUERIES)]
    image = lambda row, alt: _image(test, shown, int(row), alt)
    examples = join(image(row, f'example of {label}') for row in support)
    queries = join(
        _query(image(row, f'query of {label}'), int(answer[row]) == c, test.names[answer[row]])
        for row in picked
    )
    told = f'{int(right.sum())} of {len(mine)} right'
    return way(name(label), told, [('examples', examples), ('queries', queries)])


def _query(image: Markup, right: bool, answer: str) -> Markup:
    short = answer if len(answer) < 11 else f'{answer[:9]}…'
    caption = html('{{ sign }} {{ name }}', sign='✓' if right else '✗', name=name(short))
    return framed(image, right, f'called {answer}', caption)


def _image(test: Dataset, shown: Array, row: int, alt: str) -> Markup:
    x = shown[row]
    if x.ndim != 3 or x.dtype != np.uint8 or x.shape[-1] not in (1, 3):
        return figures.item(x, alt)
    image = overlay.on_page(x, SIDE)
    if test.mask is not None and np.shape(test.mask)[1:] == x.shape[:2]:
        image = overlay.with_outline(image, np.asarray(test.mask[row]))
    return overlay.img(image, alt)
