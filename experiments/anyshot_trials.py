"""Trials of choose_anyshot.py: items of some classes, and the values of settings on them.

All arrays of a kind have one shape (`MOST` items a class, those that are not there have label -1),
so that a program is compiled once and not for every choice of classes.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anyshot_jax import config as configs
from anyshot_jax.encoders import describe, embedding
from anyshot_jax.episodes import sampling
from anyshot_jax.methods import lda, refine
from anyshot_jax.ops.colour import COLOURS
from anyshot_jax.ops.prototype import class_means
from anyshot_jax.stages.synthesis import predict_means
from anyshot_jax.storage.folders import data_root
from anyshot_jax.types import Data, Dataset, from_arrays

RECIPE_ENCODER = 'efficientnet_lite0'
LEVELS = ('stride8', 'stride16', 'stride32')  # beside the encoder's last features
SHRINK = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05)
GRAPHS = ((), (4, 1, 0.75), (10, 1, 0.75), (10, 9, 0.5))  # neighbours, power, self weight
CENTRES = tuple(itertools.product((5.0, 10.0, 20.0), (0.2, 0.4)))  # sharpness, step
COLOURS_PENALTY = (0.5, 1.0)  # the start of stages/left_out.py
WEIGHTS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5)  # of synthesised
WAYS, QUERIES, EPISODES, FAKES = 5, 15, 200, 20
MOST, VECTOR = 50, 4096  # items of a class; numbers of a vector of words


class Items(NamedTuple):
    """A whole set, embedded once with all levels and colours."""

    x: np.ndarray  # [N, D]
    label: np.ndarray  # [N]
    names: tuple[str, ...]  # those that are new in A come last
    texts: tuple[str, ...]
    parts: dict[str, np.ndarray]  # the columns of 'features', of the levels and of 'colours'


class Fold(NamedTuple):
    """Classes that train and classes that validate."""

    train: list[str]
    val: list[str]


SETS: dict[
    str, tuple[str, dict, int | None]
] = {  # name -> loader, its fields, and the most classes that are taken
    'MSD': ('industrial', {'set': 'MSD', 'classes': 'A', 'val': 0}, None),
    'KTD': ('industrial', {'set': 'KTD', 'classes': 'A', 'val': 0}, None),
    'DTD': ('folder', {'dir': f'{data_root()}/dtd/images'}, None),
    'Grocery': ('packed', {'set': 'grocery'}, None),
    'Emoji': ('packed', {'set': 'emoji'}, 80),
    'magnetic tiles': ('mvtec', {'category': 'magnetic_tile'}, None),
}


def whole(name: str, folder: str = '', most: int = MOST) -> Items:
    """Every class of a set: one of `SETS`, or in `folder` class folders with a classes.json.

    Of a class that has more, `most` items, evenly spread.
    """
    own: tuple[str, dict, int | None] = ('folder', {'dir': folder}, None)
    loader, fields, classes = own if folder else SETS[name]
    config = configs.defaults('lda', loader)
    config.data.update({'size': 224, **fields})
    data = configs.find('data', loader).load(config.data)
    parts = (*LEVELS, 'colours')
    roles = {r: _some(d, most, classes) for r, d in data.roles.items()
             if r in ('train', 'val', 'test')}  # fmt: skip
    roles = {r: d for r, d in roles.items() if loader != 'mvtec' or r == 'test'}
    data = embedding.embed(Data(roles), RECIPE_ENCODER, parts=parts)
    every = list(data.roles.values())
    start = np.cumsum([0, *(len(d.names) for d in every)])
    columns = np.split(np.arange(every[0].x.shape[1]), np.cumsum(every[0].parts)[:-1])
    return Items(
        np.concatenate([d.x for d in every]),
        np.concatenate([d.label + n for d, n in zip(every, start, strict=False)]),
        tuple(n for d in every for n in d.names),
        tuple(t for d in every for t in d.texts or ('',) * len(d.names)),
        dict(zip(('features', *parts), columns, strict=True)),
    )


def _some(d: Dataset, most: int, classes: int | None) -> Dataset:
    """The first `classes` classes, and of each at most `most` items, evenly spread."""
    num = len(d.names) if classes is None else min(classes, len(d.names))
    rows = [np.flatnonzero(d.label == c) for c in range(num)]
    rows = [r[np.unique(np.linspace(0, len(r) - 1, min(most, len(r))).astype(int))] for r in rows]
    label = np.repeat(np.arange(num), list(map(len, rows)))
    texts = d.texts[:num] if d.texts else ()
    return from_arrays(d.x[np.concatenate(rows)], label, d.names[:num], texts=texts)


# Items of a fold.


def dataset(items: Items, names: Sequence[str], part: str = 'all') -> Dataset:
    """Items of some classes and as many of label -1 as are missing. part: all | kept | held."""
    ids = [items.names.index(name) for name in names]
    rows = [np.flatnonzero(items.label == c) for c in ids]
    takes = {'all': lambda nth: nth >= 0, 'kept': lambda nth: nth % 5 < 4}
    taken = takes.get(part, lambda nth: nth % 5 == 4)
    rows = [r[taken(np.arange(len(r)))] for r in rows]
    made = from_arrays(
        items.x[np.concatenate(rows)], np.repeat(np.arange(len(ids)), list(map(len, rows)))
    )
    more = len(ids) * MOST - len(made.label)
    return dataclasses.replace(
        made,
        x=np.pad(made.x, ((0, more), (0, 0))),
        label=np.pad(made.label, (0, more), constant_values=-1),
    )


def select(items: Items, levels: Sequence[str], *more: str) -> tuple[np.ndarray, tuple[int, ...]]:
    """The columns of the encoder's last features, of some levels and `more`; sizes without more."""
    sizes = tuple(len(items.parts[p]) for p in ('features', *levels))
    return np.concatenate([items.parts[p] for p in ('features', *levels, *more)]), sizes


