"""Splits classes into training, validation and test, and makes Data of them."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from absl import logging

from anyshot_jax.types import Array, Data, InputError, from_arrays, nearest

ROLES = ('train', 'val', 'test')
FIELDS = {
    'split': (0.6, 0.2, 0.2),  # fractions of the classes for train, val, test
    'split_seed': 0,  # which classes these are
    'val_classes': (),  # or name them: both lists, the rest is for training
    'test_classes': (),
}


def split_classes(names: Iterable[str], config) -> dict[str, str]:
    """Class name -> role, by the fields `FIELDS` of config.

    Sorted names are shuffled by split_seed and dealt out by fraction, at least one class a role.

    Raises:
      InputError: fewer than 3 classes, bad fractions, or listed classes that don't exist.
    """
    names = sorted(names)
    val, test = tuple(config.val_classes), tuple(config.test_classes)
    if val or test:
        return _split_by_lists(names, val, test)
    fractions = tuple(config.split)
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise InputError(
            f'config.data.split = {fractions}: need three positive fractions (train, val, test) '
            'that sum to 1'
        )
    if len(names) < 3:
        raise InputError(
            f'{len(names)} classes ({", ".join(names)}): train, val and test need at least one each'
        )
    num_val, num_test = (max(1, round(f * len(names))) for f in fractions[1:])
    while num_val + num_test > len(names) - 1:
        num_val, num_test = num_val - (num_val > num_test), num_test - (num_val <= num_test)
    order = np.random.default_rng(config.split_seed).permutation(len(names))
    num_train = len(names) - num_val - num_test
    return {
        names[c]: 'train' if i < num_train else 'val' if i < num_train + num_val else 'test'
        for i, c in enumerate(order)
    }


def _split_by_lists(names: Sequence[str], val: tuple, test: tuple) -> dict[str, str]:
    if not (val and test):
        raise InputError('config.data.val_classes and test_classes must be given together')
    for field, listed in (('val_classes', val), ('test_classes', test)):
        for name in listed:
            if name not in names:
                raise InputError(f'config.data.{field}: no class {name!r}{nearest(name, names)}')
    both = sorted(set(val) & set(test))
    if both:
        raise InputError(f'classes in both val_classes and test_classes: {", ".join(both)}')
    role = {n: 'val' if n in val else 'test' if n in test else 'train' for n in names}
    if 'train' not in role.values():
        raise InputError('val_classes and test_classes leave no class for training')
    return role


def check_disjoint(names: Mapping[str, Iterable[str]]) -> None:
    """Refuses a class that stands in two roles, also if case, spaces or Unicode form differ.

    Two such names within one role may be meant and are only reported.

    Args:
      names: role -> class names.
    Raises:
      InputError: names the classes and their roles.
    """
    seen: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for role in names:
        for name in names[role]:
            seen[plain(name)].append((role, name))
    shared = {plain: found for plain, found in seen.items() if len({r for r, _ in found}) > 1}
    if shared:
        text = '; '.join(
            ' and '.join(f'{role}/{name!r}' for role, name in found)
            for found in list(shared.values())[:5]
        )
        raise InputError(
            f'{len(shared)} classes stand in more than one of train, val and test: {text}. '
            'Few-shot evaluation needs classes that training has never seen: '
            'move or rename them'
        )
    for found in seen.values():
        if len(found) > 1:
            logging.warning(
                'nearly the same class name twice: %s', ', '.join(repr(name) for _, name in found)
            )


def plain(name: str) -> str:
    """The name without what eyes don't see: case, blanks, Unicode form."""
    return ' '.join(unicodedata.normalize('NFKC', name).casefold().split())


def split_items(
    x: Array,
    label: Array,
    names: Sequence[str],
    role: Sequence[str],
    *,
    extras: Mapping[str, Array] | None = None,
    group: Array | None = None,
    texts: Sequence[str] = (),
    turns: tuple[int, int] = (1, 1),
    roles: Sequence[str] = ROLES,
) -> Data:
    """Data by role; within a role the classes keep their order and are numbered anew.

    Args:
      x: [N, ...] items; a role whose items stand together gets a view of them.
      label: [N] integers 0..C-1. names, role: C names and roles.
      extras: arrays with leading axis C. group: [N] integers, or none.
      texts: C descriptions, '' where there is none; or none at all.
      turns: of train, of val and test. roles: those that there must be.
    Raises:
      InputError: a role without classes, a class without items or in two roles.
    """
    label, of_class = np.asarray(label), np.asarray(role)
    check_disjoint({r: [n for n, of in zip(names, role, strict=True) if of == r] for r in ROLES})
    datasets = {}
    for r in roles:
        classes = np.flatnonzero(of_class == r)
        if not len(classes):
            raise InputError(f'no class for {r!r}: {", ".join(roles)} need at least one each')
        renumber = np.full(len(names), -1)
        renumber[classes] = np.arange(len(classes))
        rows = _as_slice(np.flatnonzero(renumber[label] >= 0))
        datasets[r] = from_arrays(
            np.asarray(x)[rows],
            renumber[label[rows]],
            tuple(names[int(c)] for c in classes),
            extras={k: v[classes] for k, v in (extras or {}).items()},
            group=None if group is None else np.asarray(group)[rows],
            texts=tuple(texts[int(c)] for c in classes) if any(texts) else (),
            turns=check_turns(turns[0] if r == 'train' else turns[1]),
        )
    return Data(datasets)


def _as_slice(rows: Array) -> Array | slice:
    """Rows that follow one another as a slice, which copies nothing: images are large."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def check_turns(turns: int) -> int:
    """1 or 4, else InputError."""
    if turns not in (1, 4):
        raise InputError(f'config.data.turns and turns_eval must be 1 or 4, got {turns}')
    return turns
