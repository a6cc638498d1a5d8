"""The two nets on pairs of a weak-shot learner: are they of one class, and from which domain.

Chen, Niu, Liu, Zhang, "Weak-shot fine-grained classification via similarity transfer", NeurIPS
2021, section 3.2.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from anyshot_jax.nets.norm import BatchNorm


class PairHead(nn.Module):
    """Logits of 'same class' for pairs, by dense layers on their joined features.

    The first layer of joined features is a sum, W [a; b] = W1 a + W2 b: it runs once for an item
    and not once for a pair, with the same result. Not symmetric.

    Call: (a [..., G, K, D], b [..., G, N, D]) -> logits [..., G, K, N, 2], of which the last says
    'same class', and relation features [..., G, K, N, widths[relation]]. All pairs of the G groups
    share their batch statistics; axes before are batches with statistics of their own.
    """

    widths: tuple[int, ...] = (4096, 2048, 2048)  # the paper's for D = 2048; one: its variant

    @nn.compact
    def __call__(
        self, a: Array, b: Array, *, train: bool, transductive: bool = False
    ) -> tuple[Array, Array]:
        d = a.shape[-1]
        kernel = self.param('pair_kernel', nn.initializers.he_normal(), (2 * d, self.widths[0]))
        bias = self.param('pair_bias', nn.initializers.zeros, (self.widths[0],))
        x = _sums(a @ kernel[:d], b @ kernel[d:]) + _wide(bias, a.ndim + 1)
        relation = x
        for i, width in enumerate(self.widths):
            if i:
                x = nn.Dense(width, kernel_init=nn.initializers.he_normal(), name=f'dense{i}')(x)
            flat = x.reshape(*x.shape[:-4], -1, 1, 1, x.shape[-1])
            norm = BatchNorm(name=f'norm{i}')
            x = norm(flat, train=train, transductive=transductive).reshape(x.shape)
            x = nn.relu(x)
            if i == max(len(self.widths) - 2, 0):
                relation = x
        return nn.Dense(2, name='logits')(x), relation


class Judge(nn.Module):
    """Domain classifier of relation features [..., d]: logits [..., 2], 0 base and 1 novel."""

    @nn.compact
    def __call__(self, relation: Array) -> Array:
        x = nn.LayerNorm()(nn.Dense(relation.shape[-1])(relation))
        return nn.Dense(2)(nn.relu(x))


def _sums(a: Array, b: Array) -> Array:
    """[..., K, C] and [..., N, C] -> [..., K, N, C]."""
    return a[..., :, None, :] + b[..., None, :, :]


def _wide(bias: Array, ndim: int) -> Array:
    return jnp.reshape(bias, (1,) * (ndim - 1) + (-1,))


Net = PairHead
