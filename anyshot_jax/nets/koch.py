"""The twin of Koch's Siamese network for drawings of 105x105 pixels.

Koch, Zemel, Salakhutdinov, "Siamese neural networks for one-shot image recognition", ICML deep
learning workshop 2015, figure 4 and section 3.2.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from anyshot_jax.nets.conv import Conv, compute_dtype
from anyshot_jax.nets.pool import max_pool
from anyshot_jax.types import InputError


class Koch(nn.Module):
    """Four convolutions without padding (10x10, 7x7, 4x4, 4x4), pooled but for the last; a dense.

    Weights start from normal distributions: kernels 0 +- 0.01, the dense layer's 0 +- 0.2, biases
    0.5 +- 0.01. The dense layer's sigmoid is left to config.method.squash.

    Call: x [..., N, H, W, C]; uint8 0..255 is scaled to 0..1 here; H and W >= 85.
    Returns [..., N, dense].
    """

    features: tuple[int, ...] = (64, 128, 128, 256)
    dense: int = 4096
    compute_dtype: str = ''  # bfloat16 (for accelerators); '': float32, or the input's

    @nn.compact
    def __call__(self, x: Array, *, train: bool, transductive: bool = False) -> Array:
        del train, transductive  # no batch statistics here
        if min(x.shape[-3:-1]) < 85:
            raise InputError(
                f'nets/koch.py needs images of 85x85 or more, got {x.shape[-3:-1]}: set '
                "config.data.size=105, or use config.net.name='conv4'"
            )
        if x.dtype == jnp.uint8:
            x = x.astype(jnp.float32) / 255
        given = x.dtype
        x = x.astype(compute_dtype(self.compute_dtype, given))
        small = nn.initializers.normal(0.01)
        half = lambda key, shape, dtype: 0.5 + small(key, shape, dtype)
        for i, (width, side) in enumerate(zip(self.features, (10, 7, 4, 4), strict=True), 1):
            conv = Conv(width, (side, side), padding='VALID', use_bias=False, kernel_init=small,
                        name=f'conv{i}')  # fmt: skip
            bias = self.param(f'bias{i}', half, (width,), jnp.float32)
            x = nn.relu(conv(x) + bias.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,)))
            x = max_pool(x) if i < len(self.features) else x
        x = x.reshape(*x.shape[:-3], -1)
        wide = nn.initializers.normal(0.2)
        x = nn.Dense(self.dense, kernel_init=wide, bias_init=half, dtype=x.dtype, name='dense')(x)
        return x.astype(given)


Net = Koch
