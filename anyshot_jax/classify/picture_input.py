"""Images as people hand them over -> uint8 squares of one size."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from anyshot_jax.data.readers.images import MAX_PIXELS, Reading, fit, in_colour
from anyshot_jax.data.readers.notes import Notes
from anyshot_jax.data.readers.pixels import TILES, is_long, tiles
from anyshot_jax.data.readers.sources import image_of, name_of
from anyshot_jax.types import Array

__all__ = ['MAX_PIXELS', 'THUMBNAIL', 'square', 'squares', 'thumbnails']
THUMBNAIL = 64  # pixels of what is kept of the support
READING = Reading()
SEEN = {  # by crop, what the encoder sees of an image that is no square
    'auto': (
        'Of an image whose sides differ by a third at most the largest centred square is seen, of '
        f'others {TILES} squares along the longer side, which cover it.'
    ),
    'whole': 'All of an image is seen, with sides stretched to a square.',
    'centre': 'The largest centred square of an image is all that is seen of it.',
    'tiles': f'{TILES} squares along the longer side of an image are seen, which cover it.',
}


def square(
    item: Any, size: int, name: str, how: Reading = READING, odd: list[str] | None = None
) -> Array:
    """[size, size, 3] uint8; of an image that is seen in tiles [TILES, size, size, 3].

    Args:
      odd: as for `images.open_image`.
    Raises:
      InputError: no image, damaged or too large; says which.
    """
    image = image_of(item, name, how, odd)
    in_tiles = how.crop == 'tiles' or (how.crop == 'auto' and is_long(image.size))
    return in_colour(tiles(image, size) if in_tiles else fit(image, size, how.crop))


def shown(image: Image.Image, size: int, how: Reading = READING) -> Array:
    """[size, size, 3] uint8, for people: what is seen in tiles is one stretched square."""
    crop = 'whole' if how.crop == 'tiles' else how.crop
    return in_colour(fit(image, size, crop))


def together(images: Sequence[Array]) -> Array | list[Array]:
    """One array where all are of one shape; a list where some are tiles and some are squares."""
    return np.stack(images) if len({x.shape for x in images}) == 1 else list(images)


def squares(
    items: Iterable[Any],
    size: int,
    first: int = 0,
    how: Reading = READING,
    notes: Notes | None = None,
) -> Array | list[Array]:
    """[N, size, size, 3], or in tiles [N, TILES, size, size, 3], read by a few threads.

    Where only some are seen in tiles, a list.

    The first that can't be read is named.

    Args:
      first: the row of the first item, for messages. notes: takes what is worth a word.
    """

    def one(numbered: tuple[int, Any]) -> Array:
        row, item = numbered
        odd: list[str] = []
        name = name_of(item, row)
        found = square(item, size, name, how, odd)
        if notes is not None:
            notes.add_all(odd, name)
        return found

    numbered = list(enumerate(items, first))
    with ThreadPoolExecutor(4) as pool:  # the decoders release the interpreter
        found = list(pool.map(one, numbered))
    parts = (TILES,) if how.crop == 'tiles' else ()
    return together(found) if found else np.zeros((0, *parts, size, size, 3), np.uint8)


def thumbnails(images: Array | list[Array]) -> Array:
    """[N, THUMBNAIL, THUMBNAIL, 3] uint8, `thumbnail` of all."""
    return np.stack([thumbnail(x) for x in images]) if len(images) else no_thumbnails()


def no_thumbnails(num: int = 0) -> Array:
    """Black ones, of items that are no images."""
    return np.zeros((num, THUMBNAIL, THUMBNAIL, 3), np.uint8)


def thumbnail(x: Array) -> Array:
    """[THUMBNAIL, THUMBNAIL, 3] uint8 of a square [S, S, 3], or of the middle one of tiles."""
    return fit(Image.fromarray(x if x.ndim == 3 else x[len(x) // 2]), THUMBNAIL)
