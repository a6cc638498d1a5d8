"""Images as people hand them over: a path, a file's bytes, an open or uploaded file, a PIL image,
an array or a tensor.

Arrays are RGB (not OpenCV's BGR): [H, W], [H, W, 1], [H, W, 3], [H, W, 4] with alpha, or with the
channels first. uint8 and bool are taken as they are, other whole numbers as 8 bits where they fit
them, else as 16 bits are (`pixels.value_range`); floats are 0..1 or 0..255.
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anyshot_jax.data.readers import pixels
from anyshot_jax.data.readers.file_size import most_bytes
from anyshot_jax.data.readers.images import Reading, open_image
from anyshot_jax.types import Array, InputError

URL = re.compile(r'^[a-z][a-z0-9+.-]+://', re.IGNORECASE)
CHANNELS = (1, 3, 4)


def is_image(item: Any) -> bool:
    """True if an item is an image rather than a vector of numbers."""
    if isinstance(item, (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)):
        return True
    if _file_of(item) is not None:
        return True
    array = array_of(item)
    return array is not None and array.ndim in (2, 3) and array.dtype.kind in 'uifb'


def array_of(item: Any) -> Array | None:
    """The array that an array or a tensor is; None of anything else."""
    if isinstance(item, np.ndarray):
        return item
    if not hasattr(item, '__array__') or isinstance(item, (str, bytes, np.generic, Image.Image)):
        return None
    try:
        return np.asarray(item)
    except (TypeError, ValueError, RuntimeError):  # a tensor on a device, or one with gradients
        try:
            return np.asarray(item.detach().cpu())
        except (AttributeError, TypeError, ValueError, RuntimeError):
            return None


def name_of(item: Any, row: int) -> str:
    """Name of an item in messages and answers: its path or file name, or its row."""
    if isinstance(item, (str, os.PathLike)):
        return str(item)
    name = getattr(item, 'filename', None) or getattr(item, 'name', None)
    return name if isinstance(name, str) and name else f'#{row}'


def image_of(item: Any, name: str, how: Reading, odd: list[str] | None = None) -> Image.Image:
    """The image in mode L or RGB, see `images.open_image`.

    Raises:
      InputError: no image, damaged or too large; says which.
    """
    if isinstance(item, (str, os.PathLike)):
        item = path_of(item, name)
    elif isinstance(item, (bytearray, memoryview)):
        item = bytes(item)
    elif not isinstance(item, (bytes, Image.Image)):
        file = _file_of(item)
        item = (
            _pixels(item, name, how)
            if file is None
            else _content(file, name, most_bytes(how.max_pixels))
        )
    return open_image(item, how.max_pixels, name, how.span, odd)


def path_of(item: Any, name: str = '') -> Path:
    """The path of a file that is there; InputError for a URL or what isn't there."""
    text = os.fsdecode(item)
    name = name or text
    if URL.match(text):
        raise InputError(f'{name} is an address: nothing is downloaded, save it as a file first')
    path = Path(text)
    try:
        if path.is_file():
            return path
        what = 'a folder, give its files' if path.is_dir() else 'there is no such file'
    except (OSError, ValueError) as e:  # too long, or with a zero byte
        what = f'no path of a file: {e}'
    raise InputError(f'{name}: {what}')


def _file_of(item: Any) -> Any:
    """The open file that the item is or, uploaded to a server, has."""
    if isinstance(item, (np.ndarray, Image.Image)):
        return None
    inner = getattr(item, 'file', None)
    if callable(getattr(inner, 'read', None)):
        return inner  # Starlette's: its own read is to be awaited
    return item if callable(getattr(item, 'read', None)) else None


def _content(file: Any, name: str, most: int) -> bytes:
    """All bytes of an open file, whatever was read of it before."""
    try:
        if file.seekable() if callable(getattr(file, 'seekable', None)) else hasattr(file, 'seek'):
            file.seek(0)
        content = file.read(most + 1)
    except (OSError, ValueError, TypeError) as e:
        raise InputError(f'{name} is an open file that cannot be read: {e}') from e
    if not isinstance(content, bytes):
        raise InputError(f"{name} is a file of {type(content).__name__}: open it with 'rb'")
    if len(content) > most:
        raise InputError(f'{name} has more than {most:,} bytes: raise max_pixels, or shrink it')
    return content


def _pixels(item: Any, name: str, how: Reading) -> Image.Image:
    array = array_of(item)
    if array is None or array.dtype.kind not in 'uifb':
        what = f'an array of {array.dtype}' if array is not None else type(item).__name__
        raise InputError(
            f'{name} is no image: give paths, PIL images, arrays, bytes or open files, got {what}'
        )
    array = channels_last(array, name)
    if array.ndim == 3 or array.dtype.kind == 'f':
        array = eight_bit(array, name, how.span)
    if array.dtype.kind in 'ui' and array.dtype != np.uint8:
        array = narrow(array, name)
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    if array.shape[-1] == 1 and array.ndim == 3:
        array = array[..., 0]
    return Image.fromarray(np.ascontiguousarray(array))


def channels_last(array: Array, name: str) -> Array:
    """[H, W] or [H, W, C], C of 1, 3 or 4; InputError for any other shape."""
    if array.ndim == 3 and array.shape[-1] not in CHANNELS and array.shape[0] in CHANNELS:
        array = np.moveaxis(array, 0, -1)
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or 0 in array.shape or channels not in CHANNELS:
        raise InputError(
            f'{name}: an image is [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], got {array.shape}'
        )
    return array


def narrow(array: Array, name: str) -> Array:
    """Whole numbers as uint8 where they fit 8 bits, else as uint16 or int32."""
    low, high = int(array.min()), int(array.max())
    if low >= 0 and high <= 255 and array.dtype != np.uint16:
        return array.astype(np.uint8)
    if low >= 0 and high < 2**16:
        return array.astype(np.uint16)
    if low >= -(2**31) and high < 2**31:
        return array.astype(np.int32)
    raise InputError(f'{name} has pixels from {low} to {high}: bring them to 0..255')


def eight_bit(array: Array, name: str, span: tuple[float, ...] = ()) -> Array:
    """uint8 of floats, by `float_top` or `span`, and of whole numbers in colour, by their range."""
    if array.dtype == np.uint8 or array.dtype == bool:
        return array
    if array.dtype.kind == 'f':
        low, high = span or (0, float_top([array], name))
    else:
        array = narrow(array, name)
        if array.dtype == np.uint8:
            return array
        tails = np.quantile(array, (pixels.TAILS, 1 - pixels.TAILS))
        low, high = span or pixels.value_range(float(tails[0]), float(tails[1]), whole=True)
    share = (array.astype(np.float64) - low) / (high - low)
    return np.floor(np.clip(share, 0, 1) * 255 + 0.5).astype(np.uint8)


def float_top(arrays: Any, name: str) -> float:
    """1 where all pixels are within 0..1, 255 where they are within 0..255.

    Raises:
      InputError: pixels beyond, as after subtracting a mean, or not finite.
    """
    low = min(float(a.min()) for a in arrays)
    high = max(float(a.max()) for a in arrays)
    if not np.isfinite(low + high):
        raise InputError(f'{name} has pixels that are not finite')
    if low < 0 or high > 255:
        raise InputError(
            f'{name} has pixels from {low:.4g} to {high:.4g}: give 0..1 or 0..255, before any mean '
            'is subtracted, or say range=(low, high)'
        )
    return 1.0 if high <= 1 else 255.0
