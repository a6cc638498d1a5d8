"""Exact nearest neighbours by blocks: the whole matrix of distances is never there."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from anyshot_jax.target import on_cpu
from anyshot_jax.types import Array

# Rows of either side whose distances are there at once: what a CPU's cache holds, and, where there
# is none to care for, what few large products are made of.
QUERIES, BANK = 512, 2048
QUERIES_ACCELERATOR, BANK_ACCELERATOR = 4096, 16384


def nearest(
    x: Array, bank: Array, k: int = 1, allowed: Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """The k nearest rows of `bank` to every row of x, nearest first.

    Args:
      x: [M, D] float32. bank: [K, D]. k: 1..K.
      allowed: [K] bool, the rows that may be found, k of them or more; none: all.
    Returns:
      squared Euclidean distances [M, k], exactly 0 for a row that is in the bank, and the bank's
      rows [M, k] int32. The search goes by |a|^2 + |b|^2 - 2 a.b around the bank's mean, so that of
      rows whose squared distances differ by less than about 1e-6 of |a|^2 either may be found; the
      distances returned are computed from the differences.
    """
    if not 0 < k <= len(bank):
        raise ValueError(f'nearest: k={k} must be 1..{len(bank)}')
    return nearest_of(x, prepared(bank, allowed), k)


class Prepared(NamedTuple):
    """A bank to search again and again."""

    bank: jax.Array  # [K, D]
    mean: jax.Array  # [1, D]
    parts: jax.Array  # [b, S, D] in blocks, around the mean
    length: jax.Array  # [b, S] squared; infinite: never found


def prepared(bank: Array, allowed: Array | None = None) -> Prepared:
    """A bank [K, D], of which the rows `allowed` [K] bool may be found; none: all."""
    bank = jnp.asarray(bank)
    mean = jnp.mean(bank, 0, keepdims=True)
    return Prepared(bank, mean, *_parts(bank - mean, allowed))


def nearest_of(x: Array, of: Prepared, k: int = 1) -> tuple[jax.Array, jax.Array]:
    """`nearest` in a bank that is prepared."""
    x = jnp.asarray(x)
    size = min(QUERIES if on_cpu() else QUERIES_ACCELERATOR, len(x))
    blocks = -(-len(x) // size)
    padded = jnp.pad(x, ((0, blocks * size - len(x)), (0, 0))).reshape(blocks, size, -1)

    def block(x):
        index = _search(x - of.mean, of.parts, of.length, k)
        dist = jnp.square(x[:, None] - of.bank[index]).sum(-1)
        if k == 1:
            return dist, index
        order = jnp.argsort(dist, axis=1)
        return tuple(jnp.take_along_axis(a, order, 1) for a in (dist, index))

    dist, index = lax.map(block, padded)
    return dist.reshape(-1, k)[: len(x)], index.reshape(-1, k)[: len(x)]


def _parts(bank: jax.Array, allowed: Array | None) -> tuple[jax.Array, jax.Array]:
    """Blocks of the bank [b, S, D] and their squared lengths [b, S]; infinite: never found."""
    k, d = bank.shape
    size = min(BANK if on_cpu() else BANK_ACCELERATOR, k)
    blocks = -(-k // size)
    length = (bank * bank).sum(1)
    if allowed is not None:
        length = jnp.where(allowed, length, jnp.inf)
    length = jnp.pad(length, (0, blocks * size - k), constant_values=jnp.inf)
    bank = jnp.pad(bank, ((0, blocks * size - k), (0, 0)))
    return bank.reshape(blocks, size, d), length.reshape(blocks, size)


def _search(x: jax.Array, parts: jax.Array, length: jax.Array, k: int) -> jax.Array:
    """Rows [M, k] int32 of the nearest, among blocks of the bank one after the other."""
    # |x|^2 is the same for all of the bank and is left out.
    best_so_far = jnp.full((len(x), k), jnp.inf), jnp.zeros((len(x), k), jnp.int32)

    def step(best_so_far, part):
        start, bank, length = part
        score = length[None] - 2 * jnp.matmul(x, bank.T, precision=lax.Precision.HIGHEST)
        best, index = _smallest(score, min(k, score.shape[1]))
        best = jnp.concatenate([best_so_far[0], best], 1)
        index = jnp.concatenate([best_so_far[1], start + index], 1)
        best, order = _smallest(best, k)
        return (best, jnp.take_along_axis(index, order, 1)), None

    start = jnp.arange(len(parts), dtype=jnp.int32) * parts.shape[1]
    return lax.scan(step, best_so_far, (start, parts, length))[0][1]


def _smallest(score: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The k smallest of each row [M, n] and their columns, the first column first in a tie."""
    if k == 1:
        index = score.argmin(1, keepdims=True).astype(jnp.int32)
        return jnp.take_along_axis(score, index, 1), index
    best, index = lax.top_k(-score, k)
    return -best, index
