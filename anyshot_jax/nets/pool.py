"""Max-pooling, differentiable to any order.

On a CPU, where XLA's select-and-scatter is slow, the place of each maximum is kept and derivatives
are elementwise. On an accelerator that index would be written and read again with all that it is
spread out to, and select-and-scatter is fast: there maxima are found again from the input.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from anyshot_jax.target import on_cpu

_CACHE = 4 << 20  # bytes, of one core's second-level cache


def max_pool(x: Array, sign: Array | None = None) -> Array:
    """2x2 max-pooling with stride 2, VALID: an odd last row or column is dropped (7 -> 3).

    The gradient goes to the first entry (in row order) that equals the maximum, all of it, so it
    is a subgradient also at ties. Any order of reverse-mode derivative: the choice of the maximum
    is taken as locally constant. No forward mode (`jax.custom_vjp` inside).

    Args:
      x: [..., H, W, C], H and W at least 2.
      sign: [C] of +1 and -1, or None: where -1 the minimum is taken instead.
    Returns:
      [..., H // 2, W // 2, C].
    Raises:
      ValueError: H or W below 2.
    """
    if x.ndim < 3 or min(x.shape[-3:-1]) < 2:
        raise ValueError(f'max_pool needs [..., H, W, C] with H, W >= 2, got {x.shape}')
    lead, (h, w, c) = x.shape[:-3], x.shape[-3:]
    x = x.reshape(-1, h, w, c)[:, : h // 2 * 2, : w // 2 * 2]
    if sign is None and not on_cpu():
        return _pool_again(x).reshape(*lead, h // 2, w // 2, c)
    sign = jnp.ones((c,), x.dtype) if sign is None else sign.astype(x.dtype)
    sign = lax.stop_gradient(sign)
    if on_cpu():
        y = _pool(x, sign)[0]
    else:
        sign = sign.reshape(1, 1, 1, -1)
        y = _pool_again(x * sign) * sign
    return y.reshape(*lead, h // 2, w // 2, c)


def in_chunks(f: Callable, *xs: Array, item_bytes: int) -> Any:
    """f(*xs) by a loop over slices of the leading axis whose temporaries fit the cache.

    Only on a CPU, where it gains twice: nothing in f goes through the memory, and XLA doesn't fuse
    across a loop (it would compute what f makes again for every tap of the next convolution).

    Args:
      f: maps slices to arrays, each with a leading axis; those are concatenated.
      item_bytes: what f writes per item.
    """
    n = xs[0].shape[0]
    if not isinstance(n, int):  # of a program for any number, which runs elsewhere
        return f(*xs)
    size = max(1, _CACHE // item_bytes)
    k = next(k for k in range(1, n + 1) if n % k == 0 and n // k <= size)
    if k == 1 or not on_cpu():
        return f(*xs)
    ys = lax.map(lambda args: f(*args), tuple(x.reshape(k, n // k, *x.shape[1:]) for x in xs))
    return jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:]), ys)


@jax.custom_vjp
def _pool(x: Array, sign: Array) -> tuple[Array, Array]:
    return in_chunks(lambda x: max_index(x, sign), x, item_bytes=4 * x[0].size)


def max_index(x: Array, sign: Array) -> tuple[Array, Array]:
    """The extreme of each window and which of its four corners has it, 0..3 in row order."""
    sign = sign.reshape(1, 1, 1, -1)
    a, b, c, d = (t * sign for t in _corners(x))
    y = jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))
    k = [jnp.full(y.shape, i, jnp.int32) for i in range(4)]
    index = jnp.where(a == y, k[0], jnp.where(b == y, k[1], jnp.where(c == y, k[2], k[3])))
    return y * sign, index


def _corners(x: Array) -> list[Array]:
    return [x[:, i::2, j::2] for i in range(2) for j in range(2)]


# Linear and transposes of each other, given the index.


@jax.custom_vjp
def unpool(g: Array, index: Array) -> Array:
    """[N, h, w, C] -> [N, 2h, 2w, C]: each entry to its corner, zeros elsewhere."""
    n, h, w, c = g.shape
    full = (n, h, 2, w, 2, c)
    g, index = (jnp.broadcast_to(t[:, :, None, :, None], full) for t in (g, index))
    corner = 2 * lax.broadcasted_iota(jnp.int32, full, 2) + lax.broadcasted_iota(jnp.int32, full, 4)
    return jnp.where(index == corner, g, jnp.zeros((), g.dtype)).reshape(n, 2 * h, 2 * w, c)


@jax.custom_vjp
def pick(x: Array, index: Array) -> Array:
    """[N, 2h, 2w, C] -> [N, h, w, C]: of each window the indexed corner."""
    a, b, c, d = _corners(x)
    return jnp.where(index == 0, a, jnp.where(index == 1, b, jnp.where(index == 2, c, d)))


def _pool_fwd(x: Array, sign: Array) -> tuple[tuple[Array, Array], Array]:
    y, index = _pool(x, sign)
    return (y, index), index


_pool.defvjp(_pool_fwd, lambda index, g: (unpool(g[0], index), None))
unpool.defvjp(lambda g, i: (unpool(g, i), i), lambda i, u: (pick(u, i), None))
pick.defvjp(lambda x, i: (pick(x, i), i), lambda i, u: (unpool(u, i), None))


# The same three for accelerators, without an index: places are those of the maxima of x.


def _windows(x: Array) -> Array:
    window = (1, 2, 2, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, window, 'VALID')


@jax.custom_vjp
def _pool_again(x: Array) -> Array:
    return _windows(x)


@jax.custom_vjp
def _unpool_again(g: Array, x: Array) -> Array:
    """[N, h, w, C] -> [N, 2h, 2w, C]: each entry to where x has the window's first maximum."""
    return jax.vjp(_windows, x)[1](g)[0]


@jax.custom_vjp
def _pick_again(u: Array, x: Array) -> Array:
    """[N, 2h, 2w, C] -> [N, h, w, C]: of each window the entry where x has its first maximum."""
    y = _windows(x)
    *rest, last = zip(_corners(u), _corners(x), strict=True)
    picked = last[0]
    for own, corner in reversed(rest):
        picked = jnp.where(corner == y, own, picked)
    return picked


_pool_again.defvjp(lambda x: (_pool_again(x), x), lambda x, g: (_unpool_again(g, x),))
_unpool_again.defvjp(lambda g, x: (_unpool_again(g, x), x), lambda x, u: (_pick_again(u, x), None))
_pick_again.defvjp(lambda u, x: (_pick_again(u, x), x), lambda x, g: (_unpool_again(g, x), None))
