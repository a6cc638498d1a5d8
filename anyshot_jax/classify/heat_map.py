"""Heat maps of the evidence for an answer, for nets whose features are the mean of a map."""

from collections.abc import Callable

import jax
import numpy as np

from anyshot_jax.classify.nearest_mean import Head, place, scores
from anyshot_jax.encoders import ImageEncoder
from anyshot_jax.types import Array


def left_out(cells: Array, score: Callable[[Array], Array]) -> np.ndarray:
    """Drop of a score when a cell is left out of the mean of a map.

    Above 0: the cell speaks for what is scored; below 0: against it; the sizes are those of the
    score. Each cell is left out alone, so that two that say the same hide each other in part. A
    cell has seen more of the image than the square that it stands for, and speaking for a class
    of defects doesn't make it one: background counts that comes with a class, too.

    Args:
      cells: [H, W, D], more than one cell. score: features [N, D] -> [N].
    Returns:
      [H, W] float32.
    """
    cells = np.asarray(cells, np.float64)
    height, width, dim = cells.shape
    total = cells.sum((0, 1))
    others = (total - cells.reshape(-1, dim)) / (height * width - 1)
    whole = score(total[None] / (height * width))
    return (whole - score(others)).reshape(height, width).astype(np.float32)


def lead(head: Head, winner: int, joined: Array) -> Callable[[Array], Array]:
    """Features [N, D] -> [N], by how much class `winner` is ahead of the best other one.

    Of a head with one class: its score.

    Args:
      joined: [J] what is joined to the features of the map, and stays as it is.
    """

    def of(x: Array) -> Array:
        x = np.concatenate([x, np.broadcast_to(joined, (len(x), len(joined)))], axis=1)
        score = scores(head, place(head.space, x))
        others = np.delete(score, winner, axis=1)
        return score[:, winner] - (others.max(1) if others.shape[1] else 0)

    return of


def last_map(
    encoder: ImageEncoder, side: int = 224
) -> Callable[[Array], tuple[np.ndarray, np.ndarray]] | None:
    """A function: an image [side, side, 3] uint8 -> the map [h, w, D] whose mean its features are.

    Beside it what is joined to those features, [J]. None for a net whose features are the mean of
    no map (a transformer).
    """

    @jax.jit
    def apply(params, x):
        ready = encoder.preprocess(x)
        return encoder.apply(params, ready), encoder.maps(params, ready)

    params = jax.device_put(encoder.params)
    sample = np.zeros((1, side, side, 3), np.uint8)
    sample[:, side // 4 : side // 2, side // 8 :, 0] = 255
    features, maps = apply(params, sample)
    dim = (*encoder.parts, encoder.dim)[0]
    for name, found in reversed(maps.items()):
        own = features[:, :dim]
        same = found.shape[-1] == own.shape[-1]
        if same and np.allclose(np.asarray(found).mean((1, 2)), own, rtol=1e-3, atol=1e-4):

            def seen(x, name=name):
                features, maps = jax.device_get(apply(params, x[None]))
                return maps[name][0], features[0, dim:]

            return seen
    return None
