"""Nearest neighbour by the modified Hausdorff distance between the ink of two drawings.

Dubuisson, Jain, "A modified Hausdorff distance for object matching", ICPR 1994; the baseline of
Lake, Salakhutdinov, Tenenbaum, 2015. Drawings are laid on each other by their centres of mass.
"""

import jax
import jax.numpy as jnp

from anyshot_jax.episodes.episodic import episodic
from anyshot_jax.ops.prototype import nearest_per_class
from anyshot_jax.types import Episode, InputError

DEFAULTS = {'threshold': 127}  # of 0..255, what is more is ink


def build(config, data):
    """Nearest neighbours by the modified Hausdorff distance of ink.

    Args:
      config: of a run. data: with the roles that episodes are drawn from, grey images.
    Returns:
      The Method. Its extra: {}.
    Raises:
      InputError: a field that does not fit, or data that cannot give the episodes.
    """
    shapes = [d.x.shape[1:] for d in data.roles.values()]
    for shape in [*shapes, *(tasks.x_s.shape[2:] for tasks in data.tasks.values())]:
        if len(shape) != 3 or shape[-1] != 1:
            raise InputError(f"config.method.name='hausdorff' needs grey images, got items {shape}")

    def init(key, x):
        return {}, {}

    def embed(params, extra, x):
        return x.reshape(x.shape[0], -1).astype(jnp.float32) / 255

    def predict(params, extra, episode: Episode):
        query, support = (x[..., 0] > config.method.threshold for x in (episode.x_q, episode.x_s))
        sim = jax.lax.map(
            lambda q: jax.lax.map(lambda s: -modified_hausdorff(q, s), support), query
        )
        return nearest_per_class(sim, episode.y_s, episode.class_id.shape[0])

    return episodic(config, data, init=init, embed=embed, predict=predict)


def modified_hausdorff(a: jax.Array, b: jax.Array) -> jax.Array:
    """The larger of the mean distances from a point of ink to the nearest of the other drawing.

    Args:
      a, b: [H, W] bool, ink.
    Returns:
      [] in pixels; infinite where one has no ink.
    """
    shift = centre(a) - centre(b)
    mean = lambda ink, nearest: jnp.sum(jnp.where(ink, nearest, 0)) / ink.sum()
    value = jnp.maximum(mean(a, nearest_ink(b, -shift)), mean(b, nearest_ink(a, shift)))
    return jnp.where(a.any() & b.any(), value, jnp.inf)


def centre(ink: jax.Array) -> jax.Array:
    """Mean row and column of the ink [H, W]: [2]."""
    along = lambda axis: jnp.arange(ink.shape[1 - axis]) * ink.sum(axis)
    return jnp.stack([along(1).sum(), along(0).sum()]) / jnp.maximum(ink.sum(), 1)


def nearest_ink(ink: jax.Array, shift: jax.Array) -> jax.Array:
    """Distance of every place, moved by `shift`, to the nearest ink: [H, W].

    First along the rows, then along the columns: H * W * (H + W) steps and not one for each pair of
    points.
    """
    h, w = ink.shape
    gap = lambda n, by: (jnp.arange(n)[None, :] + by - jnp.arange(n)[:, None]) ** 2  # [of ink, to]
    row = jnp.where(ink.T[:, :, None], gap(w, shift[1])[:, None, :], jnp.inf).min(0)  # [H, W]
    return jnp.sqrt((row[:, None, :] + gap(h, shift[0])[:, :, None]).min(0))
