"""2-D convolution that stays fast under scan, vmap over weights and any order of derivative.

XLA:CPU runs a convolution fast only where it recognises its form, which inside `scan` it does for
few of those that autodiff writes, and `vmap` over weights becomes a grouped convolution that does
not end in useful time. So on a CPU the convolution is written as slices and ONE matmul: gather
the taps along the width, multiply by [kw*C, kh*O], add the kh row-shifted results. Derivatives of
slices and matmuls are slices and matmuls, forward or reverse, of any order.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

_DIMS = ('NHWC', 'HWIO', 'NHWC')


def conv(x: Array, w: Array, *, padding: str = 'SAME', stride: int = 1) -> Array:
    """Convolve images with a kernel (cross-correlation, as in every deep-learning library).

    Args:
      x: images [N, H, W, C], float32 or bfloat16.
      w: kernel [kh, kw, C, O], the same dtype.
      padding: 'SAME' (zeros, output ceil(H / stride)) or 'VALID'.
      stride: the same for both axes.
    Returns:
      [N, H', W', O] in the dtype of x; sums are taken in float32 or wider.
    Raises:
      ValueError: ranks, channels, or a VALID kernel larger than the image.
    """
    if x.ndim != 4 or w.ndim != 4 or x.shape[3] != w.shape[2]:
        raise ValueError(f'conv needs x [N,H,W,C] and w [kh,kw,C,O], got {x.shape} and {w.shape}')
    pads = lax.padtype_to_pads(x.shape[1:3], w.shape[:2], (stride, stride), padding)
    if any(n + sum(p) < k for n, p, k in zip(x.shape[1:3], pads, w.shape[:2], strict=True)):
        raise ValueError(f'kernel {w.shape[:2]} is larger than the image {x.shape[1:3]}')
    if jax.default_backend() != 'cpu':  # GPU and TPU libraries have their own fast kernels
        return lax.conv_general_dilated(x, w, (stride, stride), pads, dimension_numbers=_DIMS)
    kh, kw, c, o = w.shape
    if kh * c <= c + o:  # few input channels: gathering all taps moves less than adding rows
        return _patches_form(x, w, pads, stride)
    return _rows_form(x, w, pads, stride)


def _taps(x: Array, axis: int, k: int, pad: tuple[int, int], stride: int) -> list[Array]:
    """The k shifted (strided) views of x along an axis, zeros outside: k arrays of one shape."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = pad
    x = jnp.pad(x, widths)
    n = (x.shape[axis] - k) // stride + 1
    return [lax.slice_in_dim(x, i, i + (n - 1) * stride + 1, stride, axis) for i in range(k)]


def _matmul(x: Array, m: Array) -> Array:
    """[N, H, W, K] x [K, M] -> [N, H, W, M], summed in float32 or wider."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    y = lax.dot(x.reshape(-1, x.shape[-1]), m, preferred_element_type=wide)
    return y.reshape(*x.shape[:-1], m.shape[-1])


def _patches_form(x: Array, w: Array, pads: list, stride: int) -> Array:
    """Gather all kh*kw taps, then one matmul [M, kh*kw*C] x [kh*kw*C, O]."""
    kh, kw, c, o = w.shape
    rows = _taps(x, 1, kh, pads[0], stride)
    patches = jnp.concatenate([t for r in rows for t in _taps(r, 2, kw, pads[1], stride)], -1)
    return _matmul(patches, w.reshape(kh * kw * c, o)).astype(x.dtype)


def _rows_form(x: Array, w: Array, pads: list, stride: int) -> Array:
    """Gather the kw taps of a row, one matmul [M, kw*C] x [kw*C, kh*O], add kh shifted rows."""
    kh, kw, c, o = w.shape
    z = jnp.concatenate(_taps(x, 2, kw, pads[1], stride), -1)
    z = _matmul(z, w.transpose(1, 2, 0, 3).reshape(kw * c, kh * o))
    rows = _taps(z, 1, kh, pads[0], stride)
    return sum(r[..., i * o : (i + 1) * o] for i, r in enumerate(rows)).astype(x.dtype)


class Conv(nn.Module):
    """Convolution with the parameters of `nn.Conv`: kernel [kh, kw, C, O] and bias [O].

    Takes [..., H, W, C] (leading axes are merged for the call), returns [..., H', W', features].
    `dtype` is what it computes in (None: the input's); parameters are kept in float32.
    """

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    strides: int = 1
    padding: str = 'SAME'
    use_bias: bool = True
    dtype: Any = None
    kernel_init: Callable = nn.initializers.he_normal()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (*self.kernel_size, x.shape[-1], self.features)
        w = self.param('kernel', self.kernel_init, shape, jnp.float32)
        dtype = self.dtype or x.dtype
        flat = x.astype(dtype).reshape(-1, *x.shape[-3:])
        y = conv(flat, w.astype(dtype), padding=self.padding, stride=self.strides)
        if self.use_bias:
            b = self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + b.astype(dtype).reshape(1, 1, 1, -1)
        return y.reshape(*x.shape[:-3], *y.shape[1:])
