"""Optimal transport between two sets of weights."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
from jax.nn import logsumexp

from anyshot_jax.target import platform

FAR = 1e10  # no scaling goes beyond this at once
PLAIN = 50  # rounds between two in logarithms


def sinkhorn(
    cost: jax.Array,
    rows: jax.Array,
    columns: jax.Array,
    *,
    sharpness: float = 10.0,
    tolerance: float = 1e-5,
    max_rounds: int = 1000,
) -> tuple[jax.Array, jax.Array]:
    """The plan exp(-sharpness * cost), rows and columns scaled in turn until their sums are right.

    Adding a number to a row or column of `cost` changes nothing but the rounds it takes. Costs may
    lie far apart: what underflows comes back by a round in logarithms.

    Args:
      cost: [Q, W]. rows: [Q] >= 0. columns: [W] >= 0, scaled here to the total of `rows`.
      tolerance: stops when no row's sum is off by more than this part of it. The columns are right
        up to rounding.
    Returns:
      The plan [Q, W], zeros in rows and columns whose sum is 0, and the logarithms [W] that the
      columns were scaled by: with `cost` less those / sharpness it is there at once.
    Reference:
      Cuturi, "Sinkhorn distances: lightspeed computation of optimal transport", NeurIPS 2013,
      algorithm 1; Schmitzer, "Stabilized sparse scaling algorithms for entropy regularized
      transport problems", SIAM Journal on Scientific Computing, 2019.
    """
    # Others would be broadcast, to another plan.
    chex.assert_shape([rows, columns], [cost.shape[:1], cost.shape[1:]])
    # [W, Q] inside: few long rows are what a processor multiplies fastest.
    rows, columns = rows[None, :], columns[:, None]
    columns = columns * (rows.sum() / jnp.maximum(columns.sum(), 1e-30))
    logits = -sharpness * (cost - jnp.min(cost, 1, keepdims=True)).T
    dot = partial(jnp.matmul, precision='highest')  # less would never come to rest
    far_off = lambda error, count: (error > tolerance) & (count < max_rounds)

    def scaled(kernel, potential, count):
        def row_scales(v):
            u = rows / jnp.maximum(dot(v.T, kernel), 1 / FAR)
            return u, dot(kernel, u.T)

        def scale(state):
            v, _, count = state
            _, total = row_scales(v)
            # The rows are right now, and the columns will change by so much.
            error = jnp.max(jnp.abs(v * total - columns) / jnp.maximum(columns, 1e-30))
            return columns / jnp.maximum(total, 1 / FAR), error, count + 1

        more = lambda state: far_off(*state[1:]) & (state[2] < count + PLAIN)
        start = jnp.ones_like(columns), jnp.full_like(kernel, jnp.inf, shape=()), count + 1
        if platform() == 'gpu':  # which would wait for the host to be told to go on, every round
            v, error, count = jax.lax.fori_loop(0, PLAIN, lambda _, s: scale(s), start)
        else:
            v, error, count = jax.lax.while_loop(more, scale, start)
        u, total = row_scales(v)
        v = columns / jnp.maximum(total, 1 / FAR)
        return kernel * u * v, potential + jnp.log(v), error, count

    def restart(state):
        _, potential, _, count = state
        u = jnp.log(rows) - logsumexp(logits + potential, axis=0, keepdims=True)
        v = jnp.log(columns) - logsumexp(logits + u, axis=1, keepdims=True)
        return scaled(jnp.exp(logits + u + v), v, count + 1)

    state = scaled(jnp.exp(logits), jnp.zeros_like(columns), 0)
    plan, potential, *_ = jax.lax.while_loop(lambda s: far_off(*s[2:]), restart, state)
    return plan.T, potential[:, 0]
