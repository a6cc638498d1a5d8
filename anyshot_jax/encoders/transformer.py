"""The transformer layer that the frozen text and image encoders share.

Vaswani et al., "Attention is all you need", 2017, section 3. Layer scale: Touvron et al., "Going
deeper with image transformers", 2021. Rotary positions: Su et al., "RoFormer", 2021.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

PARTS = ('query', 'key', 'value', 'out', 'norm1', 'up', 'down', 'norm2', 'scale1', 'scale2')


class Attention(nn.Module):
    """Multi-head self-attention.

    Args of the call:
      x: [N, T, D], D divisible by num_heads; it computes in the dtype of x, the softmax in float32.
      mask: bool, broadcastable to [N, heads, T, T] (query, key) with four axes; False is not seen.
        A query that sees nothing attends to all alike.
      angles: [P, D / num_heads / 2], the rotary positions of the last P tokens; those before stay
        where they are.
    Returns:
      [N, T, D].
    """

    num_heads: int

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None, angles: Array | None = None) -> Array:
        n, t, d = x.shape
        qkv = nn.Dense(3 * d, dtype=x.dtype, name='qkv')(x)
        q, k, v = jnp.moveaxis(qkv.reshape(n, t, 3, self.num_heads, -1), 2, 0)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        score = jnp.einsum('nqhd,nkhd->nhqk', q, k, preferred_element_type=jnp.float32)
        score = score * (d // self.num_heads) ** -0.5
        if mask is not None:
            score = jnp.where(mask, score, jnp.finfo(score.dtype).min)
        y = jnp.einsum('nhqk,nkhd->nqhd', nn.softmax(score).astype(x.dtype), v)
        return nn.Dense(d, dtype=x.dtype, name='out')(y.reshape(n, t, d))


def rotate(x: Array, angles: Array) -> Array:
    """x [N, T, heads, D], its last P tokens turned by angles [P, D / 2]: pairs are i, i + D / 2."""
    first, last = x[:, : -len(angles)], x[:, -len(angles) :].astype(jnp.float32)
    cos, sin = jnp.cos(angles)[None, :, None], jnp.sin(angles)[None, :, None]
    a, b = jnp.split(last, 2, -1)
    turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)
    return jnp.concatenate([first, turned.astype(x.dtype)], 1)


class Layer(nn.Module):
    """Self-attention and a two-layer perceptron, each with residual and layer norm.

    norm_first: x + f(norm(x)), else norm(x + f(x)) as in the paper. layer_scale: f's channels are
    scaled before they are added (norm_first only). Call: as `Attention`.
    """

    num_heads: int
    hidden: int
    activation: Callable[[Array], Array]
    norm_first: bool
    eps: float
    layer_scale: bool = False

    @nn.compact
    def __call__(self, x: Array, mask: Array | None = None, angles: Array | None = None) -> Array:
        attention = Attention(self.num_heads, name='attention')
        up = nn.Dense(self.hidden, dtype=x.dtype, name='up')
        down = nn.Dense(x.shape[-1], dtype=x.dtype, name='down')
        norm1 = nn.LayerNorm(self.eps, dtype=x.dtype, name='norm1')
        norm2 = nn.LayerNorm(self.eps, dtype=x.dtype, name='norm2')
        if self.norm_first:
            x = x + self._scaled('scale1', attention(norm1(x), mask, angles))
            return x + self._scaled('scale2', down(self.activation(up(norm2(x)))))
        x = norm1(x + attention(x, mask))
        return norm2(x + down(self.activation(up(x))))

    def _scaled(self, name: str, x: Array) -> Array:
        if not self.layer_scale:
            return x
        scale = self.param(name, nn.initializers.ones, x.shape[-1:], jnp.float32)
        return x * scale.astype(x.dtype)[None, None]


def layer_shapes(names: Mapping[str, str], width: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a layer's tensors in the original, [out, in] as PyTorch keeps them.

    Args:
      names: the original's name of each of PARTS that it has, without '.weight' and '.bias'; of
        scale1 and scale2 the whole name.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for part, name in names.items():
        if part.startswith('scale'):
            shapes[name] = (width,)
            continue
        out, into = {'up': (hidden, width), 'down': (width, hidden)}.get(part, (width, width))
        shapes[f'{name}.weight'] = (width,) if part.startswith('norm') else (out, into)
        shapes[f'{name}.bias'] = (out,)
    return shapes


def layer_params(tensors: Mapping[str, np.ndarray], names: Mapping[str, str]) -> dict[str, Any]:
    """Parameters of `Layer` from the original's tensors; names as in `layer_shapes`.

    A query, key or value without a bias gets one of zeros.
    """
    parts = {part: dense(tensors, names[part]) for part in ('out', 'up', 'down')}
    three = [dense(tensors, names[part]) for part in ('query', 'key', 'value')]
    kernel = np.concatenate([p['kernel'] for p in three], -1)
    bias = [p.get('bias', np.zeros(p['kernel'].shape[1], np.float32)) for p in three]
    qkv = {'kernel': kernel, 'bias': np.concatenate(bias)}
    norms = {part: norm(tensors, names[part]) for part in ('norm1', 'norm2')}
    scales = {k: np.asarray(tensors[names[k]], np.float32) for k in names if k[:5] == 'scale'}
    return {'attention': {'qkv': qkv, 'out': parts.pop('out')}, **parts, **norms, **scales}


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
