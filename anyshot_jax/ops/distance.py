"""Distances (small = near) and similarities (large = near) between two sets of vectors."""

import jax
import jax.numpy as jnp

from anyshot_jax.ops.product import product


def squared_euclidean(a: jax.Array, b: jax.Array) -> jax.Array:
    """Squared Euclidean distances |a_i - b_j|^2, by |a|^2 + |b|^2 - 2 a.b.

    Args:
      a: [N, D]. b: [M, D].
    Returns:
      dist [N, M], >= 0 (rounding below 0 is cut off; near-equal vectors lose digits to
      cancellation: the absolute error is about 1e-6 of |a|^2 in float32).
    """
    dot = product(a, b.T)
    dist = jnp.sum(a * a, -1)[:, None] + jnp.sum(b * b, -1)[None, :] - 2 * dot
    return jnp.maximum(dist, 0)


def cosine(a: jax.Array, b: jax.Array, eps: float = 1e-8) -> jax.Array:
    """Cosine similarities a_i.b_j / (|a_i| |b_j|).

    Args:
      a: [N, D]. b: [M, D]. eps: lower bound of a squared length; a zero vector has similarity 0.
    Returns:
      sim [N, M] in [-1, 1].
    """
    return product(unit(a, eps), unit(b, eps).T)


def unit(x: jax.Array, eps: float = 1e-8) -> jax.Array:
    """Vectors of length 1 along the last axis; zeros stay zeros. eps: as for `cosine`."""
    # rsqrt of a clamped square has a finite gradient at 0, which a division by the norm has not.
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), eps))
