"""2-D convolution that stays fast under scan, vmap over weights and any order of derivative.

XLA:CPU runs a convolution fast only where it recognises its form, which inside `scan` it does for
few of those that autodiff writes, and `vmap` over weights becomes a grouped convolution that does
not end in useful time. So on a CPU the convolution is written as slices and ONE matmul: gather
the taps along the width, multiply by [kw*C, kh*O], add the kh row-shifted results.

A TPU's compiler makes a group a dimension of the batch and swaps kernel and image where that is
less work, so that JAX's own convolution and derivatives are right there. A GPU's does neither: the
second derivative would convolve 3x3 maps by kernels as large as the activations (14x14 taps for 9),
which the pair of derivatives below takes away; and where each task has its own kernel
(`GPU_BY_TASK`) it would call cuDNN with as many groups as there are tasks.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from anyshot_jax.nets.pool import in_chunks
from anyshot_jax.target import on_cpu, platform
from anyshot_jax.types import InputError

# On a GPU, where kernels differ from task to task: 'rows', slices and one batched matmul as on a
# CPU, or 'grouped', one convolution of as many groups. Rows move some five times the bytes that an
# ideal kernel would and no more, on tensor cores; grouped calls are fast only where cuDNN has a
# kernel for the shape, which for derivatives by kernels (maps as kernels) it has not. Which one is
# faster on a card: experiments/accelerator.py, item 1.
GPU_BY_TASK = 'rows'

_DIMS = ('NHWC', 'HWIO', 'NHWC')
Pads = tuple[tuple[int, int], ...]  # (low, high) of each axis


def conv(x: Array, w: Array, *, padding: str = 'SAME', stride: int = 1) -> Array:
    """Convolve images with a kernel (cross-correlation, as in every deep-learning library).

    Any order of reverse-mode derivative; no forward mode but on a TPU (`jax.custom_vjp` inside).

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
    pads = tuple(lax.padtype_to_pads(x.shape[1:3], w.shape[:2], (stride, stride), padding))
    if any(n + sum(p) < k for n, p, k in zip(x.shape[1:3], pads, w.shape[:2], strict=True)):
        raise ValueError(f'kernel {w.shape[:2]} is larger than the image {x.shape[1:3]}')
    if not on_cpu():
        if platform() == 'gpu' and stride == 1:
            return _conv(x, w, pads)
        return lax.conv_general_dilated(x, w, (stride, stride), pads, dimension_numbers=_DIMS)
    kh, kw, c, o = w.shape
    if all(_sees_all(*axis, stride) for axis in zip(x.shape[1:3], pads, (kh, kw), strict=True)):
        return _dense(x, w, pads, stride)
    if _few(kh, kw, c, o):
        p = patches(x, (kh, kw), pads, stride)
        return matmul(p, w.reshape(kh * kw * c, o)).astype(x.dtype)
    if stride == 1:
        return _conv(x, w, pads)
    return _add_rows(matmul(_taps(x, 2, kw, pads[1], stride), _as_matrix(w)), kh, pads[0], stride)


def _few(kh: int, kw: int, c: int, o: int) -> bool:
    """True with so few input channels that all taps are less to move than rows."""
    return kh * kw * c <= kw * c + kh * o


def _sees_all(n: int, pad: tuple[int, int], k: int, stride: int) -> bool:
    """True if each of the outputs along an axis sees every input."""
    outputs = (n + sum(pad) - k) // stride + 1
    return n - 1 + pad[0] < k and (outputs - 1) * stride <= pad[0]


def _dense(x: Array, w: Array, pads: Pads, stride: int) -> Array:
    """A convolution of maps so small that every tap counts: one matrix, no zeros multiplied."""
    n, h, width, c = x.shape
    kh, kw, _, o = w.shape
    (top, bottom), (left, right) = pads
    rows = (h + top + bottom - kh) // stride + 1
    columns = (width + left + right - kw) // stride + 1
    blocks = [
        w[top - p * stride :][:h, left - q * stride :][:, :width].reshape(h * width * c, o)
        for p in range(rows)
        for q in range(columns)
    ]
    y = matmul(x.reshape(n, -1), jnp.concatenate(blocks, -1))
    return y.astype(x.dtype).reshape(n, rows, columns, o)


