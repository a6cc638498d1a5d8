"""The contrastive encoder of residual maps: 1x1 convolutions, then all of space (arXiv 2406.05645).

The paper's code flattens patches before channels and so mixes them; channels stay channels here.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from anyshot_jax.nets.norm import BatchNorm
from anyshot_jax.ops.distance import unit


class Encoder(nn.Module):
    """Residual maps into vectors of length 1 without negative numbers: cosines are 0..1.

    Call: x [..., N, h, w, D] float -> [..., N, features]. Axes before N share statistics.
    """

    widths: tuple[int, ...] = (256, 128)
    features: int = 128

    @nn.compact
    def __call__(self, x: Array, *, train: bool, transductive: bool = False) -> Array:
        x = x.astype(jnp.float32)
        for width in self.widths:
            x = nn.Dense(width, kernel_init=nn.initializers.he_normal())(x)  # 1x1 convolution
            x = nn.relu(BatchNorm()(x, train=train, transductive=transductive))
        x = nn.Dense(self.features)(x.reshape(*x.shape[:-3], -1))
        return unit(nn.relu(x))


Net = Encoder
