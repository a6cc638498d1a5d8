"""Multi-layer perceptron for feature vectors (or small images, flattened)."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array


class MLP(nn.Module):
    """Dense layers with ReLU between them.

    Call: x [..., N, D] float (uint8 images [..., N, H, W, C] are scaled to 0..1 and flattened)
    -> [..., N, features].
    """

    hidden: tuple[int, ...] = (256,)
    features: int = 128

    @nn.compact
    def __call__(self, x: Array, *, train: bool, transductive: bool = False) -> Array:
        del train, transductive  # no batch statistics here
        if x.dtype == jnp.uint8:
            x = x.reshape(*x.shape[:-3], -1).astype(jnp.float32) / 255
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.features)(x)


Net = MLP
