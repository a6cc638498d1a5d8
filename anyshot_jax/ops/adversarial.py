"""Losses of a critic and of contrasts between real and synthesised items."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from anyshot_jax.ops.product import product


def gradient_penalty(critic: Callable, x: jax.Array) -> jax.Array:
    """Mean of (|grad critic(x_i)| - 1)^2.

    Args:
      critic: x [N, D] -> [N], each from its own row. x: [N, D], points between real and made.
    Returns:
      [].
    Reference:
      Gulrajani et al., "Improved training of Wasserstein GANs", NeurIPS 2017, eq. 3.
    """
    slope = jax.grad(lambda x: jnp.sum(critic(x)))(x)
    # The norm's derivative at 0 is kept finite.
    norm = jnp.sqrt(jnp.maximum(jnp.sum(slope * slope, -1), 1e-12))
    return jnp.mean((norm - 1) ** 2)


def contrast(
    anchor: jax.Array,
    other: jax.Array,
    y: jax.Array,
    y_other: jax.Array,
    temperature: float,
    *,
    own: jax.Array | None = None,
) -> jax.Array:
    """Each anchor against an item of its class among items of other classes.

    -log exp(s_p) / (exp(s_p) + sum of exp(s_n) over other classes), s = product / temperature, mean
    over all pairs (anchor, item p of its class), every anchor counted alike.

    Args:
      anchor: [N, D], other: [M, D], of length 1. y: [N], y_other: [M] labels.
      own: [N, M] bool, pairs of an item with itself, which don't count.
    Returns:
      []; anchors without such a pair are left out, and 0 if all are.
    Reference:
      Han, Fu, Chen, Yang, "Contrastive embedding for generalized zero-shot learning", CVPR 2021,
      eq. 5.
    """
    sim = product(anchor, other.T) / temperature
    same = y[:, None] == y_other[None, :]
    pair = same if own is None else same & ~own
    apart = jax.nn.logsumexp(jnp.where(same, -1e30, sim), axis=1, keepdims=True)
    value = jnp.where(pair, jnp.logaddexp(sim, apart) - sim, 0)
    number = pair.sum(1)
    mean = value.sum(1) / jnp.maximum(number, 1)
    return jnp.sum(mean) / jnp.maximum(jnp.sum(number > 0), 1)
