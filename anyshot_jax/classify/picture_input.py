"""Images as people hand them over (paths, PIL images, arrays) -> uint8 squares of one size."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anyshot_jax.data.readers.images import fit, open_image, to_eight_bits
from anyshot_jax.types import Array, InputError

MAX_PIXELS = 50_000_000  # an image that unpacks to more is refused
THUMBNAIL = 64  # pixels of what is kept of the support


def are_images(x: Any) -> bool:
    """True if X holds images rather than feature vectors."""
    if isinstance(x, np.ndarray):
        if x.dtype == np.uint8 and x.ndim in (3, 4):
            return True
        return x.ndim == 1 and len(x) > 0 and x.dtype.kind in 'UO' and _is_image(x[0])
    return isinstance(x, Sequence) and len(x) > 0 and not isinstance(x, str) and _is_image(x[0])


def _is_image(item: Any) -> bool:
    pixels = isinstance(item, np.ndarray) and item.dtype == np.uint8 and item.ndim in (2, 3)
    return isinstance(item, (str, Path, Image.Image)) or pixels


def name_of(item: Any, row: int) -> str:
    """Name in messages and answers: its path, or its row."""
    return str(item) if isinstance(item, (str, Path)) else f'#{row}'


def square(item: Any, size: int, name: str) -> Array:
    """[size, size, 3] uint8: the largest centred square.

    Raises:
      InputError: no image, damaged or too large; says which.
    """
    if isinstance(item, (str, Path)):
        path = Path(item)
        if not path.is_file():
            raise InputError(f'{name}: there is no such file')
        image = open_image(path, MAX_PIXELS, name)
    elif isinstance(item, Image.Image):
        image = to_eight_bits(item, name)
    elif isinstance(item, np.ndarray) and item.dtype == np.uint8:
        pixels = item[..., 0] if item.ndim == 3 and item.shape[-1] == 1 else item
        if pixels.ndim not in (2, 3) or 0 in pixels.shape or (
            pixels.ndim == 3 and pixels.shape[-1] not in (3, 4)
        ):  # fmt: skip
            raise InputError(f'{name}: a uint8 image is [H, W] or [H, W, 1, 3 or 4], got '
                             f'{item.shape}')  # fmt: skip
        image = to_eight_bits(Image.fromarray(np.ascontiguousarray(pixels)), name)
    else:
        raise InputError(f'{name} is no image: give paths, PIL images or uint8 arrays, got '
                         f'{type(item).__name__}')  # fmt: skip
    return fit(image.convert('RGB'), size)


def squares(items: Iterable[Any], size: int, first: int = 0) -> Array:
    """[N, size, size, 3], read by a few threads; the first that can't be read is named.

    Args:
      first: the row of the first item, for messages.
    """
    numbered = list(enumerate(items, first))
    with ThreadPoolExecutor(4) as pool:  # the decoders release the interpreter
        found = pool.map(lambda n: square(n[1], size, name_of(n[1], n[0])), numbered)
        return np.stack(list(found)) if numbered else np.zeros((0, size, size, 3), np.uint8)


def thumbnails(images: Array) -> Array:
    """[N, THUMBNAIL, THUMBNAIL, 3] uint8 of squares [N, S, S, 3]."""
    if not len(images):
        return np.zeros((0, THUMBNAIL, THUMBNAIL, 3), np.uint8)
    return np.stack([fit(Image.fromarray(x), THUMBNAIL) for x in images])
