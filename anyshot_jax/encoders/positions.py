"""Positions of patches in an image: learned grids brought to another size, and rotary angles."""

import numpy as np

from anyshot_jax.types import Array


def resize_grid(grid: Array, side: int, *, antialias: bool) -> Array:
    """[s, s, D] -> [side, side, D] float32, bicubic as PyTorch's `interpolate` (align_corners off).

    Args:
      antialias: Keys' cubic of a = -0.5 widened when shrinking, as Pillow; else a = -0.75 whatever
        the scale, entries beyond the border being those at it.
    """
    s = grid.shape[0]
    if s == side:
        return np.asarray(grid, np.float32)
    weight = (_widened if antialias else _plain)(s, side)
    z = np.einsum('ai,bj,ijd->abd', weight, weight, np.asarray(grid, np.float64), optimize=True)
    return z.astype(np.float32)


def _cubic(x: Array, a: float) -> Array:
    """Keys, "Cubic convolution interpolation for digital image processing", 1981."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _plain(s: int, side: int) -> Array:
    """[side, s] weights; entries beyond the border count for the one at it."""
    at = (np.arange(side) + 0.5) * (s / side) - 0.5
    weight = np.zeros((side, s))
    for offset in range(-1, 3):
        place = np.floor(at).astype(int) + offset
        np.add.at(weight, (np.arange(side), place.clip(0, s - 1)), _cubic(at - place, -0.75))
    return weight


def _widened(s: int, side: int) -> Array:
    """[side, s] weights; what lies beyond the border is left out and the rest made to sum to 1."""
    scale = s / side
    width = max(scale, 1.0)
    centre = (np.arange(side) + 0.5)[:, None] * scale
    weight = _cubic((np.arange(s)[None] + 0.5 - centre) / width, -0.5)
    return weight / weight.sum(1, keepdims=True)


def rotary_angles(height: int, width: int, head_dim: int, base: float = 100.0) -> Array:
    """[height * width, head_dim / 2] float32: 2 pi c base^(-4 k / head_dim), k below head_dim / 4.

    c is the row of a patch's centre in -1..1 and then, for the second half, its column.
    Siméoni et al., "DINOv3", 2025, section 3.2.
    """
    frequency = base ** -(np.arange(head_dim // 4) * 4 / head_dim)
    row, column = ((np.arange(n) + 0.5) / n * 2 - 1 for n in (height, width))
    place = np.stack(np.meshgrid(row, column, indexing='ij'), -1).reshape(-1, 2, 1)
    return (2 * np.pi * place * frequency).reshape(height * width, -1).astype(np.float32)
