"""Vision transformers for inference: DINOv2, DINOv3, SigLIP and CLIP are one net, sizes as data.

Dosovitskiy et al., "An image is worth 16x16 words", 2021. Oquab et al., "DINOv2", 2023; Darcet et
al., "Vision transformers need registers", 2023; Siméoni et al., "DINOv3", 2025. Radford et al.,
"Learning transferable visual models from natural language supervision", 2021 (CLIP). Zhai et al.,
"Sigmoid loss for language image pre-training", 2023 (SigLIP, its head by attention: Zhai et al.,
"Scaling vision transformers", 2022).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from anyshot_jax.encoders.positions import rotary_angles
from anyshot_jax.encoders.transformer import Layer
from anyshot_jax.types import InputError


def quick_gelu(x: Array) -> Array:
    """x * sigmoid(1.702 x), the approximation of GELU that CLIP was trained with."""
    return x * nn.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    'gelu': partial(nn.gelu, approximate=False),
    'gelu_tanh': partial(nn.gelu, approximate=True),
    'quick_gelu': quick_gelu,
}


class VisionTransformer(nn.Module):
    """Images into features and a map of their patches.

    Fields:
      size: pixels of a side, a multiple of patch. features: size of a last projection; 0: none.
      class_token: its last state is the features; else patches are pooled by attention.
      registers: tokens that are neither. rotary: positions turn queries and keys (DINOv3), else
      they are learned and added. norm_in: before the first layer (CLIP; patches have no bias then).
    Args of the call:
      x: images [N, size, size, 3], scaled and normalised, float32 or bfloat16 (it computes in
        that).
    Returns:
      {'features': [N, features or width], 'stride{patch}': [N, size / patch, size / patch, width],
      the patches' last states after the last norm}, not of unit length.
    """

    size: int = 224
    patch: int = 32
    width: int = 768
    layers: int = 12
    num_heads: int = 12
    hidden: int = 3072
    features: int = 0
    class_token: bool = True
    registers: int = 0
    rotary: bool = False
    norm_in: bool = False
    layer_scale: bool = False
    activation: str = 'gelu'
    eps: float = 1e-6

    @nn.compact
    def __call__(self, x: Array) -> dict[str, Array]:
        n, h, w, c = x.shape
        if (h, w) != (self.size, self.size):
            raise InputError(f'this image tower takes {self.size}x{self.size} pixels, got {h}x{w}')
        p, side = self.patch, self.size // self.patch
        x = x.reshape(n, side, p, side, p, c).swapaxes(2, 3).reshape(n, side * side, p * p * c)
        x = nn.Dense(self.width, use_bias=not self.norm_in, dtype=x.dtype, name='patches')(x)
        first = int(self.class_token)
        x = jnp.concatenate([self._tokens('class', first, n, x.dtype), x], 1)
        angles = None
        if self.rotary:
            angles = jnp.asarray(rotary_angles(side, side, self.width // self.num_heads))
        else:
            shape = side * side + first, self.width
            x = x + self._learned('position', shape).astype(x.dtype)[None]
        if self.registers:
            more = self._tokens('registers', self.registers, n, x.dtype)
            x = jnp.concatenate([x[:, :first], more, x[:, first:]], 1)
        if self.norm_in:
            x = nn.LayerNorm(self.eps, dtype=x.dtype, name='norm_in')(x)
        for i in range(self.layers):
            layer = Layer(
                self.num_heads, self.hidden, ACTIVATIONS[self.activation], norm_first=True,
                eps=self.eps, layer_scale=self.layer_scale, name=f'layer_{i}',
            )  # fmt: skip
            x = layer(x, None, angles)
        x = nn.LayerNorm(self.eps, dtype=x.dtype, name='norm_out')(x)
        patches = x[:, first + self.registers :]
        if self.class_token:
            pooled = x[:, 0]
        else:
            pooled = AttentionPool(
                self.num_heads, self.hidden, ACTIVATIONS[self.activation], self.eps, name='pool'
            )(patches)
        if self.features:
            project = nn.Dense(self.features, use_bias=False, dtype=x.dtype, name='project')
            pooled = project(pooled)
        return {'features': pooled, f'stride{p}': patches.reshape(n, side, side, -1)}

    def _learned(self, name: str, shape: tuple[int, ...]) -> Array:
        return self.param(name, nn.initializers.normal(0.02), shape, jnp.float32)

    def _tokens(self, name: str, num: int, n: int, dtype: Any) -> Array:
        """[n, num, width], the same for every image; the class token's parameter is [width]."""
        if not num:
            return jnp.zeros((n, 0, self.width), dtype)
        shape = (self.width,) if name == 'class' else (num, self.width)
        tokens = self._learned(name, shape).astype(dtype).reshape(num, self.width)
        return jnp.broadcast_to(tokens, (n, num, self.width))


class AttentionPool(nn.Module):
    """One learned query attends to all tokens, then a perceptron: [N, T, D] -> [N, D].

    Call: as `Attention`, without a mask.
    """

    num_heads: int
    hidden: int
    activation: Callable[[Array], Array]
    eps: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        n, t, d = x.shape
        probe = self.param('probe', nn.initializers.normal(0.02), (d,), jnp.float32)
        dense = partial(nn.Dense, dtype=x.dtype)
        q = dense(d, name='query')(probe.astype(x.dtype)[None])
        kv = dense(2 * d, name='key_value')(x).reshape(n, t, 2, self.num_heads, -1)
        q = q.reshape(self.num_heads, -1)
        score = jnp.einsum('hd,nkhd->nhk', q, kv[:, :, 0], preferred_element_type=jnp.float32)
        share = nn.softmax(score * (d // self.num_heads) ** -0.5).astype(x.dtype)
        y = jnp.einsum('nhk,nkhd->nhd', share, kv[:, :, 1]).reshape(n, d)
        y = dense(d, name='out')(y)
        z = nn.LayerNorm(self.eps, dtype=x.dtype, name='norm')(y)
        z = self.activation(dense(self.hidden, name='up')(z))
        return y + dense(d, name='down')(z)
