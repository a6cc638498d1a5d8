"""The relation module: a small net that says how alike two feature maps are.

Sung et al., "Learning to compare: relation network for few-shot learning", CVPR 2018, figure 2.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from anyshot_jax.nets.conv import Conv, conv
from anyshot_jax.nets.norm import BatchNorm
from anyshot_jax.nets.pairs import max_pool_pairs, pair_moments
from anyshot_jax.nets.pool import max_pool
from anyshot_jax.types import InputError


class Relation(nn.Module):
    """Two conv blocks on the concatenated pair of maps, then two dense layers and a sigmoid.

    The first convolution of a concatenation is the sum of two convolutions, of the class's map and
    of the query's. So it runs W + Q times and not W * Q times, with the same result. As every query
    meets every class, the batch statistics of all pairs follow from the two sets of maps.

    Call: (class maps [..., W, h, w, c], query maps [..., Q, h, w, c]) -> scores [..., Q, W], the
    logits of the paper's sigmoid. Axes before W are tasks with batch statistics of their own.
    """

    features: int = 64
    hidden: int = 8

    @nn.compact
    def __call__(self, x_s: Array, x_q: Array, *, train: bool, transductive: bool = False) -> Array:
        if min(x_s.shape[-3:-1]) < 4:
            raise InputError(
                f'the relation module pools twice and needs maps of 4x4 or more, got {x_s.shape}; '
                'set config.net.flatten=False, use fewer pools or larger images'
            )
        c, f = x_s.shape[-1], self.features
        init = nn.initializers.he_normal()
        kernel = self.param('pair_kernel', init, (3, 3, 2 * c, f), jnp.float32)
        bias = self.param('pair_bias', nn.initializers.zeros, (f,), jnp.float32)
        from_s = _flat(conv, x_s, kernel[:, :, :c])
        from_s += bias.reshape((1,) * (from_s.ndim - 1) + (-1,))
        from_q = _flat(conv, x_q, kernel[:, :, c:])
        pool = lambda _, sign: max_pool_pairs(from_q, from_s, sign)
        norm = BatchNorm(name='norm1')
        moments = pair_moments(from_q, from_s)
        x = norm(from_q, train=train, transductive=transductive, pool=pool, moments=moments)
        x = nn.relu(x)
        x = Conv(f, padding='SAME', name='conv2')(x)
        x = BatchNorm(name='norm2')(x, train=train, transductive=transductive)
        x = nn.relu(max_pool(x))
        x = x.reshape(*x_q.shape[:-3], x_s.shape[-4], -1)
        x = nn.relu(nn.Dense(self.hidden)(x))
        return nn.Dense(1)(x)[..., 0]


def _flat(function, x: Array, kernel: Array) -> Array:
    y = function(x.reshape(-1, *x.shape[-3:]), kernel)
    return y.reshape(*x.shape[:-3], *y.shape[1:])


Net = Relation
