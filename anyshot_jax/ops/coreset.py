"""Greedy k-centre coresets: the few vectors that leave no other far from all of them.

Sener and Savarese, "Active learning for convolutional neural networks: a core-set approach", ICLR
2018, algorithm 1, in the approximate form of Roth et al. (PatchCore, CVPR 2022): on a random
projection, and with the mean distance to a few random vectors to start from.

The plain loop reads all vectors once per chosen one and waits for the memory. Here every block of
vectors keeps its scores from when it was last looked at. They only ever fall, so that the block
whose kept score is the largest is the only one that has to be brought up to date: if it stays the
largest, its vector is the next choice. Blocks thus meet many new choices at once, in one matrix
product (lazy evaluation as in Minoux, 1978). What is chosen is what the plain loop chooses.

An accelerator gets the plain loop: its memory is fast, and a loop whose end only the device knows
makes a GPU wait for the host in every round.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from anyshot_jax.target import on_cpu
from anyshot_jax.types import Array

BLOCK, BATCH = 2048, 64  # vectors looked at together, and choices that they meet at once
CHOSEN = -1.0  # score of what is chosen already: below every distance


class _Search(NamedTuple):
    score: jax.Array  # [b, BLOCK] squared distance to the nearest choice met so far
    top: jax.Array  # [b] the largest of each block
    met: jax.Array  # [b] int32: how many choices a block has met
    chosen: jax.Array  # [K] int32
    centre: jax.Array  # [K + BATCH, D] the chosen vectors
    size: jax.Array  # [] int32: how many are chosen


def random_projection(key: jax.Array, dim: int, to: int) -> jax.Array:
    """[dim, to] of a random linear map that keeps distances on average (to is dim at most)."""
    return jax.random.normal(key, (dim, to)) / jnp.sqrt(to)


def greedy_coreset(key: jax.Array, x: Array, num: int, starts: int = 10) -> jax.Array:
    """Rows that are chosen one by one, each the farthest from all before it.

    Args:
      key: draws `starts` different rows. The first choices are by the mean distance to these (they
        are not chosen themselves): a row's score is the smaller of that and its distance to the
        nearest choice. The first row wins a tie, and a row is chosen once.
      x: [N, D] float32, as projected. num: K, 1..N.
    Returns:
      [K] int32 rows in the order of choice. Distances are computed as |a|^2 + |b|^2 - 2 a.b around
      the mean of x: rows whose scores differ by less than about 1e-6 of |a|^2 may swap.
    """
    n = len(x)
    if not 0 < num <= n:
        raise ValueError(f'greedy_coreset: num={num} must be 1..{n}')
    row = jax.random.choice(key, n, (min(starts, n),), replace=False)
    if not on_cpu():
        return _plain(x, row, num=num)
    block = min(BLOCK, n)
    return _greedy(x, row, num=num, block=block)


@jax.jit(static_argnames=('num',))
def _plain(x: jax.Array, row: jax.Array, *, num: int) -> jax.Array:
    x = x - x.mean(0, keepdims=True)
    score = jnp.square(jnp.sqrt(_squared(x, x[row])).mean(1))

    def choose(i, state):
        score, chosen = state
        top = score.argmax().astype(jnp.int32)
        score = jnp.minimum(score, _squared(x, x[top][None])[:, 0])
        return score.at[top].set(CHOSEN), chosen.at[i].set(top)

    return lax.fori_loop(0, num, choose, (score, jnp.zeros(num, jnp.int32)))[1]


@jax.jit(static_argnames=('num', 'block'))
def _greedy(x: jax.Array, row: jax.Array, *, num: int, block: int) -> jax.Array:
    n, d = x.shape
    blocks = -(-n // block)
    mean = x.mean(0, keepdims=True)
    starts = x[row] - mean
    # A block from the end that overlaps the one before it stands for the last, incomplete one.
    begin = jnp.minimum(jnp.arange(blocks) * block, n - block)
    of = lambda b: lax.dynamic_slice(x, (begin[b], 0), (block, d)) - mean
    twice = lambda b: begin[b] + jnp.arange(block) < b * block

    def first(b):
        score = jnp.square(jnp.sqrt(_squared(of(b), starts)).mean(1))
        return jnp.where(twice(b), CHOSEN, score)

    score = lax.map(first, jnp.arange(blocks))
    search = _Search(
        score=score,
        top=score.max(1),
        met=jnp.zeros(blocks, jnp.int32),
        chosen=jnp.zeros(num, jnp.int32),
        centre=jnp.zeros((num + BATCH, d), x.dtype),
        size=jnp.zeros((), jnp.int32),
    )

    def step(s: _Search) -> _Search:
        b = jnp.argmax(s.top).astype(jnp.int32)
        row = lax.dynamic_index_in_dim(s.score, b, keepdims=False)

        def meet(row):
            centre = lax.dynamic_slice(s.centre, (s.met[b], 0), (BATCH, d))
            dist = _squared(of(b), centre)
            new = s.met[b] + jnp.arange(BATCH)[None] < s.size
            return jnp.minimum(row, jnp.where(new, dist, jnp.inf).min(1))

        row = lax.cond(s.met[b] < s.size, meet, lambda row: row, row)
        met = jnp.minimum(s.met[b] + BATCH, s.size)
        i = row.argmax().astype(jnp.int32)
        top = s.top.at[b].set(row[i])
        # The largest of all, and up to date: the choice.
        take = (jnp.argmax(top) == b) & (met == s.size)
        row = row.at[i].set(jnp.where(take, CHOSEN, row[i]))
        vector = lax.dynamic_slice(x, (begin[b] + i, 0), (1, d)) - mean
        # Not taken, both are written to a place that the next choice overwrites.
        return _Search(
            score=s.score.at[b].set(row),
            top=top.at[b].set(row.max()),
            met=s.met.at[b].set(met),
            chosen=s.chosen.at[s.size].set(begin[b].astype(jnp.int32) + i),
            centre=lax.dynamic_update_slice(s.centre, vector, (s.size, 0)),
            size=s.size + take,
        )

    return lax.while_loop(lambda s: s.size < num, step, search).chosen


def _squared(a: jax.Array, b: jax.Array) -> jax.Array:
    dot = jnp.matmul(a, b.T, precision=lax.Precision.HIGHEST)
    return jnp.maximum((a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * dot, 0)
