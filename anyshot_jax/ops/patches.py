"""Locally aware patch features: every place of a net's maps described with its 3x3 neighbours.

Roth et al., "Towards total recall in industrial anomaly detection", CVPR 2022, section 3.1: the
C * 9 values around a place are brought to `dim` by adaptive average pooling, the maps to one size,
and what the layers give, joined, to `dim` again. Pooling and resizing are linear, so that all of it
is a sum over layers of a 3x3 convolution and an upsampling; nothing is unfolded.
"""

from collections.abc import Sequence
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from anyshot_jax.types import ArgumentError, Array

CENTRE = 4  # of the nine neighbours in row order


def locally_aware(maps: Sequence[jax.Array], dim: int = 0) -> jax.Array:
    """Patch features at the places of the largest map.

    Args:
      maps: float32 [N, h, w, C], of the same images, each with its own h, w and C.
      dim: numbers a patch. 0: all channels, each averaged over the 3x3 neighbourhood (outside of a
        map are zeros, which count) and joined, without any pooling over channels.
    Returns:
      [N, max h, max w, dim, or the sum of C].
    Raises:
      ArgumentError: there are fewer values to pool than dim.
    """
    shape = max(m.shape[1:3] for m in maps)
    if not dim:
        return jnp.concatenate([upsample(box3(m), shape) for m in maps], axis=-1)
    result = jnp.zeros((maps[0].shape[0], *shape, dim), jnp.float32)
    for x, (first, kernel) in zip(maps, kernels(tuple(m.shape[-1] for m in maps), dim),
                                  strict=True):  # fmt: skip
        # Channels are mixed before the map is made larger, which is the same and cheaper.
        y = upsample(_convolve(x, kernel), shape)
        result = result.at[..., first : first + y.shape[-1]].add(y)
    return result


def box3(x: jax.Array) -> jax.Array:
    """Mean of 3x3 places with zeros outside, of [N, h, w, C]; divided by 9 at the edges too."""
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = x[:, :-2] + x[:, 1:-1] + x[:, 2:]
    return (x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]) / 9


def upsample(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """[N, h, w, C] -> [N, *shape, C], bilinear with half-pixel centres, the edge going on."""
    if x.shape[1:3] == shape:
        return x
    return jax.image.resize(x, (x.shape[0], *shape, x.shape[-1]), 'linear', antialias=False)


def bins(length: int, num: int) -> list[tuple[int, int]]:
    """Adaptive average pooling: entry i is the mean of [floor(i L / m), ceil((i + 1) L / m))."""
    return [(i * length // num, -(-(i + 1) * length // num)) for i in range(num)]


@lru_cache(maxsize=8)
def kernels(channels: tuple[int, ...], dim: int) -> list[tuple[int, np.ndarray]]:
    """Kernels of every layer that equal pooling it to dim, and the joined layers to dim again.

    Args:
      channels: C of each layer.
    Returns:
      For each layer the first entry of the result that it reaches, and the weights [9, C, reached]
      float64 of its values, flattened as (C, 3, 3) before pooling.
    Raises:
      ArgumentError: there are fewer values than dim.
    """
    for c in channels:
        if 9 * c < dim or dim < 0:
            most = f"0..{9 * min(channels)}, nine times the narrowest layer's channels"
            raise ArgumentError('dim', f'={dim} must be {most}')
    weight = [np.zeros((9 * c, dim)) for c in channels]
    layer_bins = [bins(9 * c, dim) for c in channels]
    for i, (start, end) in enumerate(bins(dim * len(channels), dim)):
        for layer, j in (divmod(joined, dim) for joined in range(start, end)):
            first, last = layer_bins[layer][j]
            weight[layer][first:last, i] += 1 / (last - first) / (end - start)
    result = []
    for c, w in zip(channels, weight, strict=True):
        reached = np.flatnonzero(w.any(0))
        w = w[:, reached[0] : reached[-1] + 1]
        result.append((int(reached[0]), w.reshape(c, 9, -1).swapaxes(0, 1)))
    return result


def _convolve(x: jax.Array, kernel: Array) -> jax.Array:
    """[N, h, w, C] by [9, C, D] -> [N, h, w, D], cheaply where only the centre counts apart."""
    others = np.delete(kernel, CENTRE, axis=0)
    if np.allclose(others, others[:1], rtol=1e-12, atol=0):
        around, centre = 9 * others[0], kernel[CENTRE] - others[0]
        y = _mix(box3(x), around)
        return y + _mix(x, centre) if np.abs(centre).max() > 1e-12 else y
    c, d = kernel.shape[1:]
    return lax.conv_general_dilated(
        x, jnp.asarray(kernel.reshape(3, 3, c, d), jnp.float32), (1, 1), 'SAME',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'), precision=lax.Precision.HIGHEST,
    )  # fmt: skip


def _mix(x: jax.Array, weight: Array) -> jax.Array:
    """Channels [.., C] by [C, D]; one factor each, or means of neighbours, where that is all."""
    c, d = weight.shape
    group = -(-c // d)
    share = np.repeat(np.eye(d), group, axis=0)[:c]
    if group * d == c and np.array_equal(weight != 0, share != 0) and np.ptp(weight.max(1)) < 1e-12:
        return float(weight.max()) * x.reshape(*x.shape[:-1], d, group).sum(-1)
    return jnp.matmul(x, jnp.asarray(weight, jnp.float32), precision=lax.Precision.HIGHEST)
