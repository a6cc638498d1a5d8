"""Conv4, the four-block convolutional embedding of few-shot learning.

Vinyals et al., Matching Networks, 2016, section 4.1; Snell et al., Prototypical Networks, 2017.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from anyshot_jax.nets.conv import Conv
from anyshot_jax.nets.norm import BatchNorm


class Conv4(nn.Module):
    """Blocks of 3x3 convolution, batch norm, ReLU and (where `pools` says so) 2x2 max-pooling.

    Args of the call:
      x: [..., N, H, W, C]; uint8 0..255 is scaled to 0..1 here, floats are taken as they are.
        Axes before N are tasks with batch statistics of their own.
      train, transductive: see BatchNorm.
    Returns:
      [..., N, D] (28x28 -> 64, 84x84 -> 1600 with 64 features), or [..., N, H', W', features]
      if not `flatten`.
    """

    features: int = 64
    blocks: int = 4
    pools: tuple[bool, ...] = (True, True, True, True)
    padding: tuple[str, ...] = ('SAME', 'SAME', 'SAME', 'SAME')
    flatten: bool = True

    @nn.compact
    def __call__(self, x: Array, *, train: bool, transductive: bool = False) -> Array:
        if not self.blocks == len(self.pools) == len(self.padding):
            raise ValueError(f'{self.blocks} blocks, but pools {self.pools}, {self.padding}')
        if x.dtype == jnp.uint8:
            x = x.astype(jnp.float32) / 255
        for i in range(self.blocks):
            # No bias: the normalisation after it would take it away again.
            conv = Conv(self.features, padding=self.padding[i], use_bias=False, name=f'conv{i + 1}')
            x, moments = conv(x, moments=True)
            norm = BatchNorm(name=f'norm{i + 1}')
            x = nn.relu(
                norm(x, train=train, transductive=transductive, pool=self.pools[i], moments=moments)
            )
        return x.reshape(*x.shape[:-3], -1) if self.flatten else x


Net = Conv4
