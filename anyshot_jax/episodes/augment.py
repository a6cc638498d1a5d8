"""Transforms of images on the device."""

import jax
import jax.numpy as jnp

from anyshot_jax.types import Array


def turn(x: Array, k: Array) -> Array:
    """Turns images anticlockwise by k * 90 degrees.

    Args:
      x: [N, H, H, C]. k: [] integer 0..3, may be traced.
    Returns:
      [N, H, H, C].
    """
    turned = [jnp.rot90(x, i, axes=(1, 2)) for i in range(4)]
    return jax.lax.select_n(jnp.asarray(k, jnp.int32), *turned)


def affine(
    key: Array,
    x: Array,
    *,
    degrees: float = 0.0,
    shear: float = 0.0,
    scale: float = 0.0,
    shift: float = 0.0,
) -> Array:
    """Moves each image by a random affine map of its own; bilinear, zeros come in from outside.

    Args:
      key: JAX key. x: [N, H, W, C], uint8 or float.
      degrees: rotation, uniform in +-degrees. shear: in +-shear. scale: both axes, in 1 +- scale.
      shift: in +-shift pixels.
    Returns:
      [N, H, W, C] of x's type.
    Reference:
      Koch, Zemel, Salakhutdinov, "Siamese neural networks for one-shot image recognition", 2015,
      section 3.3.
    """
    n, h, w, c = x.shape
    u = jax.random.uniform(key, (7, n), minval=-1, maxval=1)
    angle = u[0] * degrees * jnp.pi / 180
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    sx, sy = 1 + u[1] * scale, 1 + u[2] * scale
    kx, ky = u[3] * shear, u[4] * shear
    # The matrix maps a target pixel, seen from the centre, to its source.
    a, b = cos * sx - sin * ky, cos * kx - sin * sy
    d, e = sin * sx + cos * ky, sin * kx + cos * sy
    col, row = jnp.meshgrid(jnp.arange(w) - (w - 1) / 2, jnp.arange(h) - (h - 1) / 2)
    at = lambda p, q, s, mid: (
        p[:, None, None] * col[None]
        + q[:, None, None] * row[None]
        + (s * shift)[:, None, None]
        + mid
    )
    src_col, src_row = at(a, b, u[5], (w - 1) / 2), at(d, e, u[6], (h - 1) / 2)
    low_col, low_row = jnp.floor(src_col), jnp.floor(src_row)
    part_col, part_row = (src_col - low_col)[..., None], (src_row - low_row)[..., None]
    flat = x.reshape(n, h * w, c).astype(jnp.float32)

    def corner(row, col):
        inside = (row >= 0) & (row < h) & (col >= 0) & (col < w)
        index = jnp.clip(row, 0, h - 1) * w + jnp.clip(col, 0, w - 1)
        index = index.astype(jnp.int32).reshape(n, h * w, 1)
        value = jnp.take_along_axis(flat, index, axis=1).reshape(n, h, w, c)
        return value * inside[..., None]

    top = corner(low_row, low_col) * (1 - part_col) + corner(low_row, low_col + 1) * part_col
    low_row += 1
    bottom = corner(low_row, low_col) * (1 - part_col) + corner(low_row, low_col + 1) * part_col
    moved = top * (1 - part_row) + bottom * part_row
    return jnp.round(moved).astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.integer) else moved
