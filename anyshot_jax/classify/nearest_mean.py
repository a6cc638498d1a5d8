"""The nearest class mean, in a space that the support itself shapes: what a classifier knows.

Features are raised to a power (0.5 evens out what ReLU leaves), centred on the support, whitened by
how its items scatter within their classes (Ledoit and Wolf's shrinkage towards the identity, so
that one example a class leaves the space as it is), and brought to length 1. A class without
examples has a mean that was made from words (`word_means.py`).

Functions on plain arrays: those with `xp` run on NumPy (a call is over in microseconds and compiles
nothing) and on jax.numpy (`export.py`).
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.linalg import eigh

from anyshot_jax.ops import open_set
from anyshot_jax.types import Array

# Of the covariance within classes; on Emoji's validation classes (2 and 5 shots, 5 to 100 ways) 0.1
# to 0.5 are alike, 1 loses 6 to 17 points.
SHRINK = 0.2


class Space(NamedTuple):
    """Projection of features [N, D] on R axes."""

    power: Array  # [] of every feature, its sign kept
    normalise: Array  # [] 1: vectors of length 1 | 0: as long as they are
    shift: Array  # [D] the support's mean
    axes: Array  # [D, R] along which classes scatter,
    gain: Array  # [R] by what they are stretched
    rest: Array  # [] and all other directions


class Head(NamedTuple):
    """A fitted classifier of features."""

    space: Space
    means: Array  # [C, D] of the classes, in that space
    bias: Array  # [C] added to the scores: classes of words only are less like their items
    temperature: Array  # [] of the scores
    threshold: Array  # [] of `familiarity`; below it is an unknown class; -inf: none
    level: Array = np.float32(0)  # [C] and
    crowd: Array = np.float32(0)  # [] of `open_set.familiarity`; 0: the best score itself


def plain_head(space: Space, means: Array) -> Head:
    """Means [C, D] in a space, without any calibration."""
    zeros, one = np.zeros(len(means), np.float32), np.float32(1)
    return Head(space, means.astype(np.float32), zeros, one, np.float32(-np.inf), zeros)


def unit(x: Array, xp: Any = np) -> Array:
    """Vectors of length 1; zeros stay zeros."""
    return x / xp.sqrt(xp.maximum((x * x).sum(-1, keepdims=True), 1e-12))


def fit_space(
    x: Array, label: Array, num_classes: int, *, power: float, normalise: bool, shrink: float
) -> Space:
    """The space of a support set.

    Args:
      x: [N, D], N >= 1. label: [N] in 0..num_classes-1. shrink: s in 0 < s <= 1:
        (1 - s) C + s trace(C) / D I is brought to I, up to a factor, where C is the covariance
        within classes; without any class of two items nothing is stretched.
    """
    z = _powered(np.asarray(x, np.float64), power, np)
    shift = z.mean(0)
    z = z - shift
    if normalise:
        z = unit(z)
    around = z - class_means(z, label, num_classes)[label]
    num, dim = z.shape
    trace = float((around * around).sum()) / num / dim
    if trace < 1e-12:
        return no_support(dim, power, normalise)._replace(shift=shift.astype(np.float32))
    # The smaller of the two matrices with the same eigenvalues.
    if num < dim:
        value, vector = eigh(around @ around.T / num)
        kept = value > 1e-9 * value[-1]
        value, axes = value[kept], around.T @ (vector[:, kept] / np.sqrt(value[kept] * num))
    else:
        value, axes = eigh(around.T @ around / num)
    floor = shrink * trace
    gain = np.sqrt(floor / ((1 - shrink) * np.maximum(value, 0) + floor))
    plain = no_support(dim, power, normalise)  # other directions stay as they are
    as_floats = {'shift': shift, 'axes': axes, 'gain': gain}
    return plain._replace(**{k: v.astype(np.float32) for k, v in as_floats.items()})


def no_support(dim: int, power: float, normalise: bool) -> Space:
    """The space where there is no example: as features come."""
    arrays = [power, normalise, np.zeros(dim), np.zeros((dim, 0)), np.zeros(0), 1]
    return Space(*(np.asarray(a, np.float32) for a in arrays))


def _powered(x: Any, power: Any, xp: Any) -> Any:
    return xp.sign(x) * xp.abs(x) ** power


def place(space: Space, x: Array, xp: Any = np) -> Array:
    """[N, D] features as the space has them; of more features than it has, the leading ones."""
    x = x[:, : space.shift.shape[-1]]
    z = _powered(x, space.power, xp) - space.shift[None]
    z = xp.where(space.normalise > 0, unit(z, xp), z)
    z = turn(space, z)
    return xp.where(space.normalise > 0, unit(z, xp), z)


def turn(space: Space, z: Array) -> Array:
    """Directions [N, D] stretched as the space stretches them."""
    return space.rest * z + ((z @ space.axes) * (space.gain - space.rest)[None]) @ space.axes.T


def class_means(z: Array, label: Array, num_classes: int) -> Array:
    """[C, D]; zeros for a class without items."""
    total = np.zeros((num_classes, z.shape[1]), z.dtype)
    np.add.at(total, label, z)
    return total / np.maximum(np.bincount(label, minlength=num_classes), 1)[:, None]


def scores(head: Head, z: Array, xp: Any = np) -> Array:
    """[N, C] of items z [N, D] in the space: cosines, or less the squared distances, and bias."""
    dot = z @ head.means.T
    square = (head.means * head.means).sum(-1)
    dist = (z * z).sum(-1)[:, None] - 2 * dot + square[None]
    normalised = head.space.normalise > 0
    like = dot / xp.sqrt(xp.maximum(square, 1e-12))[None]
    return xp.where(normalised, like, -xp.maximum(dist, 0)) + head.bias[None]


def familiarity(head: Head, score: Array, xp: Any = np) -> Array:
    """[N] how much items of scores [N, C] are like a known class."""
    return open_set.familiarity(score, head.level, head.crowd, xp)


def probabilities(score: Array, temperature: Array, xp: Any = np) -> Array:
    """softmax(score / temperature) along the classes."""
    logits = score / temperature
    p = xp.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)
