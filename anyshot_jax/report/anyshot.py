"""The part of the page about any-shot runs: moving centres, the graph, and what was synthesised."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from anyshot_jax import episodes
from anyshot_jax.episodic import embed_dataset, task_name
from anyshot_jax.methods import refine
from anyshot_jax.ops.graph import largest
from anyshot_jax.report.page import escape, meter, name, note, section, table
from anyshot_jax.synthesis import has_colours, weigh
from anyshot_jax.types import Array, Data, Dataset, Episode, Method, TrainState

TASKS = 50  # of which the accuracy of every class is told
CLASSES, ITEMS, ROWS = 10, 20, 30  # on the map of synthesised items, of each class, of the table
WIDE, HIGH, EDGE = 460, 400, 34
# Okabe and Ito's colours, told apart by colour-blind readers, and what is legible on them. Of more
# classes some share a colour, so that they also have numbers.
PALETTE = (
    ('#0072b2', '#fff'), ('#e69f00', '#000'), ('#009e73', '#fff'),
    ('#cc79a7', '#000'), ('#56b4e9', '#000'), ('#d55e00', '#fff'),
)  # fmt: skip
SHOT, MADE = 'm-5-5l10 10m0-10l-10 10', 'm0-5.5l5 9h-10z'
DOT = '<circle class="spot" cx="13" cy="5" r="4"/>'
KEY = {
    'query': DOT,
    'real item': DOT,
    'shot': '<path d="M13 5m-4-4l8 8m0-8l-8 8" style="stroke:var(--c);stroke-width:2"/>',
    'synthesised item': '<path d="M13 5m0-5l4.5 8h-9z" style="stroke:var(--c);fill:none"/>',
    'answered wrongly': '<circle cx="13" cy="5" r="4.3" '
    'style="fill:none;stroke:var(--red);stroke-width:1.8"/>',
    "path of a class's centre, from the ring to the number": '<path d="M3 5H23" '
    'style="stroke:var(--c);stroke-width:2.5"/><circle cx="4" cy="5" r="3.2" '
    'style="fill:var(--page);stroke:var(--c);stroke-width:2"/>',
    'among the most similar': '<path d="M1 5H25" style="stroke:var(--dim);opacity:.6"/>',
}


def parts(method: Method, state: TrainState, data: Data, config: ConfigDict) -> list[str]:
    """The sections for runs of `refine` and of methods that make features; none for others."""
    fields = config.method
    # One device answers, as for the other parts; exports of earlier stages come along.
    data = jax.device_put(dict(data), jax.local_devices()[0])
    key = jax.random.split(jax.random.key(int(config.get('seed', 0))), 4)[3]  # the test's
    names = episodes.class_names(data['test'])
    if 'fakes_from' in fields:
        return _refined(method, state, data, config, key, names)
    if 'fakes' in fields and 'calibration' in fields:
        made = method.export(state, data, key)['test']
        values = method.evaluate(state, data, key, 'test')
        return [
            _synthesised(data['test'], made, fields.colours, has_colours(data), names),
            _told(values, names),
        ]
    return []


def _refined(method, state, data, config, key, names) -> list[str]:
    fields, tasks = config.method, config.eval.tasks
    coloured = 'train' in data and has_colours(data)
    made = data[fields.fakes_from]['test'] if fields.fakes_from else None
    assert method.embed
    features = embed_dataset(jax.jit(partial(method.embed, state)), data['test'])
    found, order = [], None
    shown = [t for t in tasks if t[1]][:1] + [t for t in tasks if not t[1]][:1]
    if shown and not bool(np.isfinite(features.x).all()):
        return [section('centres', 'Class centres', note('The features are not finite.'))]
    if shown and fields.transductive:
        episode = _draw(key, features, config)
        walks = [_walk(fields, coloured, episode, made, *task) for task in shown]
        order = np.asarray(episode.class_id)
        labels = [names[c] for c in order]
        found += [_centres(walks, labels), _graph(walks, labels, fields)]
    if made is not None:
        found.append(_synthesised(features, made, fields.colours, coloured, names, order))
    if shown and (fields.transductive or made is not None):
        found.append(_by_class(fields, coloured, features, made, key, config, shown, names))
    return found


def _draw(key: Array, features: Dataset, config: ConfigDict, number: Array | int = 0) -> Episode:
    """An episode of the test, of the most ways and shots."""
    ways, shots = (max(column) for column in zip(*config.eval.tasks, strict=True))
    drawn = {'ways': ways, 'shots': shots, 'queries': config.eval.queries}
    return episodes.sample_episode(jax.random.fold_in(key, number), features, **drawn)


class Items(NamedTuple):
    """Items on a plane."""

    place: np.ndarray  # [N, 2]
    label: np.ndarray  # [N], relative
    kind: np.ndarray  # [N]: 0 query or real, 1 shot, 2 synthesised
    edges: np.ndarray  # [E, 2], items that are joined
    share: np.ndarray  # [2], of the variance on each axis


class Walk(NamedTuple):
    """One episode: its items as given and where the centres move, and their path."""

    title: str
    raw: Items
    moved: Items
    path: np.ndarray  # [rounds + 1, W, 2]
    wrong: np.ndarray  # [N] bool
    right: tuple[float, float]  # shares of the queries: inductive, transductive


def _walk(fields, coloured, episode, made, ways: int, shots: int) -> Walk:
    episode = episodes.first(episode, ways, shots)
    made = None if made is None else made[episode.class_id]
    suffix, given = list(refine.support(fields, coloured, episode, made).items())[-1]
    moved = jax.jit(partial(refine.transduce, fields))(given, episode.class_id)
    y_q, weight = np.asarray(episode.y_q), np.asarray(given.weight_s)
    there = weight.sum(1) > 0  # of those made only the ones that the shots name rightly
    num_real = len(episode.y_s) if shots else 0
    kind = np.where(np.arange(len(weight)) < num_real, 1, 2)
    label = np.concatenate([weight.argmax(1)[there], y_q])
    kind = np.concatenate([kind[there], np.zeros(len(y_q), int)])
    answer = np.asarray(moved.plan).argmax(1)
    before = np.asarray(refine.induce(*given)).argmax(1)
    join = lambda g: np.concatenate([np.asarray(g.x_s)[there], np.asarray(g.x_q)])
    raw, x = join(given), join(moved)
    middle, axes, share = _plane(x)
    place = Items((x - middle) @ axes.T, label, kind, _edges(x, fields.neighbours), share)
    middle_raw, axes_raw, share_raw = _plane(raw)
    return Walk(
        title=task_name(ways, shots) + suffix,
        raw=Items(
            (raw - middle_raw) @ axes_raw.T, label, kind, _edges(raw, fields.neighbours), share_raw
        ),
        moved=place,
        path=(np.asarray(moved.path) - middle) @ axes.T,
        wrong=np.concatenate([np.zeros(there.sum(), bool), answer != y_q]),
        right=(float((before == y_q).mean()), float((answer == y_q).mean())),
    )


def _plane(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean [D], the two principal axes [2, D], and their shares of the variance [2]."""
    middle = x.mean(0)
    _, s, vt = np.linalg.svd((x - middle).astype(np.float64), full_matrices=False)
    axes, share = np.zeros((2, x.shape[1])), np.zeros(2)
    axes[: len(vt[:2])], share[: len(s[:2])] = vt[:2], s[:2] ** 2 / max((s**2).sum(), 1e-30)
    # The sign of a singular vector is arbitrary; fixed here, so that the page is reproducible.
    axes *= np.where(axes[[0, 1], abs(axes).argmax(1)] < 0, -1, 1)[:, None]
    return middle, axes, share


