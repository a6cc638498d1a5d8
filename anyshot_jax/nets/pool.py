"""Max-pooling whose derivatives are elementwise (XLA's select-and-scatter is slow on a CPU)."""

import jax
import jax.numpy as jnp
from jax import Array


@jax.custom_jvp
def max_pool(x: Array) -> Array:
    """2x2 max-pooling with stride 2, VALID: an odd last row or column is dropped (7 -> 3).

    The gradient goes to the first entry (in row order) that equals the maximum, all of it, so it
    is a subgradient also at ties. Any order of derivative, forward or reverse: the choice of the
    maximum is taken as locally constant.

    Args:
      x: [..., H, W, C], H and W at least 2.
    Returns:
      [..., H // 2, W // 2, C].
    Raises:
      ValueError: H or W below 2.
    """
    if x.ndim < 3 or min(x.shape[-3:-1]) < 2:
        raise ValueError(f'max_pool needs [..., H, W, C] with H, W >= 2, got {x.shape}')
    a, b, c, d = _corners(x)
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


@max_pool.defjvp
def _max_pool_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = max_pool(primals[0])
    a, b, c, _ = _corners(primals[0])
    da, db, dc, dd = _corners(tangents[0])
    return y, jnp.where(a == y, da, jnp.where(b == y, db, jnp.where(c == y, dc, dd)))


def _corners(x: Array) -> list[Array]:
    """The four entries of each window, each [..., H // 2, W // 2, C]."""
    h, w = x.shape[-3] // 2 * 2, x.shape[-2] // 2 * 2
    return [x[..., i:h:2, j:w:2, :] for i in range(2) for j in range(2)]
