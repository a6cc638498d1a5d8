"""A bounded memory of normal patches that images stream into, whatever their number.

Images are shared out among up to FOLDS folds, near copies to one. Each fold thins its own patches
out and nothing of the others', so that all of the memory but a fold is a memory that has never seen
the images of that fold: they are held out without anything being fitted again (`threshold.py`).

A fold takes a new patch that is farther than `radius` from all it has. When it holds twice what it
may, a greedy k-centre coreset of half of them stays and the radius grows to the distance at which
its last patch was chosen (the doubling algorithm of Charikar, Chekuri, Feder, Motwani,
"Incremental clustering and dynamic information retrieval", 1997, with a greedy choice in place of
its merging). Distances are those of a random projection, as in Roth et al. (PatchCore, CVPR 2022).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from anyshot_jax.ops.coreset import greedy_coreset, random_projection
from anyshot_jax.types import Array

FOLDS = 10
PROJECTION = 128  # numbers of the projection that patches are chosen on
DENSE = 4096  # patches up to which all their distances are there at once


class Fold(NamedTuple):
    """The M patches that one fold remembers."""

    rows: Array  # [M, D] float32
    small: Array  # [M, d] float32, projected
    image: Array  # [M] int32, the number of the image that a patch is of
    cell: Array  # [M, 2] int32, row and column of its cell there
    radius: float  # a patch that is nearer to one of these was not taken


OF_PATCHES = Fold._fields[:4]


def empty(dim: int) -> Fold:
    small = min(PROJECTION, dim)
    return Fold(
        np.zeros((0, dim), np.float32),
        np.zeros((0, small), np.float32),
        np.zeros(0, np.int32),
        np.zeros((0, 2), np.int32),
        0.0,
    )


def projection(dim: int, seed: int) -> np.ndarray:
    """[D, d]; the identity of patches that are short already."""
    if dim <= PROJECTION:
        return np.eye(dim, dtype=np.float32)
    return np.asarray(random_projection(jax.random.key(seed), dim, PROJECTION))


def remember(
    fold: Fold, patches: Array, image: int, cell: Array, matrix: Array, most: int, seed: int
) -> Fold:
    """The fold after it has seen patches of an image; it holds 2 * most at most.

    Args:
      patches: [P, D]. image: its number. cell: [P, 2]. matrix: of `projection`.
      most: what it may keep, see `thin`.
    """
    new = Fold(
        np.asarray(patches, np.float32),
        np.asarray(patches @ matrix, np.float32),
        np.full(len(patches), image, np.int32),
        np.asarray(cell, np.int32),
        fold.radius,
    )
    for start in range(0, len(patches), most):  # so that a large image doesn't overflow twice
        part = rows_of(new, slice(start, start + most))
        if fold.radius and len(fold.small):
            part = rows_of(part, squared(part.small, fold.small).min(1) > fold.radius**2)
        both: dict[str, Any] = {
            k: np.concatenate([getattr(f, k) for f in (fold, part)]) for k in OF_PATCHES
        }
        fold = fold._replace(**both)
        if len(fold.rows) > 2 * most:
            fold = thin(fold, most, seed)
    return fold


def thin(fold: Fold, most: int, seed: int) -> Fold:
    """The fold thinned out to `most` patches, if it has more."""
    if len(fold.rows) <= most:
        return fold
    chosen = farthest(fold.small, most, seed)
    last = 0.0
    if most > 1:
        last = float(squared(fold.small[chosen[-1:]], fold.small[chosen[:-1]]).min()) ** 0.5
    kept = rows_of(fold, np.sort(chosen))
    return kept._replace(radius=max(fold.radius, last))


def farthest(x: Array, num: int, seed: int) -> np.ndarray:
    """[num] rows of x [N, D], each the farthest from all before it (`ops/coreset.py`)."""
    if len(x) > DENSE:
        return np.asarray(greedy_coreset(jax.random.key(seed), x, num))
    dist = squared(x, x)
    score = squared(x, x.mean(0, keepdims=True))[:, 0]
    chosen = np.empty(num, int)
    for i in range(num):
        chosen[i] = at = int(score.argmax())
        score = dist[at].copy() if i == 0 else np.minimum(score, dist[at])
        score[at] = -1  # for good: a row is chosen once, also among equal ones
    return chosen


def rows_of(fold: Fold, rows: Array | slice) -> Fold:
    """The fold with some of its patches: numbers, a slice or [M] bool."""
    return fold._replace(**{k: getattr(fold, k)[rows] for k in OF_PATCHES})


def squared(a: Array, b: Array) -> np.ndarray:
    """Squared distances [N, M] of [N, D] and [M, D]."""
    square = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * (a @ b.T)
    return np.maximum(square, 0)


def assign_folds(groups: Array, folds: Sequence[int]) -> np.ndarray:
    """The fold [N] of each new image, all of a group to one.

    Neighbours in the order of the images go to one fold where they can: frames that were taken one
    after the other are alike, and are then held out together.

    Args:
      groups: [N] equal for near copies. folds: how many images each fold has so far; fewer than
        FOLDS of them may be there yet.
    """
    names, first, which = np.unique(groups, return_index=True, return_inverse=True)
    order = np.argsort(first)  # of the groups, as they come
    place = np.empty(len(names), int)
    place[order] = np.arange(len(names))
    num = min(FOLDS, len(folds) + len(names))
    missing = num - len(folds)
    if missing:  # new folds first, then the smaller ones
        targets = list(range(len(folds), num)) + list(np.argsort(folds, kind='stable'))
    else:
        targets = list(np.argsort(folds, kind='stable'))
    used = min(len(targets), len(names))
    return np.array(targets)[place[which] * used // len(names)]