def _edges(x: np.ndarray, neighbours: int) -> np.ndarray:
    """Pairs [E, 2] of which one is among the `neighbours` most similar to the other, by cosine."""
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    sim = x @ x.T
    np.fill_diagonal(sim, 0)  # competes, as in ops/graph.py
    near = np.asarray(largest(sim, neighbours))
    return np.argwhere(np.triu(near | near.T, 1))


def _centres(walks: Sequence[Walk], labels: Sequence[str]) -> str:
    figures = []
    for walk in walks:
        before, after = (f'{share * 100:.1f} %' for share in walk.right)
        queries = int((walk.moved.kind == 0).sum())
        title = (
            f'{walk.title}, transductive: {after} of {queries} queries right; inductive: {before}'
        )
        alt = f'{title}. Items on a plane, and the way of each class centre to the queries.'
        figures.append(
            _figure(title, _map(walk.moved, alt, edges=False, path=walk.path, wrong=walk.wrong))
        )
    intro = (
        'The first test episode, on the two principal axes of the space where the centres move: '
        'each group, support and queries, less its own mean. Every centre starts at the mean of '
        'its support and ends among the queries that optimal transport gives it. Colours and '
        'numbers are the true classes.'
    )
    kinds = [k for k in KEY if k not in ('real item', 'among the most similar')]
    return section(
        'centres', 'Class centres', _intro(intro), _charts(figures), _keys(kinds, labels)
    )


