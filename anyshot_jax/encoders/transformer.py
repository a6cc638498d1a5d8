"""The transformer layer that the frozen text and image encoders share.

Vaswani et al., "Attention is all you need", 2017, section 3.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

PARTS = ('query', 'key', 'value', 'out', 'norm1', 'up', 'down', 'norm2')


class Attention(nn.Module):
    """Multi-head self-attention.

    Args of the call:
      x: [N, T, D], D divisible by num_heads; it computes in the dtype of x, the softmax in float32.
      mask: bool, broadcastable to [N, heads, T, T] (query, key) with four axes; False is not seen.
        A query that sees nothing attends to all alike.
    Returns:
      [N, T, D].
    """

    num_heads: int

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None) -> Array:
        n, t, d = x.shape
        qkv = nn.Dense(3 * d, dtype=x.dtype, name='qkv')(x)
        q, k, v = jnp.moveaxis(qkv.reshape(n, t, 3, self.num_heads, -1), 2, 0)
        score = jnp.einsum('nqhd,nkhd->nhqk', q, k, preferred_element_type=jnp.float32)
        score = score * (d // self.num_heads) ** -0.5
        if mask is not None:
            score = jnp.where(mask, score, jnp.finfo(score.dtype).min)
        y = jnp.einsum('nhqk,nkhd->nqhd', nn.softmax(score).astype(x.dtype), v)
        return nn.Dense(d, dtype=x.dtype, name='out')(y.reshape(n, t, d))


class Layer(nn.Module):
    """Self-attention and a two-layer perceptron, each with residual and layer norm.

    norm_first: x + f(norm(x)), else norm(x + f(x)) as in the paper. Call: as `Attention`.
    """

    num_heads: int
    hidden: int
    activation: Callable[[Array], Array]
    norm_first: bool
    eps: float

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None) -> Array:
        attention = Attention(self.num_heads, name='attention')
        up = nn.Dense(self.hidden, dtype=x.dtype, name='up')
        down = nn.Dense(x.shape[-1], dtype=x.dtype, name='down')
        norm1 = nn.LayerNorm(self.eps, dtype=x.dtype, name='norm1')
        norm2 = nn.LayerNorm(self.eps, dtype=x.dtype, name='norm2')
        if self.norm_first:
            x = x + attention(norm1(x), mask)
            return x + down(self.activation(up(norm2(x))))
        x = norm1(x + attention(x, mask))
        return norm2(x + down(self.activation(up(x))))


def layer_shapes(names: Mapping[str, str], width: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a layer's tensors in the original, [out, in] as PyTorch keeps them.

    Args:
      names: the original's name of each of PARTS, without '.weight' and '.bias'.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for part, name in names.items():
        out, into = {'up': (hidden, width), 'down': (width, hidden)}.get(part, (width, width))
        shapes[f'{name}.weight'] = (width,) if part.startswith('norm') else (out, into)
        shapes[f'{name}.bias'] = (out,)
    return shapes


def layer_params(tensors: Mapping[str, np.ndarray], names: Mapping[str, str]) -> dict[str, Any]:
    """Parameters of `Layer` from the original's tensors; names as in `layer_shapes`."""
    parts = {part: dense(tensors, name) for part, name in names.items() if part[:4] != 'norm'}
    three = [parts.pop(part) for part in ('query', 'key', 'value')]
    qkv = {k: np.concatenate([p[k] for p in three], -1) for k in ('kernel', 'bias')}
    norms = {part: norm(tensors, names[part]) for part in ('norm1', 'norm2')}
    return {'attention': {'qkv': qkv, 'out': parts.pop('out')}, **parts, **norms}


def dense(tensors: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Parameters of `nn.Dense` from PyTorch's: weight [O, I] turned round, bias if there is one."""
    kernel = np.ascontiguousarray(np.asarray(tensors[f'{name}.weight'], np.float32).T)
    bias = {
        k: np.asarray(tensors[f'{name}.{k}'], np.float32)
        for k in ('bias',)
        if f'{name}.{k}' in tensors
    }
    return {'kernel': kernel} | bias


def norm(tensors: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """Parameters of `nn.LayerNorm` from PyTorch's."""
    pairs = {'scale': 'weight', 'bias': 'bias'}
    return {k: np.asarray(tensors[f'{name}.{v}'], np.float32) for k, v in pairs.items()}
