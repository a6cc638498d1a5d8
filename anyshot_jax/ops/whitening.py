"""Features in which the items of a class scatter alike in all directions."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anyshot_jax.ops.distance import unit
from anyshot_jax.ops.product import product
from anyshot_jax.ops.prototype import class_means


class Whitening(NamedTuple):
    """Whitening of D dimensions along R axes, as `fit_whitening` returns it."""

    shift: jax.Array  # [D] of the items
    scale: jax.Array  # [D] their deviation
    mean: jax.Array  # [D] once standardised
    axes: jax.Array  # [D, R] in which classes scatter
    gain: jax.Array  # [R] along them,
    rest: jax.Array  # [] and in all other directions


def standardise(x: jax.Array, shift: jax.Array, scale: jax.Array, parts: Sequence[int]):
    """(x - shift) / scale, then every part of a vector to length 1.

    Args:
      x: [N, D]. parts: sizes that add up to D.
    Returns:
      [N, D].
    """
    x = (x - shift[None]) / scale[None]
    ends = np.cumsum(parts)[:-1]
    return jnp.concatenate([unit(part) for part in jnp.split(x, ends, axis=-1)], axis=-1)


def fit_whitening(
    x: jax.Array, label: jax.Array, num_classes: int, parts: Sequence[int], shrink: float
) -> Whitening:
    """Within-class covariance normalisation, the covariance shrunk towards a multiple of I.

    Args:
      x: [N, D]. label: [N] in 0..num_classes-1, or -1 where an item isn't there. parts: as for
        `standardise`.
      shrink: s in 0 < s <= 1: (1 - s) C + s trace(C) / D I is brought to I.
    Reference:
      Hatch, Kajarekar, Stolcke, "Within-class covariance normalization for SVM-based speaker
      recognition", Interspeech 2006; the shrinkage is Ledoit and Wolf's (2004), its share given.
    """
    there = (label >= 0)[:, None]
    shift, scale = x.mean(0, where=there), x.std(0, where=there) + 1e-6
    z = standardise(x, shift, scale, parts)
    around = jnp.where(there, z - class_means(z, label, num_classes)[label], 0)
    dim, num = x.shape[1], there.sum()
    # The smaller of the two matrices with the same eigenvalues.
    if len(x) < dim:
        value, vector = jnp.linalg.eigh(product(around, around.T) / num)
        axes = product(around.T, vector / jnp.sqrt(jnp.maximum(value, 1e-30) * num)[None])
        # Directions without scatter have no axis here: they are with the rest.
        used = value > 1e-6 * value[-1]
        axes = jnp.where(used[None], axes, 0)
    else:
        value, axes = jnp.linalg.eigh(product(around.T, around) / num)
    trace = jnp.sum(around * around) / (num * dim)
    return Whitening(
        shift=shift,
        scale=scale,
        mean=z.mean(0, where=there),
        axes=axes,
        gain=jax.lax.rsqrt((1 - shrink) * jnp.maximum(value, 0) + shrink * trace),
        rest=jax.lax.rsqrt(shrink * trace),
    )


def whiten(fitted: Whitening, x: jax.Array, parts: Sequence[int]) -> jax.Array:
    """[N, D] as the fit says, around 0; vectors of an item's class scatter by about 1 each way."""
    z = standardise(x, fitted.shift, fitted.scale, parts) - fitted.mean[None]
    along = product(z, fitted.axes)
    return fitted.rest * z + product(along * (fitted.gain - fitted.rest)[None], fitted.axes.T)
