"""Wrong labels made on purpose: a clean set becomes one as a web search gives it, truth known."""

from typing import NamedTuple

import numpy as np

from anyshot_jax.types import Array, InputError


class Noisy(NamedTuple):
    """Labels after noise: which class name each item stands under."""

    row: Array  # [N] int64 into the items, or into `outside` where `stranger`
    label: Array  # [N] int64, as given
    stranger: Array  # [N] bool: an item of no class
    clean: Array  # [N] bool: the label is right


def corrupt(rng: np.random.Generator, label: Array, share: float, num_outside: int) -> Noisy:
    """Makes the share of every class's labels wrong: half in-vocabulary, half out of it.

    Of the items of each class round(share * number) are taken; half of them are given the name of
    another class, drawn uniformly, and as many are replaced by items from outside, each used once.
    Of an odd number the larger half is drawn by lot.

    Args:
      label: [N] integers 0..C-1, of at least two classes if share > 0. share: 0 <= share < 1.
      num_outside: items that belong to no class.
    Raises:
      InputError: a share out of range, a single class, or too few items outside.
    """
    if not 0 <= share < 1:
        raise InputError(f'config.data.noise={share} must be >= 0 and < 1')
    label = np.asarray(label, np.int64)
    num = int(label.max()) + 1
    given, row = label.copy(), np.arange(len(label))
    if share and num < 2:
        raise InputError('config.data.noise needs at least two classes')
    swapped, replaced = [], []
    for c in range(num):
        items = rng.permutation(np.flatnonzero(label == c))
        wrong = round(share * len(items))
        half = (wrong + int(rng.integers(2))) // 2
        swapped += items[:half].tolist()
        replaced += items[half:wrong].tolist()
    for i in swapped:
        given[i] = (label[i] + rng.integers(1, num)) % num
    if len(replaced) > num_outside:
        raise InputError(
            f'config.data.noise={share} needs {len(replaced)} images of no novel class, but '
            f'{num_outside} are kept for that: raise config.data.outside'
        )
    stranger = np.isin(row, replaced)
    row[stranger] = rng.permutation(num_outside)[: len(replaced)]
    return Noisy(row, given, stranger, (given == label) & ~stranger)


class Planted(NamedTuple):
    """A set made of some classes, with wrong labels made among them."""

    row: Array  # [M] int64 into the items
    label: Array  # [M] int64 0..ways-1, as given
    clean: Array  # [M] bool: the label is right


def plant(rng: np.random.Generator, label: Array, *, ways: int, each: int, share: float) -> Planted:
    """Draws `ways` classes, `each` items of each, and `corrupt`s their labels.

    What is out of vocabulary are items of the classes that weren't drawn; where these have too few
    for the share, it is lowered to what they allow.

    Args:
      label: [N] integers, of more than `ways` classes, of which as many have `each` items.
    """
    names, count = np.unique(label, return_counts=True)
    chosen = rng.permutation(names[count >= each])[:ways]
    row = np.concatenate([rng.permutation(np.flatnonzero(label == c))[:each] for c in chosen])
    outside = np.flatnonzero(~np.isin(label, chosen))
    most = max(0.0, 2 * (len(outside) - ways) / len(row))  # half of the wrong ones are from there
    noisy = corrupt(rng, np.repeat(np.arange(ways), each), min(share, most), len(outside))
    row = np.where(noisy.stranger, outside[np.where(noisy.stranger, noisy.row, 0)], row)
    return Planted(row, noisy.label, noisy.clean)