def _taps(x: Array, axis: int, k: int, pad: tuple[int, int], stride: int = 1) -> Array:
    """[N, H, W, C] -> the k shifted (strided) views along an axis, zeros outside: [.., k*C]."""
    return jnp.concatenate(_shifts(x, axis, k, pad, stride), -1)


def _shifts(x: Array, axis: int, k: int, pad: tuple[int, int], stride: int = 1) -> list[Array]:
    widths = [(0, 0)] * x.ndim
    widths[axis] = pad
    x = jnp.pad(x, widths)
    n = (x.shape[axis] - k) // stride + 1
    return [lax.slice_in_dim(x, i, i + (n - 1) * stride + 1, stride, axis) for i in range(k)]


def patches(x: Array, kernel: tuple[int, ...], pads: Pads, stride: int) -> Array:
    """[N, H, W, C] -> [N, H', W', kh*kw*C]."""
    rows = _shifts(x, 1, kernel[0], pads[0], stride)
    return jnp.concatenate([_taps(r, 2, kernel[1], pads[1], stride) for r in rows], -1)


def _add_rows(z: Array, kh: int, pad: tuple[int, int], stride: int = 1) -> Array:
    """[N, H, W, kh*O] -> [N, H', W, O], the i-th of the kh parts taken i rows further down."""
    o = z.shape[-1] // kh
    rows = _shifts(z, 1, kh, pad, stride)
    return reduce(jnp.add, [r[..., i * o : (i + 1) * o] for i, r in enumerate(rows)])


def matmul(x: Array, m: Array) -> Array:
    """[..., K] x [K, M] -> [..., M], summed in float32 or wider."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    y = lax.dot(x.reshape(-1, x.shape[-1]), m, preferred_element_type=wide)
    return y.reshape(*x.shape[:-1], m.shape[-1])


def _as_matrix(w: Array) -> Array:
    """[kh, kw, C, O] -> [kw*C, kh*O]."""
    kh, kw, c, o = w.shape
    return w.transpose(1, 2, 0, 3).reshape(kw * c, kh * o)


# Two bilinear functions whose derivatives are each other: <g, conv(x, w)> = <w, wconv(x, g)>.


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x: Array, w: Array, pads: Pads) -> Array:
    return _by_rows(x, w, pads) if on_cpu() else _by_library(pads, 'conv')(x, w)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _wconv(x: Array, g: Array, pads: Pads) -> Array:
    """dw[i, j, c, o] = sum over n, h, w of x[n, h+i-pad, w+j-pad, c] g[n, h, w, o]."""
    return _kernel_by_rows(x, g, pads) if on_cpu() else _by_library(pads, 'wconv')(x, g)


def _by_library(pads: Pads, which: str) -> Callable:
    """`_conv` or `_wconv` by the library's convolution, per-task kernels as GPU_BY_TASK says."""
    dims, form = {
        'conv': (_DIMS, _by_slices),
        'wconv': (('CHWN', 'IHWO', 'HWNC'), _kernel_by_slices),
    }[which]
    library = lambda x, w: lax.conv_general_dilated(x, w, (1, 1), pads, dimension_numbers=dims)
    if GPU_BY_TASK == 'grouped':
        return library
    function = jax.custom_batching.custom_vmap(library)

    @function.def_vmap
    def by_task(size, batched, x, w):
        if which == 'conv' and batched == [True, False]:  # one kernel for all: a longer batch
            y = function(x.reshape(-1, *x.shape[2:]), w)
            return y.reshape(size, -1, *y.shape[1:]), True
        axes = [0 if b else None for b in batched]
        return jax.vmap(partial(form, pads=pads), axes)(x, w), True

    return function


def _by_slices(x: Array, w: Array, pads: Pads) -> Array:
    if not _few(*w.shape):
        return _by_rows(x, w, pads)
    p = patches(x, w.shape[:2], pads, 1)
    return matmul(p, w.reshape(-1, w.shape[3])).astype(x.dtype)


