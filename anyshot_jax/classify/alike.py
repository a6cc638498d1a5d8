"""Classes and images that are nearly the same where they should differ, counted in `Notes`."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from anyshot_jax.data.readers import copies
from anyshot_jax.data.readers.notes import Notes
from anyshot_jax.data.splits import plain
from anyshot_jax.types import Array

NAMES = 'pairs of class names that differ by case, blanks or Unicode form only'
EXAMPLES = 'examples nearly the same as one of another class'
QUERIES = 'queries nearly the same as an example'


def smalls(thumbnails: Iterable[Array]) -> Array:
    """[N, 8, 9] uint8, by which images are compared, of their thumbnails."""
    found = [copies.small(x) for x in thumbnails]
    return np.stack(found) if found else np.zeros((0, 8, 9), np.uint8)


def note_names(classes: Iterable[Any], notes: Notes) -> None:
    """Classes that eyes can't tell apart."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        if isinstance(name, str):
            alike[plain(name)].append(ascii(name) if not name.isascii() else repr(name))
    for first, *others in alike.values():
        for other in others:
            notes.add(NAMES, f'{first} and {other}')


def note_examples(
    small: Array, label: Array, names: Sequence[str], notes: Notes, keys: Sequence[bytes] = ()
) -> None:
    """Examples that look like one of another class, each once.

    Args:
      small: [N, 8, 9]. label: [N] integers. keys: digests of their bytes; of equal ones nothing is
        said here.
    """
    told = set()
    for i, j in copies.nearly_alike(small, label):
        if j not in told and not (keys and keys[i] == keys[j]):
            told.add(j)
            notes.add(EXAMPLES, f'{names[i]} and {names[j]}')


def note_queries(small: Array, names: Sequence[str], examples: Array, notes: Notes) -> None:
    """Queries that look like an example, each once.

    Args:
      small: [Q, 8, 9] of queries. names: theirs. examples: [N, 8, 9].
    """
    part = np.arange(len(examples) + len(small)) >= len(examples)
    pairs = copies.nearly_alike(np.concatenate([examples, small]), part)
    for j in sorted({j for _, j in pairs}):
        notes.add(QUERIES, names[j - len(examples)])
