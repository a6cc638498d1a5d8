"""Max-pooling whose derivatives are elementwise (XLA's select-and-scatter is slow on a CPU)."""

import jax
import jax.numpy as jnp
from jax import Array


def max_pool(x: Array) -> Array:
    """2x2 max-pooling with stride 2, VALID: an odd last row or column is dropped (7 -> 3).

    The gradient goes to the entries equal to the maximum, in equal parts that sum to 1, so it is
    a subgradient also at ties. Any order of derivative, forward or reverse: the choice of the
    maximum is taken as locally constant.

    Args:
      x: [..., H, W, C], H and W at least 2.
    Returns:
      [..., H // 2, W // 2, C].
    """
    *lead, h, w, c = x.shape
    if h < 2 or w < 2:
        raise ValueError(f'max_pool needs H, W >= 2, got {x.shape}')
    x = x[..., : h // 2 * 2, : w // 2 * 2, :]
    return _window_max(x.reshape(*lead, h // 2, 2, w // 2, 2, c))


@jax.custom_jvp
def _window_max(x: Array) -> Array:
    """[..., h, 2, w, 2, C] -> [..., h, w, C]."""
    return x.max((-4, -2))


@_window_max.defjvp
def _window_max_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (x,), (dx,) = primals, tangents
    y = _window_max(x)
    hit = (x == jnp.expand_dims(y, (-4, -2))).astype(x.dtype)
    share = hit / jnp.sum(hit, (-4, -2), keepdims=True)
    return y, jnp.sum(share * dx, (-4, -2))
