"""ResNet-12, the larger standard embedding of few-shot learning.

Lee et al., "Meta-learning with differentiable convex optimization", CVPR 2019, section 4.1 (without
DropBlock).
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from anyshot_jax.nets.conv import Conv, compute_dtype
from anyshot_jax.nets.norm import BatchNorm
from anyshot_jax.nets.pool import max_pool


class ResNet12(nn.Module):
    """Four residual blocks of three 3x3 convolutions, each followed by 2x2 max-pooling.

    Call: x [..., N, H, W, C]; uint8 0..255 is scaled to 0..1 here. H and W >= 16.
    Returns [..., N, features[-1]] (the mean over positions), or the map if not `flatten`.
    """

    features: tuple[int, ...] = (64, 160, 320, 640)
    flatten: bool = True
    compute_dtype: str = ''  # bfloat16 (for accelerators); '': float32, or the input's

    @nn.compact
    def __call__(self, x: Array, *, train: bool, transductive: bool = False) -> Array:
        if x.dtype == jnp.uint8:
            x = x.astype(jnp.float32) / 255
        given = x.dtype
        x = x.astype(compute_dtype(self.compute_dtype, given))

        def block(x, width, name):
            y = x
            for i in range(3):
                y = Conv(width, use_bias=False, name=f'{name}_conv{i + 1}')(y)
                norm = BatchNorm(name=f'{name}_norm{i + 1}')
                y = norm(y, train=train, transductive=transductive)
                y = nn.leaky_relu(y, 0.1) if i < 2 else y
            short = Conv(width, kernel_size=(1, 1), use_bias=False, name=f'{name}_short')(x)
            norm = BatchNorm(name=f'{name}_short_norm')
            short = norm(short, train=train, transductive=transductive)
            return max_pool(nn.leaky_relu(y + short, 0.1))

        for i, width in enumerate(self.features):
            x = block(x, width, f'block{i + 1}')
        x = x.astype(given)
        return x.mean((-3, -2)) if self.flatten else x


Net = ResNet12
