"""Images as people hand them over -> uint8 squares of one size."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from anyshot_jax.data.readers.images import MAX_PIXELS, Reading, fit, in_colour
from anyshot_jax.data.readers.notes import Notes
from anyshot_jax.data.readers.pixels import TILES, tiles
from anyshot_jax.data.readers.sources import image_of, name_of
from anyshot_jax.types import Array

__all__ = ['MAX_PIXELS', 'THUMBNAIL', 'square', 'squares', 'thumbnails']
THUMBNAIL = 64  # pixels of what is kept of the support
READING = Reading()
SEEN = {  # by crop, what the encoder sees of an image that is no square
    'auto': (
        'Of an image whose sides differ by a third at most the largest centred square is seen, of '
        'others all, with sides stretched to a square.'
    ),
    'whole': 'All of an image is seen, with sides stretched to a square.',
    'centre': 'The largest centred square of an image is all that is seen of it.',
    'tiles': f'{TILES} squares along the longer side of an image are seen, which cover it.',
}


def square(
    item: Any, size: int, name: str, how: Reading = READING, odd: list[str] | None = None
) -> Array:
    """[size, size, 3] uint8; of crop='tiles' [TILES, size, size, 3].

    Args:
      odd: as for `images.open_image`.
    Raises:
      InputError: no image, damaged or too large; says which.
    """
    image = image_of(item, name, how, odd)
    return in_colour(tiles(image, size) if how.crop == 'tiles' else fit(image, size, how.crop))


def squares(
    items: Iterable[Any],
    size: int,
    first: int = 0,
    how: Reading = READING,
    notes: Notes | None = None,
) -> Array:
    """[N, size, size, 3], or [N, TILES, size, size, 3], read by a few threads.

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
    return np.stack(found) if found else np.zeros((0, *parts, size, size, 3), np.uint8)


def thumbnails(images: Array) -> Array:
    """[N, THUMBNAIL, THUMBNAIL, 3] uint8 of squares [N, S, S, 3], or of the middle one of tiles."""
    if not len(images):
        return np.zeros((0, THUMBNAIL, THUMBNAIL, 3), np.uint8)
    middle = images if images.ndim == 4 else images[:, images.shape[1] // 2]
    return np.stack([fit(Image.fromarray(x), THUMBNAIL) for x in middle])
