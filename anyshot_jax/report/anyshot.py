"""The part of the page about any-shot runs: moving centres, the graph, and what was synthesised."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from markupsafe import Markup
from ml_collections import ConfigDict

from anyshot_jax.episodes import sampling
from anyshot_jax.episodes.episodic import embed_dataset, task_name
from anyshot_jax.methods import refine
from anyshot_jax.report import charts, maps, tasks
from anyshot_jax.report.page import NOTHING, meter, name, note, paragraph, section, table
from anyshot_jax.report.subject import Subject
from anyshot_jax.stages.left_out import said
from anyshot_jax.stages.synthesis import has_colours, weigh
from anyshot_jax.types import Array, Data, Dataset, Episode, Method, TrainState

TASKS = 50  # of which the accuracy of every class is told
CLASSES, ITEMS, ROWS = 10, 20, 30  # on the map of synthesised items, of each class, of the table


def parts(subject: Subject) -> list[Markup]:
    """Tasks, and how real and synthesised items go together."""
    if 'test' not in subject.data.roles:
        return tasks.parts(subject)
    own = _sections(subject.method, subject.state, subject.data, subject.config)
    return tasks.parts(subject) + own


def _sections(method: Method, state: TrainState, data: Data, config: ConfigDict) -> list[Markup]:
    """The sections for runs of `refine` and of methods that make features; none for others."""
    fields = config.method
    # One device answers, as for the other parts; exports of earlier stages come along.
    data = jax.device_put(data, jax.local_devices()[0])
    key = jax.random.split(jax.random.key(int(config.get('seed', 0))), 4)[3]  # the test's
    names = sampling.class_names(data.roles['test'])
    if 'synthesised_from' in fields:
        return _refined(method, state, data, config, key, names)
    if 'synthesised' in fields and 'calibration' in fields:
        made = method.export(state, data, key)['test']
        values, choice = method.evaluate(state, data, key, 'test'), state.extra['choice']
        weight = choice.colours if has_colours(data) else None
        return [
            _synthesised(data.roles['test'], made, weight, names),
            _told(values, names, said(choice) if fields.choose else ''),
        ]
    return []


def _refined(method, state, data, config, key, names) -> list[Markup]:
    fields, tasks = config.method, config.eval.tasks
    colours = refine.colours_of(config, data)
    made = data.stages[fields.synthesised_from]['test'] if fields.synthesised_from else None
    assert method.embed
    features = embed_dataset(jax.jit(partial(method.embed, state)), data.roles['test'])
    found, order = [], None
    shown = [t for t in tasks if t[1]][:1] + [t for t in tasks if not t[1]][:1]
    if shown and not bool(np.isfinite(features.x).all()):
        return [section('centres', 'Class centres', note('The features are not finite.'))]
    if shown and fields.transductive:
        episode = _draw(key, features, config)
        walks = [_walk(fields, colours, episode, made, *task) for task in shown]
        order = np.asarray(episode.class_id)
        labels = [names[c] for c in order]
        found += [_centres(walks, labels), _graph(walks, labels, fields)]
    if made is not None:
        found.append(_synthesised(features, made, colours, names, order))
    if shown and (fields.transductive or made is not None):
        found.append(_by_class(fields, colours, features, made, key, config, shown, names))
    return found


def _draw(key: Array, features: Dataset, config: ConfigDict, number: Array | int = 0) -> Episode:
    """An episode of the test, of the most ways and shots."""
    ways, shots = (max(column) for column in zip(*config.eval.tasks, strict=True))
    drawn = {'ways': ways, 'shots': shots, 'queries': config.eval.queries}
    return sampling.sample_episode(jax.random.fold_in(key, number), features, **drawn)


class Walk(NamedTuple):
    """One episode: its items as given and where the centres move, and their path."""

    title: str
    raw: maps.Items
    moved: maps.Items
    path: np.ndarray  # [rounds + 1, W, 2]
    wrong: np.ndarray  # [N] bool
    right: tuple[float, float]  # shares of the queries: inductive, transductive


def _walk(fields, colours, episode, made, ways: int, shots: int) -> Walk:
    episode = sampling.first(episode, ways, shots)
    made = None if made is None else made[episode.class_id]
    suffix, given = list(refine.support(fields, colours, episode, made).items())[-1]
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
    middle, axes, share = maps.plane(x)
    place = maps.Items((x - middle) @ axes.T, label, kind, maps.edges(x, fields.neighbours), share)
    middle_raw, axes_raw, share_raw = maps.plane(raw)
    return Walk(
        title=task_name(ways, shots) + suffix,
        raw=maps.Items(
            (raw - middle_raw) @ axes_raw.T,
            label,
            kind,
            maps.edges(raw, fields.neighbours),
            share_raw,
        ),
        moved=place,
        path=(np.asarray(moved.path) - middle) @ axes.T,
        wrong=np.concatenate([np.zeros(there.sum(), bool), answer != y_q]),
        right=(float((before == y_q).mean()), float((answer == y_q).mean())),
    )


def _centres(walks: Sequence[Walk], labels: Sequence[str]) -> Markup:
    figures = []
    for walk in walks:
        before, after = (f'{share * 100:.1f} %' for share in walk.right)
        queries = int((walk.moved.kind == 0).sum())
        title = (
            f'{walk.title}, transductive: {after} of {queries} queries right; inductive: {before}'
        )
        alt = f'{title}. Items on a plane, and the way of each class centre to the queries.'
        figures.append(
            charts.figure(
                title,
                maps.drawn_map(walk.moved, alt, edges=False, path=walk.path, wrong=walk.wrong),
            )
        )
    intro = (
        'The first test episode, on the two principal axes of the space where the centres move: '
        'each group, support and queries, less its own mean. Every centre starts at the mean of '
        'its support and ends among the queries that optimal transport gives it. Colours and '
        'numbers are the true classes.'
    )
    kinds = [k for k in maps.KEY if k not in ('real item', 'among the most similar')]
    return section(
        'centres',
        'Class centres',
        paragraph(intro),
        charts.side_by_side(figures),
        maps.keys(kinds, labels),
    )


def _graph(walks: Sequence[Walk], labels: Sequence[str], fields: ConfigDict) -> Markup:
    walk, figures = walks[0], []
    for title, items in (('as given', walk.raw), ('where the centres move', walk.moved)):
        ends = items.label[items.edges]
        within = float((ends[:, 0] == ends[:, 1]).mean()) if len(ends) else 0.0
        title = f'{walk.title}, {title}: {within * 100:.1f} % of {len(ends)} edges within a class'
        figures.append(
            charts.figure(title, maps.drawn_map(items, f'{title}. A graph of items on a plane.'))
        )
    intro = (
        f'The same episode as a graph: a line joins two items of which one is among the '
        f'{fields.neighbours} most similar to the other by cosine. On the left the features as '
        'they are, on the right where the centres move: '
        + ('after the embedding of the graph and ' if fields.graph else '')
        + 'less the mean of their group, support or queries.'
    )
    kinds = ['query', 'shot', 'synthesised item', 'among the most similar']
    return section(
        'graph',
        'Graph of an episode',
        paragraph(intro),
        charts.side_by_side(figures),
        maps.keys(kinds, labels),
    )


def _synthesised(test, made, colours: Array | None, names: Sequence[str], order=None) -> Markup:
    """Test items and what was made for their classes, on the plane of the former.

    `order` [W] are the classes to show, numbered as in another part.
    """
    title = 'Real and synthesised features'
    count, offset = np.asarray(test.count), np.asarray(test.offset)
    rng = np.random.default_rng(0)
    some = np.sort(rng.permutation(len(count))[:CLASSES])
    chosen = some if order is None else order[:CLASSES]
    rows = [offset[c] + rng.permutation(count[c])[:ITEMS] for c in chosen]
    how = (0.0, False) if colours is None else (colours, True)
    real, made = (np.asarray(weigh(x, *how), np.float64) for x in (test.x, made))
    if not (np.isfinite(real).all() and np.isfinite(made).all()):
        return section('synthesised', title, note('The features are not finite.'))
    means = np.stack([real[o : o + n].mean(0) for o, n in zip(offset, count, strict=True)])
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    own = (made @ means.T).argmax(-1) == np.arange(len(made))[:, None]
    drawn = made[chosen, :ITEMS]
    x = np.concatenate([real[np.concatenate(rows)], drawn.reshape(-1, drawn.shape[-1])])
    ways, num = np.arange(len(chosen)), sum(map(len, rows))
    label = np.concatenate([ways.repeat([len(r) for r in rows]), ways.repeat(drawn.shape[1])])
    middle, axes, share = maps.plane(x[:num])
    kind = np.where(np.arange(len(x)) < num, 0, 2)
    items = maps.Items((x - middle) @ axes.T, label, kind, np.zeros((0, 2), int), share)
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
    svg = maps.drawn_map(items, f'{caption} on a plane; {said}.', path=path, dashed=True)
    keys = maps.keys(['real item', 'synthesised item'], [names[c] for c in chosen])
    lines = "A dashed line leads from the mean of a class's synthesised items to it."
    return section(
        'synthesised',
        title,
        paragraph(f'{intro} {lines}'),
        charts.side_by_side([charts.figure(caption, svg)]),
        keys,
    )


def _by_class(fields, colours, features, made, key, config, shown, names) -> Markup:
    """The accuracy of every class, of each kind of answer."""

    @jax.jit
    def ask(features, made, key):
        def one(number):
            episode, right = _draw(key, features, config, number), {}
            for ways, shots in shown:
                small = sampling.first(episode, ways, shots)
                given = None if made is None else made[small.class_id]
                for kind, score in refine.scores(fields, colours, small, given).items():
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


def _told(values: dict, names: Sequence[str], chosen: str) -> Markup:
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
    intro += f' What was chosen: {chosen}.' if chosen else ''
    return _accuracies(columns, names, intro)


def _accuracies(columns: dict[str, np.ndarray], names: Sequence[str], intro: str) -> Markup:
    """A bar for the first column; the classes that do worst in it come first."""
    first = next(iter(columns.values()))
    order = [c for c in np.argsort(first, kind='stable') if np.isfinite(first[c])]
    rows = [
        (
            name(names[c]),
            meter(float(first[c]), None),
            *(NOTHING if np.isnan(v[c]) else f'{v[c] * 100:.1f} %' for v in columns.values()),
        )
        for c in order[:ROWS]
    ]
    more = f' The {ROWS} lowest of {len(order)}.' if len(order) > ROWS else ''
    head = ('class', '0 to 100 %', *columns)
    return section('by-class', 'Accuracy by class', paragraph(intro + more), table(head, rows))