def space(items: Items, levels, power: float, train: Dataset, val: Dataset, shrink) -> jax.Array:
    """[S, N, N]: what validates, whitened with S shrinkages, turned so that N axes hold it all."""
    columns, sizes = select(items, levels)
    x = train.x[:, columns], val.x[:, columns]
    return _space(*x, train.label, val.label, jnp.array(shrink), len(train.count), sizes, power)


@partial(jax.jit, static_argnames=('num', 'sizes', 'power'))
def _space(x, x_val, label, label_val, shrink, num, sizes, power):
    how = {'power': power, 'colours': 0}
    fitted = jax.vmap(lambda s: lda.fit(x, label, num, sizes, shrink=s, **how))(shrink)

    def turned(fitted):
        z = jnp.where(label_val[:, None] >= 0, lda.embed(fitted, x_val, sizes, **how), 0)
        # Cholesky's factor has the same products; 1e-5 for the rows that are not there.
        return jnp.linalg.cholesky(z @ z.T + 1e-5 * jnp.eye(len(z)))

    return jax.lax.map(turned, fitted)


def whitened(items: Items, fold: Fold, best: dict, held_out: bool = False) -> list[Dataset]:
    """Data that trains, validates and is held out, as stage `embed` hands it on, with words."""
    levels, power, shrink = best['embed']
    columns, sizes = select(items, levels, 'colours')
    parts = [dataset(items, fold.train, 'kept' if held_out else 'all'), dataset(items, fold.val)]
    parts += [dataset(items, fold.train, 'held')] if held_out else []
    x = [d.x[:, columns] for d in parts]
    x = _whitened(x, parts[0].label, shrink, len(fold.train), sizes, power)
    said = dict(zip(fold.train + fold.val, _words(items, fold.train + fold.val), strict=True))
    every = [fold.train, fold.val, fold.train]
    return [
        dataclasses.replace(
            d, x=a, extras=jax.tree.map(lambda *rows: np.stack(rows), *(said[n] for n in names))
        )
        for d, a, names in zip(parts, x, every, strict=False)
    ]


@partial(jax.jit, static_argnames=('num', 'sizes', 'power'))
def _whitened(x, label, shrink, num, sizes, power):
    how = {'power': power, 'colours': len(COLOURS)}
    fitted = lda.fit(x[0], label, num, sizes, shrink=shrink, **how)
    return [lda.embed(fitted, a, sizes, **how) for a in x]


