"""Heat maps at an image's own size, and an explanation of its worst place."""

from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from anyshot_jax.detect import views
from anyshot_jax.detect.normal import Normal, where
from anyshot_jax.detect.scores import Comparison
from anyshot_jax.detect.views import View

SMOOTH = 0.25  # standard deviation of the Gaussian over a map, in cells


class Explanation(NamedTuple):
    """The worst place of an image beside what is nearest to it."""

    distance: float  # of the two patches; with a net the map's value there, see `defect_net.py`
    place: tuple[int, int, int, int]  # left, top, right, bottom of it in pixels
    normal: str  # the name of the normal image that the nearest patch is of
    normal_place: tuple[int, int, int, int]  # and where it is there


def heat(found: Comparison, view: View, cells: int) -> np.ndarray:
    """[H, W] float32, the distances of an image's patches at its own size, smoothed a little.

    0 where nothing is seen.
    """
    left, top, right, bottom = views.looked_at(found.size, view)
    width, height = right - left, bottom - top
    seen = views.seen_size((width, height), view) if view.tile else (view.size, view.size)
    step = view.side / cells
    # The last cells of a tiled image may reach beyond it.
    box = 0, 0, seen[0] / step, seen[1] / step
    small = Image.fromarray(found.dist.astype(np.float32))
    whole = np.asarray(small.resize((width, height), Image.Resampling.BILINEAR, box=box))
    smooth = ndimage.gaussian_filter(whole, (SMOOTH * height / box[3], SMOOTH * width / box[2]))
    return np.pad(smooth, ((top, found.size[1] - bottom), (left, found.size[0] - right)))


def explain_worst(found: Comparison, known: Normal, view: View, cells: int) -> Explanation:
    """The patch that is farthest from normal ones, and the nearest of those."""
    cell = np.unravel_index(int(found.dist.argmax()), found.dist.shape)
    image, at = where(known, int(found.row[cell]))
    width, height = known.sizes[image].tolist()
    return Explanation(
        float(found.dist[cell]),
        views.box([int(c) for c in cell], cells, found.size, view),
        known.names[image],
        views.box(at, cells, (width, height), view),
    )
