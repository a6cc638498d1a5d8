"""Images of defects for the page: heat over them, the outline of a mask, and parts cut out."""

import base64
import io

import numpy as np
from markupsafe import Markup
from PIL import Image
from scipy import ndimage

from anyshot_jax.report.page import html
from anyshot_jax.types import Array

SIDE = 224  # pixels of an image's longer side on the page, at most
GREEN, WHITE = (0, 235, 120), (255, 255, 255)
# From what is usual to the most unlike: dark purple, red, orange, light yellow, as matplotlib's
# inferno, whose lightness rises evenly, so that it also reads in grey.
HEAT = np.array([[40, 11, 84], [120, 28, 109], [190, 55, 82], [237, 105, 37], [252, 255, 164]])


def outline(mask: Array) -> np.ndarray:
    """The pixels just outside of a mask [H, W] bool, beside it by an edge: what is in stays seen.

    Where a mask ends at the image's border there is none.
    """
    mask = np.asarray(mask, bool)
    return ndimage.binary_dilation(mask) & ~mask


def on_page(x: Array, side: int = SIDE) -> np.ndarray:
    """An image [H, W, 1 or 3] uint8 as colours [h, w, 3], no side above `side`; not enlarged."""
    image = Image.fromarray(np.broadcast_to(np.asarray(x), (*x.shape[:2], 3)))
    return np.asarray(image.resize(_size(x, side), Image.Resampling.LANCZOS))


def with_outline(image: np.ndarray, mask: Array, colour=GREEN) -> np.ndarray:
    """The image [h, w, 3] with the outline of a mask [H, W] of any size drawn on it."""
    size = image.shape[1::-1]
    # Largest of the pixels that fall on one, not one of them: a thin scratch is not lost.
    small = Image.fromarray(np.asarray(mask, np.uint8) * 255).resize(size, Image.Resampling.BOX)
    image = image.copy()
    image[outline(np.asarray(small) > 0)] = colour
    return image


def with_heat(image: np.ndarray, scores: Array, low: float, high: float) -> np.ndarray:
    """The image [h, w, 3] under colours of scores [H, W]: none up to low, the last from high."""
    share = np.clip((np.asarray(scores, np.float32) - low) / max(high - low, 1e-12), 0, 1)
    heat = Image.fromarray(share).resize(image.shape[1::-1], Image.Resampling.BILINEAR)
    share = np.clip(np.asarray(heat), 0, 1)[..., None]
    at = np.linspace(0, 1, len(HEAT))
    colour = np.concatenate([np.interp(share, at, HEAT[:, c]) for c in range(3)], -1)
    # Half of the image is left to be seen at the hottest places.
    alpha = 0.55 * np.minimum(share * 2, 1)
    return np.round(image * (1 - alpha) + colour * alpha).astype(np.uint8)


def box(cell: tuple[int, int], grid: tuple[int, int], size: tuple[int, int]) -> tuple[slice, slice]:
    """The pixels of an image of `size` [H, W] that a cell (row, column) of a grid stands for."""
    ends = [
        (c * s // g, max(-(-(c + 1) * s // g), c * s // g + 1))
        for c, g, s in zip(cell, grid, size, strict=True)
    ]
    return slice(*ends[0]), slice(*ends[1])


def around(x: Array, cell: tuple[int, int], grid: tuple[int, int]) -> np.ndarray:
    """Surroundings of a cell: a square of x [H, W, C], moved inside of it at the border.

    Its side is that of five cells, at least a quarter of the shorter side, at most all of it.
    """
    size = x.shape[:2]
    cells = box(cell, grid, size)
    wide = max(5 * (s.stop - s.start) for s in cells)
    side = min(max(wide, min(size) // 4), min(size))
    starts = [
        min(max((s.start + s.stop - side) // 2, 0), full - side)
        for s, full in zip(cells, size, strict=True)
    ]
    return np.asarray(x)[starts[0] : starts[0] + side, starts[1] : starts[1] + side]


def img(image: np.ndarray, alt: str) -> Markup:
    """HTML of an image [h, w, 3] uint8: a JPEG, since such a page has many."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, 'jpeg', quality=85, subsampling=0)
    source = 'data:image/jpeg;base64,' + base64.b64encode(data.getvalue()).decode()
    return html(
        '<img class="shot" src="{{ source }}" alt="{{ alt }}" title="{{ alt }}">',
        source=source,
        alt=alt,
    )


def _size(x: Array, side: int) -> tuple[int, int]:
    """Width and height on the page."""
    height, width = x.shape[:2]
    share = min(1.0, side / max(height, width))
    return max(1, round(width * share)), max(1, round(height * share))
