"""Images that a detector is handed, read ahead of their use, and the masks of defects in them."""

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from anyshot_jax.data.readers import masks
from anyshot_jax.data.readers.images import Reading
from anyshot_jax.data.readers.inputs import KINDS, images_of
from anyshot_jax.data.readers.notes import Notes
from anyshot_jax.data.readers.sources import array_of, image_of, path_of
from anyshot_jax.types import InputError

MAX_PIXELS = 200_000_000  # an image that unpacks to more is refused
AHEAD = 8  # images that are read while others are looked at


def items_of(images: Any, what: str, how: Reading) -> list[Any]:
    """The images as a list, each as `sources.image_of` takes it; one is a list of one.

    Raises:
      InputError: none, or numbers that are no images; says what to give.
    """
    items = images_of(images, how.span)
    if items is None:
        array = array_of(images)
        given = type(images).__name__ if array is None else f'{array.dtype} {array.shape}'
        raise InputError(f'{what}: give a folder, or one or more {KINDS}, got {given}')
    return items


def open_item(
    item: Any, name: str, how: Reading, odd: list[str] | None = None
) -> tuple[Image.Image, bool]:
    """The image in RGB, and whether it was grey.

    Args:
      odd: as for `images.open_image`.
    Raises:
      InputError: no image, damaged or too large; says which.
    """
    image = image_of(item, name, how, odd)
    return image.convert('RGB'), image.mode == 'L'


def in_order(
    items: Sequence[Any],
    names: Sequence[str],
    how: Reading,
    errors: dict[int, InputError] | None = None,
    notes: Notes | None = None,
) -> Iterator[tuple[int, Image.Image, bool]]:
    """(number, image, whether it was grey) of all, read by a few threads ahead of their use.

    Args:
      errors: takes the reasons of those that can't be read, by number; none: the first is raised.
      notes: takes what of the images is worth a word.
    """

    def one(i: int) -> tuple[Image.Image, bool]:
        odd: list[str] = []
        found = open_item(items[i], names[i], how, odd)
        if notes is not None:
            notes.add_all(odd, names[i])
        return found

    # The decoders release the interpreter.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        waiting = deque[Any]()
        for i in range(len(items) + AHEAD):
            if i < len(items):
                waiting.append(pool.submit(one, i))
            if i >= AHEAD and waiting:
                try:
                    image = waiting.popleft().result()
                except InputError as e:
                    if errors is None:
                        raise
                    errors[i - AHEAD] = e
                    continue
                yield i - AHEAD, *image


def content(item: Any, name: str, how: Reading) -> str:
    """'#' and a digest of what an image is made of: equal where it was given twice.

    Raises:
      InputError: a path where there is no file, or what is no image.
    """
    if isinstance(item, (str, os.PathLike)):
        with path_of(item, name).open('rb') as f:
            return '#' + hashlib.file_digest(f, _hash).hexdigest()
    h, array = _hash(), array_of(item)
    if array is not None:
        h.update(f'{array.dtype} {array.shape}'.encode() + np.ascontiguousarray(array).tobytes())
    else:
        image = item if isinstance(item, Image.Image) else image_of(item, name, how)
        h.update(f'{image.mode} {image.size}'.encode() + image.tobytes())
    return '#' + h.hexdigest()


def _hash():
    return hashlib.blake2b(digest_size=8)


def mask_cells(
    mask: Any,
    size: tuple[int, int],
    box: tuple[int, int, int, int],
    grid: tuple[int, int],
    name: str,
    notes: Notes | None = None,
) -> np.ndarray:
    """[rows, columns] float32 1 where a cell has some of a defect.

    Args:
      mask: [H, W] or [H, W, C], 0 where no defect is, a path or a PIL image as `masks.read` takes
        them; None: all.
      size: width and height of its image. box: left, top, right, bottom of what is seen of it.
      notes: takes a mask of another size, which is brought to its image's.
    Raises:
      InputError: a mask of another shape, or without anything in it.
    """
    if mask is None:
        return np.ones(grid, np.float32)
    of = f'the mask of {name}'
    inside = _inside(mask, of)
    height, width = inside.shape
    if notes is not None and (width, height) != size:
        sizes = f'{width} x {height} for {size[0]} x {size[1]}'
        notes.add('masks of another size, stretched to their images', f'{name}: {sizes}')
    inside = masks.at_size(inside, size, of)
    seen = Image.fromarray(inside.astype(np.float32)).crop(box)
    cells = np.asarray(seen.resize(grid[::-1], Image.Resampling.BOX)) > 1e-6
    if not cells.any():
        raise InputError(f'the mask of {name} is empty: mark the defect, or give None')
    return cells.astype(np.float32)


def _inside(mask: Any, name: str) -> np.ndarray:
    """[H, W] bool, True where a mask shows a defect."""
    if isinstance(mask, (str, os.PathLike)):
        return masks.read([path_of(mask, name)], MAX_PIXELS)
    if isinstance(mask, Image.Image):
        return masks.shown(mask)
    array = array_of(mask)
    if array is None or array.ndim not in (2, 3) or array.dtype.kind not in 'buif':
        raise InputError(f'{name}: give [H, W], a path or a PIL image, got {type(mask).__name__}')
    return (array != 0) if array.ndim == 2 else (array != 0).any(-1)