def _graph(walks: Sequence[Walk], labels: Sequence[str], fields: ConfigDict) -> str:
    walk, figures = walks[0], []
    for title, items in (('as given', walk.raw), ('where the centres move', walk.moved)):
        ends = items.label[items.edges]
        within = float((ends[:, 0] == ends[:, 1]).mean()) if len(ends) else 0.0
        title = f'{walk.title}, {title}: {within * 100:.1f} % of {len(ends)} edges within a class'
        figures.append(_figure(title, _map(items, f'{title}. A graph of items on a plane.')))
    intro = (
        f'The same episode as a graph: a line joins two items of which one is among the '
        f'{fields.neighbours} most similar to the other by cosine. On the left the features as '
        'they are, on the right where the centres move: '
        + ('after the embedding of the graph and ' if fields.graph else '')
        + 'less the mean of their group, support or queries.'
    )
    kinds = ['query', 'shot', 'synthesised item', 'among the most similar']
    return section(
        'graph', 'Graph of an episode', _intro(intro), _charts(figures), _keys(kinds, labels)
    )


def _synthesised(
    test, made, colours: float, coloured: bool, names: Sequence[str], order=None
) -> str:
    """Test items and what was made for their classes, on the plane of the former.

    `order` [W] are the classes to show, numbered as in another part.
    """
    title = 'Real and synthesised features'
    count, offset = np.asarray(test.count), np.asarray(test.offset)
    rng = np.random.default_rng(0)
    some = np.sort(rng.permutation(len(count))[:CLASSES])
    chosen = some if order is None else order[:CLASSES]
    rows = [offset[c] + rng.permutation(count[c])[:ITEMS] for c in chosen]
    real = np.asarray(weigh(test.x, colours, coloured), np.float64)
    made = np.asarray(weigh(made, colours, coloured), np.float64)
    if not (np.isfinite(real).all() and np.isfinite(made).all()):
        return section('synthesised', title, note('The features are not finite.'))
    means = np.stack([real[o : o + n].mean(0) for o, n in zip(offset, count, strict=True)])
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    own = (made @ means.T).argmax(-1) == np.arange(len(made))[:, None]
    drawn = made[chosen, :ITEMS]
    x = np.concatenate([real[np.concatenate(rows)], drawn.reshape(-1, drawn.shape[-1])])
    ways, num = np.arange(len(chosen)), sum(map(len, rows))
    label = np.concatenate([ways.repeat([len(r) for r in rows]), ways.repeat(drawn.shape[1])])
    middle, axes, share = _plane(x[:num])
    kind = np.where(np.arange(len(x)) < num, 0, 2)
    items = Items((x - middle) @ axes.T, label, kind, np.zeros((0, 2), int), share)
    said = (
        f'{own.mean() * 100:.1f} % of the synthesised items are closest, by cosine, to the mean of '
        'the real items of their own class'
    )
    intro = (
        f'Items of {len(chosen)} test classes as circles and what was made for these classes from '
        'their descriptions as triangles, on the two principal axes of the real items. A number '
        f'stands at the mean of the real items of its class. {said}.'
    )
    path = np.stack(
        [[items.place[(label == w) & (kind == k)].mean(0) for w in ways] for k in (2, 0)]
    )
    caption = f'{num} real and {len(x) - num} synthesised items'
    svg = _map(items, f'{caption} on a plane; {said}.', path=path, dashed=True)
    keys = _keys(['real item', 'synthesised item'], [names[c] for c in chosen])
    lines = "A dashed line leads from the mean of a class's synthesised items to it."
    return section(
        'synthesised', title, _intro(f'{intro} {lines}'), _charts([_figure(caption, svg)]), keys
    )