def _kernel_by_slices(x: Array, g: Array, pads: Pads) -> Array:
    c, o = x.shape[3], g.shape[3]
    kh, kw = _kernel_size(x, g, pads)
    if not _few(kh, kw, c, o):
        return _kernel_by_rows(x, g, pads)
    p = patches(x, (kh, kw), pads, 1).reshape(-1, kh * kw * c)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    dims = (((0,), (0,)), ((), ()))
    dw = lax.dot_general(p, g.reshape(-1, o), dims, preferred_element_type=wide)
    return dw.astype(x.dtype).reshape(kh, kw, c, o)


def _kernel_size(x: Array, g: Array, pads: Pads) -> tuple[int, ...]:
    return tuple(
        n + sum(p) - m + 1 for n, p, m in zip(x.shape[1:3], pads, g.shape[1:3], strict=True)
    )


def _by_rows(x: Array, w: Array, pads: Pads) -> Array:
    kh, kw = w.shape[:2]
    m = _as_matrix(w)

    def rows(x: Array) -> Array:
        return _add_rows(matmul(_taps(x, 2, kw, pads[1]), m), kh, pads[0]).astype(x.dtype)

    item = 4 * x.shape[1] * x.shape[2] * sum(m.shape)
    return in_chunks(rows, x, item_bytes=item)


def _kernel_by_rows(x: Array, g: Array, pads: Pads) -> Array:
    c, o = x.shape[3], g.shape[3]
    kh, kw = _kernel_size(x, g, pads)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    back = _transposed_pads(pads, (kh, kw))[0]

    def part(x: Array, g: Array) -> Array:
        xs = _taps(x, 2, kw, pads[1]).reshape(-1, kw * c)
        gs = jnp.concatenate(_shifts(g, 1, kh, back)[::-1], -1).reshape(-1, kh * o)
        return lax.dot_general(xs, gs, (((0,), (0,)), ((), ())), preferred_element_type=wide)

    item = 4 * g.shape[2] * (x.shape[1] * kw * c + g.shape[1] * kh * o)
    dw = in_chunks(lambda x, g: part(x, g)[None], x, g, item_bytes=item).sum(0)
    return dw.astype(x.dtype).reshape(kw, c, kh, o).transpose(2, 0, 1, 3)


def _transposed_pads(pads: Pads, kernel: tuple[int, ...]) -> Pads:
    return tuple((k - 1 - lo, k - 1 - hi) for (lo, hi), k in zip(pads, kernel, strict=True))


def _conv_transposed(g: Array, w: Array, pads: Pads) -> Array:
    flipped = w[::-1, ::-1].swapaxes(2, 3)
    return _conv(g, flipped, _transposed_pads(pads, w.shape[:2]))


def _conv_bwd(pads: Pads, res: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, w = res
    return _conv_transposed(g, w, pads), _wconv(x, g, pads)


def _wconv_bwd(pads: Pads, res: tuple[Array, Array], u: Array) -> tuple[Array, Array]:
    x, g = res
    return _conv_transposed(g, u, pads), _conv(x, u, pads)


_conv.defvjp(lambda x, w, pads: (_conv(x, w, pads), (x, w)), _conv_bwd)
_wconv.defvjp(lambda x, g, pads: (_wconv(x, g, pads), (x, g)), _wconv_bwd)


def compute_dtype(name: str, given: Any) -> Any:
    """The dtype that a net computes in: 'float32' or 'bfloat16', or '' for that of its input.

    Parameters and batch statistics stay float32.
    """
    if name not in ('', 'float32', 'bfloat16'):
        raise InputError(f'config.net.compute_dtype={name!r}: need float32 or bfloat16')
    return jnp.dtype(name) if name else given


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
        x, w = x.astype(dtype), w.astype(dtype)
        y = conv(x.reshape(-1, *x.shape[-3:]), w, padding=self.padding, stride=self.strides)
        if self.use_bias:
            b = self.param('bias', nn.initializers.zeros, (self.features,), jnp.float32)
            y = y + b.astype(dtype).reshape(1, 1, 1, -1)
        return y.reshape(*x.shape[:-3], *y.shape[1:])
