"""Batch normalisation over the images of one episode, in scale-and-shift form.

Ioffe and Szegedy, Batch Normalization, 2015, algorithm 1.
"""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

from anyshot_jax.target import on_cpu

_AXES = (-4, -3, -2)  # images, height, width; axes before them are tasks


def batch_norm(
    x: Array,
    scale: Array,
    bias: Array,
    mean: Array | None = None,
    var: Array | None = None,
    *,
    eps: float = 1e-5,
    pool: Callable[[Array, Array | None], Array] | None = None,
) -> tuple[Array, Array, Array]:
    """Normalise each channel, by the given statistics or by those of each task's own images.

    var = E[(x-s)^2] - (E[x-s])^2, clamped at 0. On a CPU one pass over x: s is the mean of the
    task's first image, so that nothing cancels unless it lies many deviations from the others'
    (relative error of var about 1e-7 * (1 + (mean - s)^2 / var)). On an accelerator two: s is the
    mean itself, for a TPU has the images of a batch side by side and would read them all for one.

    Args:
      x: [..., N, H, W, C]; leading axes are tasks, each with its own statistics.
      scale, bias: [C].
      mean, var: [C] or [..., C] as the leading axes of x, or None for the statistics of x; without
        var a mean is that of x, known already.
      eps: added to the variance.
      pool: as `max_pool`, from x and a sign [C] (None: all +1) to the pooled x: gives the pooled
        result. Pooling is done first, so that scale and shift see a quarter of the entries (where
        scale is negative the minimum of x gives the maximum of y, hence the sign).
    Returns:
      y like x, and the mean and (biased) variance used: [..., C], or as given.
    """
    if x.ndim < 4:
        raise ValueError(f'batch_norm needs [..., N, H, W, C], got {x.shape}')
    if mean is None and var is not None:
        raise ValueError('give mean with var')
    wide = jnp.promote_types(x.dtype, jnp.float32)
    scale, bias = _expand(scale, x.ndim, wide), _expand(bias, x.ndim, wide)
    sign = jnp.where(scale < 0, -1, 1).astype(x.dtype)
    flip = pool is not None and var is None and not on_cpu()
    if flip:  # at once, where x is made: an accelerator would write sign * x beside x
        x = x * sign
    if var is None or mean is None:
        first = on_cpu() and mean is None
        if mean is None:
            shown = (x[..., :1, :, :, :] if first else x).astype(wide).mean(_AXES, keepdims=True)
        else:
            shown = _expand(mean, x.ndim, wide) * (sign.astype(wide) if flip else 1)
        origin = lax.stop_gradient(shown)
        centred = x.astype(wide) - origin
        # The mean of what is centred by its own mean is 0, but has a derivative.
        m = centred.mean(_AXES, keepdims=True) if first else shown - origin
        v = jnp.maximum((centred * centred).mean(_AXES, keepdims=True) - m * m, 0.0)
        mean, var = (m + origin).squeeze(_AXES), v.squeeze(_AXES)
        if flip:
            mean = mean * sign.reshape(-1).astype(wide).reshape((1,) * (mean.ndim - 1) + (-1,))
    else:
        origin = jnp.zeros((1,) * x.ndim, wide)
        m, v = _expand(mean, x.ndim, wide), _expand(var, x.ndim, wide)
    a = scale * lax.rsqrt(v + eps)
    if flip and pool is not None:
        x, a = pool(x, None), a * sign.astype(wide)
    elif pool is not None:
        x = pool(x, sign.reshape(-1))
    y = (x.astype(wide) - origin) * a + (bias - m * a)
    return y.astype(x.dtype), mean, var


def _expand(p: Array, ndim: int, dtype: jnp.dtype) -> Array:
    """[C] or [..., C] -> [..., 1, 1, 1, C] with ndim axes."""
    lead = (1,) * (ndim - 4) if p.ndim == 1 else p.shape[:-1]
    return p.astype(dtype).reshape(*lead, 1, 1, 1, -1)


class BatchNorm(nn.Module):
    """Batch normalisation with running statistics in the collection `batch_stats`.

    train: statistics of x, and running <- momentum * running + (1 - momentum) * batch (averaged
    over tasks; biased variance). Else transductive: statistics of x, and `batch_stats` need not be
    given; nothing is kept, or if it is mutable those of x, with their derivatives. Else inductive:
    the running statistics.
    `pool` as in `batch_norm`; `moments` are mean and variance of x (or None), where they are known
    already (with both, x itself gives only its channels).
    """

    momentum: float = 0.9
    eps: float = 1e-5

    @nn.compact
    def __call__(
        self,
        x: Array,
        *,
        train: bool,
        transductive: bool = False,
        pool: Callable[[Array, Array | None], Array] | None = None,
        moments: tuple[Array, Array | None] | None = None,
    ) -> Array:
        c = x.shape[-1]
        scale = self.param('scale', nn.initializers.ones, (c,), jnp.float32)
        bias = self.param('bias', nn.initializers.zeros, (c,), jnp.float32)
        mean_x, var_x = moments or (None, None)
        if transductive and not train and not self.is_initializing():
            y, m, v = batch_norm(x, scale, bias, mean_x, var_x, eps=self.eps, pool=pool)
            if self.is_mutable_collection('batch_stats'):
                self.put_variable('batch_stats', 'mean', m)
                self.put_variable('batch_stats', 'var', v)
            return y
        mean = self.variable('batch_stats', 'mean', jnp.zeros, (c,), jnp.float32)
        var = self.variable('batch_stats', 'var', jnp.ones, (c,), jnp.float32)
        if not (train or transductive):
            running = mean.value, var.value
            return batch_norm(x, scale, bias, *running, eps=self.eps, pool=pool)[0]
        y, m, v = batch_norm(x, scale, bias, mean_x, var_x, eps=self.eps, pool=pool)
        if train and not self.is_initializing():
            for kept, batch in ((mean, m), (var, v)):
                batch = lax.stop_gradient(batch.reshape(-1, c).mean(0))
                kept.value = self.momentum * kept.value + (1 - self.momentum) * batch
        return y