def _by_class(fields, coloured, features, made, key, config, shown, names) -> str:
    """The accuracy of every class, of each kind of answer."""

    @jax.jit
    def ask(features, made, key):
        def one(number):
            episode, right = _draw(key, features, config, number), {}
            for ways, shots in shown:
                small = episodes.first(episode, ways, shots)
                given = None if made is None else made[small.class_id]
                for kind, score in refine.scores(fields, coloured, small, given).items():
                    hits = (score.argmax(1) == small.y_q).reshape(ways, -1).mean(1)
                    right[task_name(ways, shots) + kind] = (small.class_id, hits)
            return right

        return jax.lax.map(one, jax.numpy.arange(TASKS))

    columns = {}
    for column, (ids, hits) in ask(features, made, key).items():
        ids, hits = np.asarray(ids).ravel(), np.asarray(hits).ravel()
        total, seen = np.bincount(ids, hits, len(names)), np.bincount(ids, minlength=len(names))
        columns[column] = total / np.where(seen, seen, np.nan)
    order = [task_name(*t) + k for t in shown for k in refine.KINDS]
    columns = {column: columns[column] for column in order if column in columns}
    intro = (
        f'How often the queries of each class are named rightly, in the first {TASKS} test '
        'episodes: what words and the other queries do for one class, they may take from another.'
    )
    return _accuracies(columns, names, intro)


def _told(values: dict, names: Sequence[str]) -> str:
    kinds = ('zero-shot', 'zero-shot, balanced', 'unseen')  # 'seen' tells of other classes
    columns = {kind: np.asarray(values[kind]) for kind in kinds if kind in values}
    intro = (
        'How often the test items of each class are named rightly, all test classes among them, '
        'from what was made of their descriptions; balanced: knowing all queries and that there '
        'are equally many of each class'
        + (
            '; unseen: with the seen classes to choose from as well.'
            if 'unseen' in columns
            else '.'
        )
    )
    return _accuracies(columns, names, intro)


def _accuracies(columns: dict[str, np.ndarray], names: Sequence[str], intro: str) -> str:
    """A bar for the first column; the classes that do worst in it come first."""
    first = next(iter(columns.values()))
    order = [c for c in np.argsort(first, kind='stable') if np.isfinite(first[c])]
    rows = [
        (
            name(names[c]),
            meter(float(first[c]), None),
            *('&ndash;' if np.isnan(v[c]) else f'{v[c] * 100:.1f} %' for v in columns.values()),
        )
        for c in order[:ROWS]
    ]
    more = f' The {ROWS} lowest of {len(order)}.' if len(order) > ROWS else ''
    head = ('class', '0 to 100 %', *columns)
    return section('by-class', 'Accuracy by class', _intro(intro + more), table(head, rows))


def _intro(text: str) -> str:
    return f'<p>{escape(text)}</p>'


def _figure(title: str, svg: str) -> str:
    return f'<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>'


def _charts(figures: Sequence[str]) -> str:
    wide = '' if len(figures) > 1 else ' style="max-width:36rem"'
    return f'<div class="charts"{wide}>{"".join(figures)}</div>'


def _style(label: int) -> str:
    colour, on = PALETTE[label % len(PALETTE)]
    return f'style="--c:{colour};--on:{on}"'


def _keys(kinds: Sequence[str], labels: Sequence[str]) -> str:
    """What shapes and colours mean."""
    shapes = ''.join(
        f'<li style="--c:var(--dim)"><svg viewBox="0 0 26 10" style="stroke:none" '
        f'aria-hidden="true">{KEY[kind]}</svg>{escape(kind)}</li>'
        for kind in kinds
    )
    classes = ''.join(
        f'<li><span class="number c" {_style(w)}>{w + 1}</span>{name(label)}</li>'
        for w, label in enumerate(labels)
    )
    return f'<ul class="key">{shapes}</ul><ul class="key">{classes}</ul>'


