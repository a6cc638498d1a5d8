"""3x3 convolution with 2.25 times fewer multiplications, for large maps on a CPU.

Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016, F(2x2, 3x3): tiles
of 4x4 inputs and 2x2 outputs, transformed by sums and differences, multiplied in 16 matrices.
"""

import jax.numpy as jnp
from jax import Array, lax

from anyshot_jax.target import on_cpu

SMALLEST = 28  # height and width from which the transforms cost less than they save


def pays(x: Array, w: Array, stride: int) -> bool:
    """True where `winograd` is faster than XLA's convolution (measured: experiments/README.md)."""
    large = min(x.shape[1:3]) >= SMALLEST and min(w.shape[2:]) >= 64
    plain = w.shape[:2] == (3, 3) and stride == 1 and x.dtype == jnp.float32
    return plain and large and on_cpu() and isinstance(x.shape[0], int)  # not of any number


def winograd(x: Array, w: Array) -> Array:
    """Convolution with zero padding 1 and stride 1, image by image, so that it stays in cache.

    Args:
      x: [N, H, W, C] float32. w: [3, 3, C, O].
    Returns:
      [N, H, W, O]; float32 rounding is about that of the plain sum.
    """
    c, o = w.shape[2:]
    u = jnp.stack([t for row in _kernel(w) for t in _kernel(row)])  # [16, C, O]

    def image(x: Array) -> Array:
        h, width = x.shape[:2]
        rows, columns = -(-h // 2), -(-width // 2)
        x = jnp.pad(x, ((1, 2 * rows - h + 1), (1, 2 * columns - width + 1), (0, 0)))
        bands = _input([x[i : i + 2 * rows - 1 : 2] for i in range(4)])
        tiles = [_input([b[:, j : j + 2 * columns - 1 : 2] for j in range(4)]) for b in bands]
        v = jnp.stack([t for band in tiles for t in band]).reshape(16, rows * columns, c)
        m = lax.dot_general(v, u, (((2,), (1,)), ((0,), (0,)))).reshape(4, 4, rows, columns, o)
        y = [_output(row) for row in _output(m)]  # of both rows both columns: [rows, columns, O]
        whole = jnp.stack([jnp.stack(row, 2) for row in y], 1)  # [rows, 2, columns, 2, O]
        return whole.reshape(2 * rows, 2 * columns, o)[:h, :width]

    return lax.map(image, x)


def _kernel(g) -> list[Array]:
    """G g of three taps."""
    return [g[0], (g[0] + g[1] + g[2]) / 2, (g[0] - g[1] + g[2]) / 2, g[2]]


def _input(d: list[Array]) -> list[Array]:
    """B' d of four neighbours."""
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _output(m: Array) -> list[Array]:
    """A' m: two outputs of four products, which stand along the leading axis."""
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]
