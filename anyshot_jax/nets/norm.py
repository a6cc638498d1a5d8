"""Batch normalisation over the images of one episode, in scale-and-shift form.

Ioffe and Szegedy, Batch Normalization, 2015, algorithm 1.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

_AXES = (-4, -3, -2)  # images, height, width; axes before them are tasks


def batch_norm(
    x: Array,
    scale: Array,
    bias: Array,
    mean: Array | None = None,
    var: Array | None = None,
    *,
    eps: float = 1e-5,
) -> tuple[Array, Array, Array]:
    """Normalise each channel, by the given statistics or by those of each task's own images.

    One pass over x: var = E[(x-s)^2] - (E[x-s])^2 with s the mean of the task's first image, so
    nothing cancels unless that image's mean lies many deviations from the others' (relative error
    of var about 1e-7 * (1 + (mean - s)^2 / var)); var is clamped at 0.

    Args:
      x: [..., N, H, W, C]; leading axes are tasks, each with its own statistics.
      scale, bias: [C].
      mean, var: [C], or None for the statistics of x.
      eps: added to the variance.
    Returns:
      y like x, and the mean and (biased) variance used: [..., C], or as given.
    """
    if x.ndim < 4:
        raise ValueError(f'batch_norm needs [..., N, H, W, C], got {x.shape}')
    if (mean is None) != (var is None):
        raise ValueError('give both mean and var, or neither')
    wide = jnp.promote_types(x.dtype, jnp.float32)
    scale, bias = _per_channel(scale, x.ndim, wide), _per_channel(bias, x.ndim, wide)
    if mean is None:
        first = x[..., :1, :, :, :].astype(wide)
        origin = lax.stop_gradient(first.mean(_AXES, keepdims=True))
        centred = x.astype(wide) - origin
        m = centred.mean(_AXES, keepdims=True)
        v = jnp.maximum((centred * centred).mean(_AXES, keepdims=True) - m * m, 0.0)
        used = (m + origin).squeeze(_AXES), v.squeeze(_AXES)
    else:
        origin, centred = 0.0, x.astype(wide)
        m, v = _per_channel(mean, x.ndim, wide), _per_channel(var, x.ndim, wide)
        used = mean, var
    a = scale * lax.rsqrt(v + eps)
    y = centred * a + (bias - m * a)
    return y.astype(x.dtype), *used


def _per_channel(p: Array, ndim: int, dtype: jnp.dtype) -> Array:
    return p.astype(dtype).reshape((1,) * (ndim - 1) + (-1,))


class BatchNorm(nn.Module):
    """Batch normalisation with running statistics in the collection `batch_stats`.

    train: statistics of x, and running <- momentum * running + (1 - momentum) * batch (averaged
    over tasks; biased variance). Else transductive: statistics of x, nothing kept, and
    `batch_stats` need not be given. Else inductive: the running statistics.
    """

    momentum: float = 0.9
    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: Array, *, train: bool, transductive: bool = False) -> Array:
        c = x.shape[-1]
        scale = self.param('scale', nn.initializers.ones, (c,), jnp.float32)
        bias = self.param('bias', nn.initializers.zeros, (c,), jnp.float32)
        if transductive and not train and not self.is_initializing():
            return batch_norm(x, scale, bias, eps=self.eps)[0]
        mean = self.variable('batch_stats', 'mean', jnp.zeros, (c,), jnp.float32)
        var = self.variable('batch_stats', 'var', jnp.ones, (c,), jnp.float32)
        if not (train or transductive):
            return batch_norm(x, scale, bias, mean.value, var.value, eps=self.eps)[0]
        y, m, v = batch_norm(x, scale, bias, eps=self.eps)
        if train and not self.is_initializing():
            for running, batch in ((mean, m), (var, v)):
                batch = lax.stop_gradient(batch.reshape(-1, c).mean(0))
                running.value = self.momentum * running.value + (1 - self.momentum) * batch
        return y