def _map(
    items: Items,
    label: str,
    *,
    edges: bool = True,
    path: np.ndarray | None = None,
    wrong: np.ndarray | None = None,
    dashed: bool = False,
) -> str:
    """Items by class and kind, the edges between them and paths [R, W, 2] of the centres."""
    every = items.place if path is None else np.concatenate([items.place, path.reshape(-1, 2)])
    low, span = every.min(0), np.ptp(every, axis=0)
    # One scale for both axes: distances on the map are distances in the plane.
    unit = min((WIDE - 2 * EDGE) / (span[0] or 1), (HIGH - 2 * EDGE) / (span[1] or 1))
    at = lambda p: (p - low - span / 2) * unit * [1, -1] + [WIDE / 2, HIGH / 2]
    spot = at(items.place)
    text = [f'{x:.1f} {y:.1f}' for x, y in spot]
    drawn = []
    if edges and len(items.edges):
        lines = ''.join(
            f'M{spot[a, 0]:.0f} {spot[a, 1]:.0f}L{spot[b, 0]:.0f} {spot[b, 1]:.0f}'
            for a, b in items.edges
        )
        drawn.append(
            f'<path class="edges" d="{lines}" style="fill:none;stroke:var(--dim);opacity:.4"/>'
        )
    for w in np.unique(items.label):
        of = lambda kind, w=w: np.flatnonzero((items.label == w) & (items.kind == kind))
        marks = [
            f'<circle class="spot" cx="{spot[i, 0]:.1f}" cy="{spot[i, 1]:.1f}" r="4"/>'
            for i in of(0)
        ]
        if len(rows := of(2)):
            d = ''.join(f'M{text[i]}{MADE}' for i in rows)
            marks.append(f'<path class="made" d="{d}" style="fill:none;stroke:var(--c)"/>')
        if len(rows := of(1)):
            d = ''.join(f'M{text[i]}{SHOT}' for i in rows)
            marks.append(f'<path class="shot" d="{d}" style="stroke:var(--c);stroke-width:3"/>')
        drawn.append(f'<g {_style(w)}>{"".join(marks)}</g>')
    if wrong is not None and wrong.any():
        rings = ''.join(
            f'<circle class="wrong" cx="{spot[i, 0]:.1f}" cy="{spot[i, 1]:.1f}" r="7"/>'
            for i in np.flatnonzero(wrong)
        )
        drawn.append(f'<g style="fill:none;stroke:var(--red);stroke-width:1.8">{rings}</g>')
    for w, way in enumerate([] if path is None else np.moveaxis(at(path), 1, 0)):
        drawn.append(_way(w, way, dashed))
    first, second = (f'{share * 100:.0f} % of the variance' for share in items.share)
    drawn.append(
        f'<text x="{WIDE - 8}" y="{HIGH - 8}" text-anchor="end">first axis: {first} →</text>'
        f'<text transform="translate(16 {HIGH - 28})rotate(-90)">second axis: {second} →</text>'
    )
    return (
        f'<svg class="map" viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{escape(label)}">'
        f'{"".join(drawn)}</svg>'
    )


def _way(w: int, way: np.ndarray, dashed: bool) -> str:
    """A line from a ring to a number, that stands out from the items below it."""
    points = ' '.join(f'{x:.1f},{y:.1f}' for x, y in way)
    (x0, y0), (x, y) = way[0], way[-1]
    line = 'stroke-width:1.5;stroke-dasharray:4 3' if dashed else 'stroke-width:3'
    halo = f'<polyline points="{points}" style="fill:none;stroke:var(--soft);stroke-width:6"/>'
    ring = 'style="fill:var(--soft);stroke:var(--c);stroke-width:2.5"'
    start = f'<circle cx="{x0:.1f}" cy="{y0:.1f}" r="5" {ring}/>'
    under, start = ('', '') if dashed else (halo, start)
    return (
        f'<g {_style(w)}>{under}<polyline class="walk" points="{points}" '
        f'style="fill:none;stroke:var(--c);{line}"/>{start}'
        f'<circle class="sign" cx="{x:.1f}" cy="{y:.1f}" r="9.5" style="stroke:var(--soft)"/>'
        f'<text class="sign" x="{x:.1f}" y="{y + 4.5:.1f}" text-anchor="middle">{w + 1}</text></g>'
    )
