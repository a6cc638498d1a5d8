"""Weak-shot data made from any clean set: novel classes with wrong labels, of which we know.

config.data.source names another file of data/, source_fields what differs from its defaults; its
classes for training become the base ones and those for the test the novel ones. Half of the items
of every novel class are its web set, of which the share `noise` gets wrong labels (see noise.py),
the other half is the test, clean. Items from out of the vocabulary are held-back items of base
classes. Roles: base, web, test (novel classes), and test_base (clean items of base classes that
are not in base). `validation` says what becomes of the source's validation classes.
"""

from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from anyshot_jax.config import check_choices, find
from anyshot_jax.data.noise import corrupt
from anyshot_jax.data.splits import FIELDS
from anyshot_jax.types import Array, Data, Dataset, InputError, from_arrays, nearest

DEFAULTS = {
    **FIELDS,
    'source': 'packed',
    'source_fields': (),  # ((name, value), ...), such as (('set', 'grocery'), ('size', 112))
    'noise': 0.4,  # share of the web labels that are wrong
    'noise_seed': 0,  # which items are the web set, which are wrong and how
    'web': 0.5,  # share of the items of a novel class
    'web_groups': (),  # instead: the items of these groups of the source are the web set
    'outside': 0.1,  # share of the items of a base class that may stand for nothing in the web set
    'held_out': 0.1,  # share of the items of a base class kept for test_base
    'validation': 'base',  # base: these classes too | novel: they alone, as when choosing
    'hold_out': 0.0,  # share of the web set that becomes val, with its wrong labels
}
VALIDATION = ('base', 'novel')


def load(config: ConfigDict) -> Data:
    """Data of the source's items; `web` and `val` know which labels are right (`clean`).

    Raises:
      InputError: names the field that can't be used, or a class with too few items.
    """
    _check(config)
    return mix(config, find('data', config.source).load(source_config(config)))


def _check(config: ConfigDict) -> None:
    for name in ('outside', 'held_out', 'hold_out'):
        if not 0 <= config[name] < 1:
            raise InputError(f'config.data.{name}={config[name]} must be >= 0 and < 1')
    if not 0 < config.web < 1 or config.outside + config.held_out >= 1:
        raise InputError(
            'config.data.web must lie between 0 and 1, outside + held_out below 1: '
            f'got {config.web}, {config.outside}, {config.held_out}'
        )
    check_choices(config, {'validation': VALIDATION}, 'config.data')


def source_config(config: ConfigDict) -> ConfigDict:
    defaults = {'name': config.source, 'dir': config.dir, **find('data', config.source).DEFAULTS}
    given = dict(config.source_fields) | {n: config[n] for n in FIELDS if n in defaults}
    for name in given:
        if name not in defaults:
            raise InputError(f'config.data.source_fields: {name!r}{nearest(name, defaults)}')
    if given.get('turns', 1) != 1 or given.get('turns_eval', 1) != 1:
        raise InputError(
            'config.data.source_fields: rotated classes have no wrong labels, leave it'
        )
    return ConfigDict(defaults | given)


def mix(config: ConfigDict, source: Data) -> Data:
    """The roles of `load` made of those of a source that is loaded (and perhaps embedded) already.

    Raises:
      InputError: a class with too few items, or too few items outside.
    """
    choosing = config.validation == 'novel'
    roles = ('train',) if choosing or 'val' not in source.roles else ('train', 'val')
    base: Sequence[Dataset] = [source.roles[r] for r in roles]
    novel = source.roles['val' if choosing else 'test']
    rng = np.random.default_rng([config.noise_seed, config.split_seed])
    x = np.concatenate([d.x for d in base]) if len(base) > 1 else base[0].x
    shift = np.cumsum([0, *(len(d.count) for d in base)])
    label = np.concatenate([d.label + s for d, s in zip(base, shift, strict=False)])
    names = tuple(n for d in base for n in d.names)
    parts = _dealt(rng, label, (config.outside, config.held_out), names)
    outside, held_out, kept = parts
    if config.web_groups:
        web, test = _by_group(novel, config.web_groups)
    else:
        web, test = _dealt(rng, novel.label, (config.web,), novel.names)
    noisy = corrupt(rng, novel.label[web], config.noise, len(outside))
    of_web, of_outside = (
        novel.x[web[np.where(noisy.stranger, 0, noisy.row)]],
        x[outside[np.where(noisy.stranger, noisy.row, 0)]] if len(outside) else None,
    )
    if of_outside is not None:
        wide = noisy.stranger.reshape(-1, *[1] * (x.ndim - 1))
        of_web = np.where(wide, of_outside, of_web)
    later, now = _dealt(rng, noisy.label, (config.hold_out,), novel.names)
    made = {
        'base': from_arrays(x[kept], label[kept], names),
        'web': from_arrays(of_web[now], noisy.label[now], novel.names, clean=noisy.clean[now]),
        'test': from_arrays(novel.x[test], novel.label[test], novel.names),
    }
    if len(held_out):
        made['test_base'] = from_arrays(x[held_out], label[held_out], names)
    if len(later):
        made['val'] = from_arrays(
            of_web[later], noisy.label[later], novel.names, clean=noisy.clean[later]
        )
    return Data(made)


def _by_group(novel: Dataset, groups: Sequence[int]) -> tuple[Array, Array]:
    """Rows of the groups and of the others.

    Raises:
      InputError: a class lacks items of either (named), or the source has no groups.
    """
    if novel.group is None:
        raise InputError('config.data.web_groups: the items of this source have no groups')
    inside = np.isin(novel.group, groups)
    for rows in (inside, ~inside):
        lost = np.setdiff1d(np.arange(len(novel.names)), novel.label[rows])
        if len(lost):
            raise InputError(
                f'class {novel.names[lost[0]]!r} has no items '
                f'{"in" if rows is inside else "outside"} config.data.web_groups'
            )
    return np.flatnonzero(inside), np.flatnonzero(~inside)


def _dealt(rng, label: Array, shares: Sequence[float], names: Sequence[str]) -> list[Array]:
    """Rows of each class by share, the rest last; at least one wherever a share is positive.

    Raises:
      InputError: a class with fewer items than parts (named).
    """
    parts: list[list[int]] = [[] for _ in range(len(shares) + 1)]
    for c, name in enumerate(names):
        rows = rng.permutation(np.flatnonzero(label == c))
        sizes = [max(1, round(s * len(rows))) if s else 0 for s in shares]
        if sum(sizes) >= len(rows):
            raise InputError(
                f'class {name!r} has {len(rows)} items, too few to be dealt into '
                f'{1 + sum(map(bool, sizes))} parts'
            )
        ends = np.cumsum([0, *sizes, len(rows) - sum(sizes)])
        for part, a, b in zip(parts, ends, ends[1:], strict=False):
            part += rows[a:b].tolist()
    return [np.sort(np.array(part, np.int64)) for part in parts]
