"""Conv4, the four-block convolutional embedding of few-shot learning.

Vinyals et al., Matching Networks, 2016, section 4.1; Snell et al., Prototypical Networks, 2017.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from anyshot_jax.nets.conv import Conv, compute_dtype, matmul, patches
from anyshot_jax.nets.norm import BatchNorm
from anyshot_jax.nets.pool import in_chunks, max_index, max_pool, pick, unpool
from anyshot_jax.ops.product import product
from anyshot_jax.target import on_cpu


class Conv4(nn.Module):
    """Blocks of 3x3 convolution, batch norm, ReLU and (where `pools` says so) 2x2 max-pooling.

    Args of the call:
      x: [..., N, H, W, C]; uint8 0..255 is scaled to 0..1 here, floats are taken as they are.
        Axes before N are tasks with batch statistics of their own.
      train, transductive: see BatchNorm.
    Returns:
      [..., N, D] (28x28 -> 64, 84x84 -> 1600 with 64 features), or [..., N, H', W', features]
      if not `flatten`; float32 where it computes in less.
    """

    features: int = 64
    blocks: int = 4
    pools: tuple[bool, ...] = (True, True, True, True)
    padding: tuple[str, ...] = ('SAME', 'SAME', 'SAME', 'SAME')
    flatten: bool = True
    compute_dtype: str = ''  # bfloat16 (for accelerators); '': float32, or the input's

    @nn.compact
    def __call__(self, x: Array, *, train: bool, transductive: bool = False) -> Array:
        if not self.blocks == len(self.pools) == len(self.padding):
            raise ValueError(f'{self.blocks} blocks, but pools {self.pools}, {self.padding}')
        if x.dtype == jnp.uint8:
            x = x.astype(jnp.float32) / 255
        given = x.dtype
        x = x.astype(compute_dtype(self.compute_dtype, given))
        for i in range(self.blocks):
            # No bias: the normalisation that follows would take it away again.
            conv = Conv(self.features, padding=self.padding[i], use_bias=False, name=f'conv{i + 1}')
            y = conv(x)
            moments: tuple[Array, Array | None] | None = None
            pool = max_pool if self.pools[i] else None
            w = conv.variables['params']['kernel']
            small = 2 * w[..., 0].size <= w.shape[-1] and x.dtype == w.dtype
            if small and on_cpu():
                # Few input channels: all that is wanted of y can be had without storing y.
                p = _padded_patches(x, w, self.padding[i])
                moments = _moments(p, w)
                pool = partial(_conv_max_pool, p, w) if self.pools[i] else None
            elif small:  # a pass over y less
                moments = _mean(x, w, self.padding[i]), None
            norm = BatchNorm(name=f'norm{i + 1}')
            y = norm(y, train=train, transductive=transductive, pool=pool, moments=moments)
            x = nn.relu(y)
        x = x.astype(given)
        return x.reshape(*x.shape[:-3], -1) if self.flatten else x


def _padded_patches(x: Array, w: Array, padding: str) -> Array:
    """[..., N, H, W, C] -> [..., N, H', W', kh*kw*C]."""
    flat = x.reshape(-1, *x.shape[-3:])
    pads = tuple(lax.padtype_to_pads(flat.shape[1:3], w.shape[:2], (1, 1), padding))
    p = patches(flat, w.shape[:2], pads, 1)
    return p.reshape(*x.shape[:-3], *p.shape[1:])


def _moments(p: Array, w: Array) -> tuple[Array, Array]:
    """Mean and variance of each channel of the convolution, from the moments of its patches.

    mean = w' E[p] and var = w' Cov[p] w: exact, without cancellation, and of a small input.

    Args:
      p: patches [..., N, H', W', K]; leading axes are tasks.
      w: [kh, kw, C, O] with kh*kw*C = K.
    Returns:
      mean and (biased) variance, each [..., O].
    """
    k, o = p.shape[-1], w.shape[-1]
    p = p.reshape(*p.shape[:-4], -1, k).astype(jnp.promote_types(p.dtype, jnp.float32))
    mean = p.mean(-2, keepdims=True)
    p = p - mean
    cov = jnp.swapaxes(p, -1, -2) @ p / p.shape[-2]
    w = jnp.broadcast_to(w.reshape(k, o).astype(p.dtype), (*cov.shape[:-2], k, o))
    return (mean @ w)[..., 0, :], jnp.maximum(jnp.sum(w * (cov @ w), -2), 0.0)


def _mean(x: Array, w: Array, padding: str) -> Array:
    """Mean [..., O] of the convolution of x [..., N, H, W, C] by w: that of the mean image."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    p = _padded_patches(x.astype(wide).mean(-4, keepdims=True), w, padding)
    return product(p.mean((-4, -3, -2)), w.reshape(-1, w.shape[-1]).astype(wide))


def _conv_max_pool(p: Array, w: Array, _: Array, sign: Array) -> Array:
    """max_pool(patches x kernel, sign), the product never stored: [..., N, H' // 2, W' // 2, O]."""
    *lead, h, wid, k = p.shape
    p = p.reshape(-1, h, wid, k)[:, : h // 2 * 2, : wid // 2 * 2]
    y = _product_pool(p, w.reshape(k, -1), lax.stop_gradient(sign))[0]
    return y.reshape(*lead, *y.shape[1:])


@jax.custom_vjp
def _product_pool(p: Array, m: Array, sign: Array) -> tuple[Array, Array]:
    return in_chunks(lambda p: max_index(matmul(p, m), sign), p, item_bytes=_item_bytes(p, m))


@jax.custom_vjp
def _unpool_product(p: Array, g: Array, index: Array) -> Array:
    """The derivative of `_product_pool` by m: p' unpool(g), [K, O]."""

    def part(p: Array, g: Array, index: Array) -> Array:
        g = unpool(g, index)
        return jnp.tensordot(p, g, ((0, 1, 2), (0, 1, 2)))[None]

    return in_chunks(part, p, g, index, item_bytes=_item_bytes(p, g)).sum(0)


def _item_bytes(p: Array, m: Array) -> int:
    return 4 * p.shape[1] * p.shape[2] * m.shape[-1]


def _product_pool_fwd(p: Array, m: Array, sign: Array) -> tuple:
    y, index = _product_pool(p, m, sign)
    return (y, index), (p, m, index)


def _product_pool_bwd(res: tuple, g: tuple) -> tuple:
    p, m, index = res
    return matmul(unpool(g[0], index), m.T), _unpool_product(p, g[0], index), None


def _unpool_product_bwd(res: tuple, u: Array) -> tuple:
    p, g, index = res
    return matmul(unpool(g, index), u.T), pick(matmul(p, u), index), None


_product_pool.defvjp(_product_pool_fwd, _product_pool_bwd)
_unpool_product.defvjp(lambda p, g, i: (_unpool_product(p, g, i), (p, g, i)), _unpool_product_bwd)


Net = Conv4
