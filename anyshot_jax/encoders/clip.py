"""CLIP's two towers: images and texts into one space, for inference.

Radford et al., "Learning transferable visual models from natural language supervision", 2021,
section 2.4; Dosovitskiy et al., "An image is worth 16x16 words", 2021, for the image tower.
The defaults are those of ViT-B/32. Tokens come from `anyshot_jax.tokens.clip_tokenizer`.
"""

import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from anyshot_jax.encoders.transformer import Layer, dense, layer_params, layer_shapes, norm
from anyshot_jax.encoders.weights import check_names
from anyshot_jax.types import InputError

EPS = 1e-5  # of layer norm


def quick_gelu(x: Array) -> Array:
    """x * sigmoid(1.702 x), the approximation of GELU that CLIP was trained with."""
    return x * nn.sigmoid(1.702 * x)


class ImageTower(nn.Module):
    """Vision transformer; the class token's last state, normalised and projected.

    Args of the call:
      x: images [N, size, size, 3], scaled and normalised, float32 or bfloat16 (it computes in
        that).
    Returns:
      [N, features], not of unit length.
    """

    size: int = 224
    patch: int = 32
    width: int = 768
    layers: int = 12
    num_heads: int = 12
    hidden: int = 3072
    features: int = 512

    @nn.compact
    def __call__(self, x: Array) -> Array:
        n, h, w, c = x.shape
        if (h, w) != (self.size, self.size):
            raise InputError(f'this image tower takes {self.size}x{self.size} pixels, got {h}x{w}')
        p, side = self.patch, self.size // self.patch
        x = x.reshape(n, side, p, side, p, c).swapaxes(2, 3).reshape(n, side * side, p * p * c)
        x = nn.Dense(self.width, use_bias=False, dtype=x.dtype, name='patches')(x)
        init = nn.initializers.normal(0.02)
        first = self.param('class', init, (self.width,), jnp.float32).astype(x.dtype)
        place = self.param('position', init, (side * side + 1, self.width), jnp.float32)
        first = jnp.broadcast_to(first, (n, 1, self.width))
        x = jnp.concatenate([first, x], 1) + place.astype(x.dtype)[None]
        x = nn.LayerNorm(EPS, dtype=x.dtype, name='norm_in')(x)
        x = _layers(self, x, None)
        x = nn.LayerNorm(EPS, dtype=x.dtype, name='norm_out')(x[:, 0])
        return nn.Dense(self.features, use_bias=False, dtype=x.dtype, name='project')(x)


class TextTower(nn.Module):
    """Causal transformer; the end token's last state, normalised and projected.

    Args of the call:
      tokens: [N, T] int32, T <= context. What follows the first end token has no effect, so any T
        that holds it gives the same. A row without one is read at its first token.
    Returns:
      [N, features] of `dtype`, not of unit length.
    """

    vocabulary: int = 49408
    context: int = 77
    width: int = 512
    layers: int = 12
    num_heads: int = 8
    hidden: int = 2048
    features: int = 512
    end_token: int = 49407
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        t = tokens.shape[1]
        if t > self.context:
            raise InputError(f'this text tower takes up to {self.context} tokens, got {t}')
        init = nn.initializers.normal(0.02)
        table = self.param('tokens', init, (self.vocabulary, self.width), jnp.float32)
        place = self.param('position', init, (self.context, self.width), jnp.float32)
        x = (table[tokens] + place[None, :t]).astype(self.dtype)
        x = _layers(self, x, jnp.tril(jnp.ones((1, 1, t, t), bool)))
        end = jnp.argmax(tokens == self.end_token, 1)
        x = jnp.take_along_axis(x, end[:, None, None], 1)[:, 0]
        x = nn.LayerNorm(EPS, dtype=x.dtype, name='norm_out')(x)
        return nn.Dense(self.features, use_bias=False, dtype=x.dtype, name='project')(x)


