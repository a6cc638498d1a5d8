"""All sums q + s of two sets of maps: their statistics and their max-pooling, without the sums.

W * Q maps of a relation net are the largest arrays of its step; here only the pooled ones, a
quarter of that, are written.
"""

import jax.numpy as jnp
from jax import Array, lax


def pair_moments(q: Array, s: Array) -> tuple[Array, Array]:
    """Mean and (biased) variance of each channel over all Q * W * h * w values q_i + s_j.

    With q and s less their means, Var = E[q^2] + E[s^2] + 2 E_position[E_i[q] E_j[s]].

    Args:
      q: [..., Q, h, w, c]. s: [..., W, h, w, c]; the axes before are tasks.
    Returns:
      [..., c], [..., c] in float32 or wider.
    """
    wide = jnp.promote_types(q.dtype, jnp.float32)
    q, s = q.astype(wide), s.astype(wide)
    mean_q, mean_s = (x.mean((-4, -3, -2), keepdims=True) for x in (q, s))
    q, s = q - mean_q, s - mean_s
    cross = (q.mean(-4) * s.mean(-4)).mean((-3, -2))
    var = jnp.square(q).mean((-4, -3, -2)) + jnp.square(s).mean((-4, -3, -2)) + 2 * cross
    return (mean_q + mean_s).squeeze((-4, -3, -2)), jnp.maximum(var, 0.0)


def max_pool_pairs(q: Array, s: Array, sign: Array) -> Array:
    """2x2 max-pooling (stride 2, VALID) of every q_i + s_j; differentiable to any order.

    As in `nets.pool.max_pool` the gradient goes to the first entry that equals the maximum.

    Args:
      q: [..., Q, h, w, c]. s: [..., W, h, w, c].
      sign: [c] of +1 and -1: where -1 the minimum is taken instead.
    Returns:
      [..., Q * W, h // 2, w // 2, c], the classes of a query next to each other.
    """
    h, w = (n // 2 * 2 for n in q.shape[-3:-1])
    corner = lambda x, i, j: x[..., i:h:2, j:w:2, :]
    sums = [
        corner(q, i, j)[..., :, None, :, :, :] + corner(s, i, j)[..., None, :, :, :, :]
        for i in range(2)
        for j in range(2)
    ]
    sign = sign.reshape((1,) * (sums[0].ndim - 1) + (-1,))
    a, b, c, d = (lax.stop_gradient(x * sign) for x in sums)
    top = jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))
    y = sums[3]
    for x, signed in list(zip(sums, (a, b, c, d), strict=True))[2::-1]:
        y = jnp.where(signed == top, x, y)
    lead, (n, m) = y.shape[:-5], y.shape[-5:-3]
    return y.reshape(*lead, n * m, *y.shape[-3:])
