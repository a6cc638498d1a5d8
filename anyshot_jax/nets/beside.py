"""Frozen features with a learnt linear map of them beside: what is known stays, some is added."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from anyshot_jax.ops.distance import unit


class Beside(nn.Module):
    """(x, x W), each of length 1, together of length 1.

    Training on synthetic classes finds directions that separate those; the features themselves are
    kept beside them, since real classes may need other directions.

    Call: x [..., N, D] float -> [..., N, D + features]; 0 stays 0.
    """

    features: int = 128

    @nn.compact
    def __call__(self, x: Array, *, train: bool, transductive: bool = False) -> Array:
        del train, transductive  # no batch statistics here
        x = unit(x)
        w = self.param('kernel', nn.initializers.orthogonal(), (x.shape[-1], self.features))
        return jnp.concatenate([x, unit(x @ w)], -1) * 2**-0.5


Net = Beside
