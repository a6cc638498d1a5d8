"""The text towers of CLIP and SigLIP, for inference: texts into the space of their images.

Radford et al., "Learning transferable visual models from natural language supervision", 2021,
section 2.4; Zhai et al., "Sigmoid loss for language image pre-training", 2023; Tschannen et al.,
"SigLIP 2", 2025. Tokens come from `encoders.tokens`.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from anyshot_jax.encoders.transformer import Layer, dense, layer_params, layer_shapes, norm
from anyshot_jax.encoders.vit import ACTIVATIONS
from anyshot_jax.encoders.weights import check_names
from anyshot_jax.types import InputError


class TextTower(nn.Module):
    """A transformer over tokens; one token's last state, normalised and projected.

    Fields; the defaults are those of CLIP's ViT-B:
      end_token: a token sees those before it, and the first end token is read; what follows has no
        effect, so any T that holds it gives the same. A row without one is read at its first
        token. Negative: all see all, and the last of exactly `context` tokens is read (SigLIP).
      bias: of the projection.
    Args of the call:
      tokens: [N, T] int32, T <= context.
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
    activation: str = 'quick_gelu'
    eps: float = 1e-5
    bias: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        t, causal = tokens.shape[1], self.end_token >= 0
        if t > self.context or (t < self.context and not causal):
            upto = 'up to ' if causal else ''
            raise InputError(f'this text tower takes {upto}{self.context} tokens, got {t}')
        init = nn.initializers.normal(0.02)
        table = self.param('tokens', init, (self.vocabulary, self.width), jnp.float32)
        place = self.param('position', init, (self.context, self.width), jnp.float32)
        x = (table[tokens] + place[None, :t]).astype(self.dtype)
        mask = jnp.tril(jnp.ones((1, 1, t, t), bool)) if causal else None
        for i in range(self.layers):
            layer = Layer(
                self.num_heads, self.hidden, ACTIVATIONS[self.activation], norm_first=True,
                eps=self.eps, name=f'layer_{i}',
            )  # fmt: skip
            x = layer(x, mask)
        end = jnp.argmax(tokens == self.end_token, 1) if causal else jnp.full(len(tokens), t - 1)
        x = jnp.take_along_axis(x, end[:, None, None], 1)[:, 0]
        x = nn.LayerNorm(self.eps, dtype=x.dtype, name='norm_out')(x)
        return nn.Dense(self.features, use_bias=self.bias, dtype=x.dtype, name='project')(x)


SIGLIP: dict[str, Any] = {
    **{'context': 64, 'width': 768, 'num_heads': 12, 'hidden': 3072, 'features': 768},
    **{'end_token': -1, 'activation': 'gelu_tanh', 'eps': 1e-6, 'bias': True},
}


def shapes(tower: TextTower) -> dict[str, tuple[int, ...]]:
    """Shapes of the tower's tensors by transformers' names."""
    embed, width = 'text_model.embeddings', tower.width
    last, project = 'text_model.final_layer_norm', _project(tower)
    wanted: dict[str, tuple[int, ...]] = {
        f'{project}.weight': (tower.features, width),
        f'{last}.weight': (width,),
        f'{last}.bias': (width,),
        f'{embed}.token_embedding.weight': (tower.vocabulary, width),
        f'{embed}.position_embedding.weight': (tower.context, width),
    }
    if tower.bias:
        wanted[f'{project}.bias'] = (tower.features,)
    for layer in _layers(tower):
        wanted |= layer_shapes(layer, width, tower.hidden)
    return wanted


def convert(tensors: Mapping[str, np.ndarray], tower: TextTower) -> dict[str, Any]:
    """Parameters of a tower from the state dict of transformers' CLIPModel or SiglipModel.

    Args:
      tensors: 'text_model.*' and CLIP's 'text_projection.weight'; the tower of images may be there
        and is left out. The authors' names: `authors_names.to_transformers` first.
    Returns:
      {'params': ...} for `tower.apply`, NumPy arrays in float32.
    Raises:
      InputError: a tensor is missing, unexpected or of another shape; names it.
    """
    embed, last = 'text_model.embeddings', 'text_model.final_layer_norm'
    ignore = r'(vision_model|visual_projection)\..*|logit_(scale|bias)'
    ignore += rf'|{re.escape(embed)}\.position_ids'
    check_names(tensors, shapes(tower), what='a text tower', ignore=ignore)
    params: dict[str, Any] = {
        'tokens': np.asarray(tensors[f'{embed}.token_embedding.weight'], np.float32),
        'position': np.asarray(tensors[f'{embed}.position_embedding.weight'], np.float32),
        'norm_out': norm(tensors, last),
        'project': dense(tensors, _project(tower)),
    }
    for i, layer in enumerate(_layers(tower)):
        params[f'layer_{i}'] = layer_params(tensors, layer)
    return {'params': params}


def scale_of(tensors: Mapping[str, np.ndarray]) -> float:
    """Factor of the cosines of images and texts in training; 0 where no tensor says it."""
    for name in ('logit_scale', 'params/t'):
        if name in tensors and np.size(tensors[name]) == 1:
            return math.exp(min(float(np.reshape(tensors[name], ())), 7.0))
    return 0.0


def _project(tower: TextTower) -> str:
    return 'text_model.head' if tower.bias else 'text_projection'


def _layers(tower: TextTower) -> list[dict[str, str]]:
    return [_layer_names(f'text_model.encoder.layers.{i}') for i in range(tower.layers)]


def _layer_names(prefix: str) -> dict[str, str]:
    return {
        **{k: f'{prefix}.self_attn.{k[0]}_proj' for k in ('query', 'key', 'value')},
        'out': f'{prefix}.self_attn.out_proj',
        'norm1': f'{prefix}.layer_norm1',
        'up': f'{prefix}.mlp.fc1',
        'down': f'{prefix}.mlp.fc2',
        'norm2': f'{prefix}.layer_norm2',
    }
