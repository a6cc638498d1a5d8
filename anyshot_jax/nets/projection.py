"""A linear map of frozen features: what is learnt on top of an encoder where images are few."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from anyshot_jax.ops.distance import unit


class Projection(nn.Module):
    """Features to a power, of unit length, then one matrix, and `length`.

    The square root (power 0.5) evens out features after ReLU, of which few are large (Perronnin,
    Sanchez, Mensink, "Improving the Fisher kernel for large-scale image classification", ECCV 2010,
    section 3). The matrix is orthogonal at first, so that nothing is lost before training.

    Call: x [..., N, D] float -> [..., N, features].
    """

    features: int = 512
    power: float = 0.5
    length: float = 1.0

    @nn.compact
    def __call__(self, x: Array, *, train: bool, transductive: bool = False) -> Array:
        del transductive  # no batch statistics here
        x = unit(jnp.sign(x) * jnp.abs(x) ** self.power)
        w = self.param('kernel', nn.initializers.orthogonal(), (x.shape[-1], self.features))
        return self.length * unit(x @ w)


Net = Projection
