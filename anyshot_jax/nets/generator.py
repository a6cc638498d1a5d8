"""The three nets of a contrastive generator of features."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from anyshot_jax.ops.distance import unit


def _dense(width: int, **kwargs) -> nn.Dense:
    return nn.Dense(width, kernel_init=nn.initializers.normal(0.02), **kwargs)


class Generator(nn.Module):
    """Features [N, features] of words [N, A] and noise [N, Z]."""

    features: int
    hidden: int = 512

    @nn.compact
    def __call__(self, words: Array, noise: Array) -> Array:
        h = _dense(self.hidden)(jnp.concatenate([words, noise], -1))
        return _dense(self.features)(nn.leaky_relu(h, 0.2))


class Critic(nn.Module):
    """Critic's score of features [N, D] for words [N, A]: [N], unbounded, large where real."""

    hidden: int = 512

    @nn.compact
    def __call__(self, x: Array, words: Array) -> Array:
        h = _dense(self.hidden)(jnp.concatenate([x, words], -1))
        return _dense(1, use_bias=False)(nn.leaky_relu(h, 0.2))[..., 0]  # a bias would cancel


class Embedding(nn.Module):
    """[N, D] -> [N, features] of length 1, where the contrasts are taken."""

    hidden: int = 512
    features: int = 128

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return unit(_dense(self.features)(nn.relu(_dense(self.hidden)(x))))