def _layers(tower: ImageTower | TextTower, x: Array, mask: Array | None) -> Array:
    for i in range(tower.layers):
        x = Layer(
            tower.num_heads, tower.hidden, quick_gelu, norm_first=True, eps=EPS, name=f'layer_{i}'
        )(x, mask)
    return x


def convert(tensors: Mapping[str, np.ndarray], tower: ImageTower | TextTower) -> dict[str, Any]:
    """Parameters of one tower from the state dict of Hugging Face's CLIPModel.

    Args:
      tensors: 'vision_model.*' and 'visual_projection.weight' for images, 'text_model.*' and
        'text_projection.weight' for texts; the other tower's may be there and are left out.
    Returns:
      {'params': ...} for `tower.apply`, NumPy arrays in float32.
    Raises:
      InputError: a tensor is missing, unexpected or of another shape; names it.
    """
    image = isinstance(tower, ImageTower)
    model, project = ('vision', 'visual') if image else ('text', 'text')
    ours, width = f'{model}_model', tower.width
    embed, out = f'{ours}.embeddings', 'post_layernorm' if image else 'final_layer_norm'
    wanted: dict[str, tuple[int, ...]] = {
        f'{project}_projection.weight': (tower.features, width),
        f'{ours}.{out}.weight': (width,),
        f'{ours}.{out}.bias': (width,),
    }
    if isinstance(tower, ImageTower):
        p, side = tower.patch, tower.size // tower.patch
        wanted |= {
            f'{embed}.class_embedding': (width,),
            f'{embed}.patch_embedding.weight': (width, 3, p, p),
            f'{embed}.position_embedding.weight': (side * side + 1, width),
            f'{ours}.pre_layrnorm.weight': (width,),  # so spelt in the original
            f'{ours}.pre_layrnorm.bias': (width,),
        }
    else:
        wanted |= {
            f'{embed}.token_embedding.weight': (tower.vocabulary, width),
            f'{embed}.position_embedding.weight': (tower.context, width),
        }
    names = [_layer_names(f'{ours}.encoder.layers.{i}') for i in range(tower.layers)]
    for layer in names:
        wanted |= layer_shapes(layer, width, tower.hidden)
    theirs = r'text_(model|projection)\.' if image else r'(vision_model|visual_projection)\.'
    ignore = rf'{theirs}.*|logit_scale|{re.escape(embed)}\.position_ids'
    check_names(tensors, wanted, what=f"CLIP's {model} tower", ignore=ignore)

    params: dict[str, Any] = {
        'position': np.asarray(tensors[f'{embed}.position_embedding.weight'], np.float32),
        'norm_out': norm(tensors, f'{ours}.{out}'),
        'project': dense(tensors, f'{project}_projection'),
    }
    if image:
        kernel = np.asarray(tensors[f'{embed}.patch_embedding.weight'], np.float32)
        kernel = kernel.transpose(2, 3, 1, 0).reshape(-1, width)  # [p * p * 3, D]
        params['class'] = np.asarray(tensors[f'{embed}.class_embedding'], np.float32)
        params['patches'] = {'kernel': kernel}
        params['norm_in'] = norm(tensors, f'{ours}.pre_layrnorm')
    else:
        params['tokens'] = np.asarray(tensors[f'{embed}.token_embedding.weight'], np.float32)
    params |= {f'layer_{i}': layer_params(tensors, layer) for i, layer in enumerate(names)}
    return {'params': params}


def _layer_names(prefix: str) -> dict[str, str]:
    return {
        **{k: f'{prefix}.self_attn.{k[0]}_proj' for k in ('query', 'key', 'value')},
        'out': f'{prefix}.self_attn.out_proj',
        'norm1': f'{prefix}.layer_norm1',
        'up': f'{prefix}.mlp.fc1',
        'down': f'{prefix}.mlp.fc2',
        'norm2': f'{prefix}.layer_norm2',
    }
