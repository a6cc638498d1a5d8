"""The part of the page about retrieval: queries with their first answers, and two curves."""

from functools import partial

import jax
import numpy as np
from markupsafe import Markup

from anyshot_jax.episodes import retrieval
from anyshot_jax.episodes.sampling import class_names, expand_turns
from anyshot_jax.ops import metric
from anyshot_jax.report import charts, figures, probe
from anyshot_jax.report.page import framed, html, join, name, note, paragraph, section, way
from anyshot_jax.types import Array, Dataset, InputError, Method, TrainState

QUERIES, ANSWERS = 8, 10
MOST = 5000  # items searched for the page; more are drawn from
PAIRED = 300  # items of which all pairs are told alike or not
RECALLS = np.linspace(0, 1, 21, dtype=np.float32)
CURVE = partial(metric.precision_curve, recalls=RECALLS)


def results(
    method: Method,
    state: TrainState,
    test: Dataset,
    images_of: Array | None,
    rng: np.random.Generator,
) -> Markup:
    """Queries of different classes, their first answers framed by right and wrong, and curves."""
    assert method.similarity  # the caller asks only methods that have one
    title = 'Retrieval'
    names = class_names(test)
    test = expand_turns(test)
    shown = np.asarray(test.x if images_of is None else images_of)
    rows = np.sort(rng.permutation(len(test.x))[:MOST])
    z = probe.embed_rows(method, state, np.asarray(test.x)[rows], rng)
    if not np.isfinite(z).all():
        return section('retrieval', title, note('The embeddings are not finite.'))
    every = retrieval.items_of(test)
    own = retrieval.Items(z.astype(np.float32), *(np.asarray(a)[rows] for a in every[1:]))
    try:
        curve = retrieval.evaluate(
            own, own, method.similarity, state, measure=lambda hits: {'precision': CURVE(hits)}
        )['precision']
    except InputError as e:
        return section('retrieval', title, note(f'{e}.'))
    asked = _queries(own, rng)
    similarity = jax.jit(method.similarity)
    sims = np.asarray(similarity(state, own.z[asked], own.z))
    lines = [
        _line(own, shown, rows, names, q, sim) for q, sim in zip(asked.tolist(), sims, strict=True)
    ]
    some = ', drawn from all' if len(rows) < len(test.x) else ''
    intro = (
        f'Items of test classes ask for the others of their class among {len(rows):,} items{some}'
        + (', without those of their own group' if test.group is not None else '')
        + '. Each row is a query and its first answers, the most similar first: a solid green '
        'frame and ✓ is a right one, a dashed red frame and ✗ a wrong one with its own class.'
    )
    curves = [_precision(curve), *_verifier(own, similarity, state, rng)]
    return section('retrieval', title, paragraph(intro), *lines, charts.side_by_side(curves))


def _queries(own: retrieval.Items, rng: np.random.Generator) -> np.ndarray:
    """One item of as many classes as are shown, of those that have an answer."""
    asked = []
    for label in rng.permutation(np.unique(own.label)):
        rows = rng.permutation(np.flatnonzero(own.label == label))
        others = (own.group[rows][:, None] != own.group[rows][None, :]).any(1)
        asked += rows[others][:1].tolist()
    return np.array(asked[:QUERIES])


def _line(own, shown, rows, names, query: int, sim: np.ndarray) -> Markup:
    allowed = np.flatnonzero(own.group != own.group[query])
    # Wrong ones first where they tie, as the measures have it.
    right = own.label[allowed] == own.label[query]
    first = allowed[np.lexsort((right, -sim[allowed]))][:ANSWERS]
    answers = join(
        _answer(shown[rows[i]], names[own.label[i]], own.label[i] == own.label[query])
        for i in first
    )
    label = names[own.label[query]]
    hits = int((own.label[first] == own.label[query]).sum())
    asked = figures.item(shown[rows[query]], f'query of {label}')
    told = f'{hits} of {len(first)} right, {int(right.sum())} there are'
    return way(name(label), told, [('query', asked), ('answers', answers)])


def _answer(x: np.ndarray, label: str, right: bool) -> Markup:
    short = label if len(label) < 10 else f'{label[:8]}…'
    caption = '✓' if right else html('✗ {{ name }}', name=name(short))
    said = 'right' if right else f'is {label}'
    return framed(figures.item(x, f'answer: {said}'), right, label, caption)


def _precision(curve: np.ndarray) -> Markup:
    mean = curve.mean(0).tolist()
    label = (
        'Mean precision over recall: '
        f'{mean[0] * 100:.1f} % at the first answers, {mean[10] * 100:.1f} % at half of the right '
        f'ones, {mean[-1] * 100:.1f} % at all of them.'
    )
    series = [charts.Series('precision', RECALLS.tolist(), mean, 1)]
    svg = charts.lines(series, label=label, mark=None, percent=True, axis='recall')
    return charts.figure('Precision at recall, mean over queries', svg)


def _verifier(own: retrieval.Items, similarity, state, rng: np.random.Generator) -> list[Markup]:
    rows = rng.permutation(len(own.z))[:PAIRED]
    sims = np.asarray(similarity(state, own.z[rows], own.z[rows]))
    pair = np.triu(own.group[rows][:, None] != own.group[rows][None, :], 1)
    same = (own.label[rows][:, None] == own.label[rows][None, :])[pair]
    if same.all() or not same.any():
        return []
    false, true = roc(sims[pair], same)
    area = float(np.trapezoid(true, false))
    grid = np.linspace(0, 1, 101)
    label = f'Pairs of one class accepted over pairs of two accepted: area {area:.3f}.'
    series = [charts.Series('ROC', grid.tolist(), np.interp(grid, false, true).tolist(), 2)]
    svg = charts.lines(series, label=label, mark=None, percent=True, axis='false accepts')
    caption = f'Same class or not: ROC, area {area:.3f}, of {len(same):,} pairs'
    return [charts.figure(caption, svg)]


def roc(score: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true accept rates at every threshold, from none accepted to all.

    Args:
      score: [N], the larger the more alike. same: [N] bool, both kinds present.
    """
    order = np.argsort(-score, kind='stable')
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)  # ties are one step
    true = np.append(0, np.cumsum(same[order])[ends])
    false = np.append(0, np.cumsum(~same[order])[ends])
    return false / false[-1], true / true[-1]
