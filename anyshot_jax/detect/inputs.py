"""Images as people hand them over: paths, a folder's images, PIL images, uint8 arrays."""

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anyshot_jax.data.readers.images import Reading
from anyshot_jax.data.readers.sources import image_of
from anyshot_jax.types import InputError

MAX_PIXELS = 200_000_000  # an image that unpacks to more is refused
READING = Reading(max_pixels=MAX_PIXELS)
AHEAD = 8  # images that are read while others are looked at


def as_list(images: Any, what: str) -> Sequence[Any]:
    """The images as a sequence; an array [N, H, W] or [N, H, W, C] is one of its rows.

    Raises:
      InputError: none, one image where a list is expected, or something else; says what to give.
    """
    if isinstance(images, (str, Path, Image.Image)):
        raise InputError(f'{what}: give a list of images, not one: [{_shown(images)}]')
    if isinstance(images, np.ndarray):
        if images.dtype == np.uint8 and images.ndim == 2:
            raise InputError(f'{what}: give a list of images, not one array {images.shape}')
        if images.dtype != np.uint8 and images.dtype.kind not in 'UO':
            raise InputError(
                f'{what}: images are uint8 arrays [N, H, W, 3], paths or PIL images, got '
                f'{images.dtype} {images.shape}'
            )
        if images.dtype == np.uint8 and images.ndim == 3 and images.shape[-1] in (3, 4):
            raise InputError(
                f'{what}: {images.shape} is one image or many grey ones: give [image], or grey '
                'images as [N, H, W, 1]'
            )
    elif not isinstance(images, Sequence):
        try:
            images = list(images)
        except TypeError as e:
            raise InputError(
                f'{what}: give a list of paths, PIL images or uint8 arrays, got '
                f'{type(images).__name__}'
            ) from e
    if not len(images):
        raise InputError(f'{what}: no image is there')
    return images


def _shown(item: Any) -> str:
    return repr(str(item)) if isinstance(item, (str, Path)) else 'image'


def name_of(item: Any, number: int) -> str:
    """Name in messages and answers: the path, or the number."""
    return str(item) if isinstance(item, (str, Path)) else f'#{number}'


def open_item(item: Any, name: str) -> tuple[Image.Image, bool]:
    """The image in RGB, and whether it was grey.

    Raises:
      InputError: no image, damaged or too large; says which.
    """
    image = image_of(item, name, READING)
    return image.convert('RGB'), image.mode == 'L'


def in_order(
    items: Sequence[Any], names: Sequence[str], errors: dict[int, InputError] | None = None
) -> Iterator[tuple[int, Image.Image, bool]]:
    """(number, image, whether it was grey) of all, read by a few threads ahead of their use.

    Args:
      errors: takes the reasons of those that can't be read, by number; none: the first is raised.
    """
    # The decoders release the interpreter.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        waiting = deque[Any]()
        for i in range(len(items) + AHEAD):
            if i < len(items):
                waiting.append(pool.submit(open_item, items[i], names[i]))
            if i >= AHEAD and waiting:
                try:
                    image = waiting.popleft().result()
                except InputError as e:
                    if errors is None:
                        raise
                    errors[i - AHEAD] = e
                    continue
                yield i - AHEAD, *image


def content(item: Any, name: str) -> str:
    """'#' and a digest of what an image is made of: equal where it was given twice.

    Raises:
      InputError: a path where there is no file.
    """
    if isinstance(item, (str, Path)):
        path = Path(item)
        if not path.is_file():
            raise InputError(f'{name}: there is no such file')
        with path.open('rb') as f:
            return '#' + hashlib.file_digest(f, _hash).hexdigest()
    h = _hash()
    if isinstance(item, Image.Image):
        h.update(f'{item.mode} {item.size}'.encode() + item.tobytes())
    elif isinstance(item, np.ndarray):
        h.update(f'{item.dtype} {item.shape}'.encode() + np.ascontiguousarray(item).tobytes())
    return '#' + h.hexdigest()


def _hash():
    return hashlib.blake2b(digest_size=8)


def mask_cells(mask: Any, size: tuple[int, int], grid: tuple[int, int], name: str) -> np.ndarray:
    """[rows, columns] float32 1 where a cell has some of a defect.

    Args:
      mask: [H, W] bool or uint8, a path or a PIL image, bright where the defect is; None: all.
      size: width and height of its image.
    Raises:
      InputError: a mask of another size, or without anything in it.
    """
    if mask is None:
        return np.ones(grid, np.float32)
    if isinstance(mask, np.ndarray) and mask.dtype == bool:
        mask = mask.astype(np.uint8) * 255
    image = open_item(mask, f'the mask of {name}')[0].convert('L')
    if image.size != size:
        raise InputError(
            f'the mask of {name} has {image.size[0]} x {image.size[1]} pixels, but its image '
            f'{size[0]} x {size[1]}'
        )
    grey = np.asarray(image)
    inside = Image.fromarray((grey > grey.max() // 2).astype(np.float32))
    cells = np.asarray(inside.resize(grid[::-1], Image.Resampling.BOX)) > 1e-6
    if not cells.any():
        raise InputError(f'the mask of {name} is empty: mark the defect, or give None')
    return cells.astype(np.float32)