def _words(items: Items, names: Sequence[str]) -> list[dict]:
    """Descriptions of the classes, a row of `extras` each."""
    ids = [items.names.index(n) for n in names]
    one_each = from_arrays(np.zeros((len(ids), 1)), np.arange(len(ids)), tuple(names))
    texts = tuple(items.texts[c] for c in ids)
    data = Data({'all': dataclasses.replace(one_each, texts=texts)})
    named = describe.name_colours(describe.describe(data, 'subwords', ('{text}',)))
    said = named.roles['all'].extras
    vectors = np.pad(said['attribute'], ((0, 0), (0, VECTOR - said['attribute'].shape[1])))
    return [{'attribute': v, 'colours': c} for v, c in zip(vectors, said['colours'], strict=True)]


# Values: of arrays, compiled once.


def _episode(val: Dataset, number, shots: int):
    """Row numbers instead of items."""
    rows = dataclasses.replace(val, x=jnp.arange(len(val.label)))
    key = jax.random.fold_in(jax.random.key(0), number)
    return sampling.sample_episode(key, rows, ways=WAYS, shots=shots, queries=QUERIES)


def _at(x, episode):
    return episode._replace(x_s=x[episode.x_s], x_q=x[episode.x_q])


def _right(score, episode):
    return jnp.mean(score.argmax(1) == episode.y_q)


def _given(x, episode):
    e = _at(x, episode)
    return refine.Items(e.x_s, jax.nn.one_hot(e.y_s, WAYS), e.x_q)


@jax.jit
def one_shot(spaces, val):
    """[S] of [S, N, N]."""

    def one(number):
        e = _episode(val, number, 1)
        return jax.lax.map(lambda x: _right(refine.induce(*_given(x, e)), e), spaces)

    return jax.lax.map(one, jnp.arange(EPISODES)).mean(0)


def _centres(graph: tuple, sharpness, step) -> SimpleNamespace:
    """The fields that refine.transduce reads."""
    names = ('neighbours', 'graph_power', 'self_weight')
    fields = dict(zip(names, graph, strict=False))
    moves = {'rounds': 20, 'sharpness': sharpness, 'step': step, 'prior': ()}
    return SimpleNamespace(graph=bool(graph), **fields, **moves)


@partial(jax.jit, static_argnames='graph')
def moved(x, val, graph):
    """[settings of CENTRES]"""

    def one(number):
        large = _episode(val, number, 5)
        every = [sampling.first(large, WAYS, shots) for shots in (1, 5)]

        def setting(s):
            fields = _centres(graph, *s)
            plans = [refine.transduce(fields, _given(x, e), e.class_id).plan for e in every]
            return sum(_right(p, e) for p, e in zip(plans, every, strict=True)) / 2

        return jax.lax.map(setting, jnp.array(CENTRES))

    return jax.lax.map(one, jnp.arange(EPISODES)).mean(0)


@partial(jax.jit, static_argnames='graph')
def synthesised(train, val, graph, sharpness, step):
    """[settings of WEIGHTS]"""
    around = train.x - class_means(train.x, train.label, len(train.count))[train.label]
    there = (train.label >= 0) / jnp.sum(train.label >= 0)
    row = jax.random.choice(jax.random.key(0), len(around), (WAYS, FAKES), p=there)
    made = predict_means(Data({'train': train}), val, *COLOURS_PENALTY)[:, None] + around[row]

    def one(number):
        e = _at(val.x, _episode(val, number, 1))

        def setting(weight):
            fields = SimpleNamespace(synthesised_weight=weight)
            given = refine.support(fields, 0.0, e, made[e.class_id])[' + synthesis']
            plan = refine.transduce(_centres(graph, sharpness, step), given, e.class_id).plan
            return (_right(refine.induce(*given), e) + _right(plan, e)) / 2

        return jax.lax.map(setting, jnp.array(WEIGHTS))

    return jax.lax.map(one, jnp.arange(EPISODES)).mean(0)
