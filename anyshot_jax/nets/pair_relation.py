"""The relation network on pairs of residual maps, the baseline of arXiv 2406.05645."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from anyshot_jax.nets.norm import BatchNorm


class PairRelation(nn.Module):
    """Similarity of a query's residual map to a support item's: the logit of one class.

    The first 1x1 convolution of the two maps' channels is the sum of one of each, so that it runs
    S + Q times and not S * Q times, with the same result.

    Call: (support [S, h, w, D], queries [Q, h, w, D]) -> [Q, S]. Vectors [., D]
    are maps of one place.
    """

    widths: tuple[int, ...] = (512, 128)
    hidden: int = 128

    @nn.compact
    def __call__(self, x_s: Array, x_q: Array, *, train: bool, transductive: bool = False) -> Array:
        x_s, x_q = (x if x.ndim > 2 else x[:, None, None] for x in (x_s, x_q))
        init = nn.initializers.he_normal()
        norm = lambda x: BatchNorm()(x, train=train, transductive=transductive)
        c = x_s.shape[-1]
        kernel = self.param('pair_kernel', init, (2 * c, self.widths[0]), jnp.float32)
        bias = self.param('pair_bias', nn.initializers.zeros, (self.widths[0],), jnp.float32)
        from_s = x_s.astype(jnp.float32) @ kernel[:c] + bias.reshape(1, 1, 1, -1)
        from_q = x_q.astype(jnp.float32) @ kernel[c:]
        x = (from_q[:, None] + from_s[None]).reshape(-1, *from_s.shape[1:])
        x = nn.relu(norm(x))
        for width in self.widths[1:]:
            x = nn.relu(norm(nn.Dense(width, kernel_init=init)(x)))
        x = nn.Dense(self.hidden, kernel_init=init)(x.reshape(x.shape[0], -1))
        x = nn.relu(norm(x[:, None, None])[:, 0, 0])
        return nn.Dense(1)(x)[:, 0].reshape(x_q.shape[0], x_s.shape[0])


Net = PairRelation
