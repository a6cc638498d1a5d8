"""One image file from anywhere -> uint8 pixels, or an error that names the file."""

import io
import os
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from anyshot_jax.runtime.bars import bar
from anyshot_jax.types import Array, InputError

Image.init()  # all its formats, now: Pillow's own first use of one is not safe among threads
WANTED = ('PNG', 'JPEG', 'BMP', 'GIF', 'TIFF', 'WEBP', 'PPM', 'JPEG2000', 'AVIF')
FORMATS = tuple(f for f in WANTED if f in Image.OPEN)  # some need libraries that may be absent
# fmt: off
SUFFIXES = (
    '.png', '.jpg', '.jpeg', '.jpe', '.jfif', '.bmp', '.dib', '.gif', '.tif', '.tiff', '.webp',
    '.ppm', '.pgm', '.pbm', '.pnm', '.jp2', '.avif',
)
# fmt: on
BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)


class NotAnImage(InputError):
    """The content is of no image format that is read here."""


def read_image(
    source: Path | bytes, size: int, channels: int, max_pixels: int, name: str = ''
) -> Array:
    """[size, size, channels] uint8: `open_image`, centre-cropped and resized (bicubic).

    The resize averages over all source pixels (no aliasing). channels: 3 or 1. Raises as below.
    """
    image = open_image(source, max_pixels, name).convert('RGB' if channels == 3 else 'L')
    return fit(image, size)


def read_images(
    count: int,
    source: Callable[[int], tuple[Path | bytes, str]],
    config,
    read: Callable[[Path | bytes, str], Array] | None = None,
) -> Generator[Any, None, None]:
    """Images 0..count-1 in order, or the InputError of one, read by a few threads.

    Whoever stops early closes it (contextlib.closing): left to the garbage collector, one of its
    own threads may have to.

    Args:
      source: number -> (path or bytes, name in messages). config: has size, channels, max_pixels.
      read: (path or bytes, name) -> pixels, instead of `read_image` by those fields.
    """

    def read_one(i: int) -> Array | InputError:
        image, name = source(i)
        try:
            if read:
                return read(image, name)
            return read_image(image, config.size, config.channels, config.max_pixels, name)
        except InputError as e:
            return e

    # The decoders release the interpreter.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        step = 256  # so that an error stops the reading soon, and little waits undrawn
        with bar(total=count, desc='read images') as shown:
            for start in range(0, count, step):
                for found in pool.map(read_one, range(start, min(start + step, count))):
                    shown.update()
                    yield found


def check_fields(config) -> None:
    """Refuses (InputError) what no image can be read as: on_error, channels, size."""
    if config.on_error not in ('raise', 'skip'):
        raise InputError(f"config.data.on_error = {config.on_error!r}: need 'raise' or 'skip'")
    if config.channels not in (1, 3):
        raise InputError(f'config.data.channels = {config.channels}: need 1 or 3')
    if not 1 <= config.size <= 4096:
        raise InputError(f'config.data.size = {config.size}: need 1 to 4096')


def fit(image: Image.Image, size: int) -> Array:
    """[size, size, channels] uint8: the largest centred square, resized (bicubic, averaging)."""
    square = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(square).reshape(size, size, -1)


def open_image(source: Path | bytes, max_pixels: int, name: str = '') -> Image.Image:
    """The upright image in mode L or RGB; of a moving one the first frame.

    The format is told from the content, EXIF orientation is respected.

    Args:
      source: a file, or its bytes. max_pixels: checked before decoding.
      name: for error messages; the path when empty.
    Raises:
      NotAnImage: unknown content. InputError: unreadable, damaged or too large; names the file.
    """
    name = name or str(source)
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open('rb') as f:
            return _decode(f, max_pixels, name)
    except InputError:
        raise
    except BOMB as e:
        raise InputError(f'{name} is too large: {e}') from e
    except UnidentifiedImageError as e:
        raise NotAnImage(f'{name} is not an image ({", ".join(FORMATS)} are read)') from e
    except Exception as e:  # whatever a decoder raises on hostile bytes, the file is the reason
        raise InputError(f'{name} is damaged or unreadable: {type(e).__name__}: {e}') from e


def _decode(f: BinaryIO, max_pixels: int, name: str) -> Image.Image:
    with Image.open(f, formats=FORMATS) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise InputError(
                f'{name} has {width} x {height} pixels, more than max_pixels = '
                f'{max_pixels:,}: shrink it or raise the limit'
            )
        image.load()
        return to_eight_bits(ImageOps.exif_transpose(image), name)


def to_eight_bits(image: Image.Image, name: str = 'image') -> Image.Image:
    """The image in mode L or RGB: 16 bits scaled to 8, transparent parts over white.

    Raises:
      InputError: floating-point pixels, or 32-bit ones beyond 16 bits: their scale is unknown.
    """
    mode = image.mode
    if mode.startswith('I'):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(f'{name} has 32-bit pixels beyond 0..65535: convert it to 16 bits')
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    if mode == 'F':
        raise InputError(f'{name} has floating-point pixels: convert it to 8 or 16 bits')
    if 'transparency' in image.info or image.has_transparency_data:
        image = image.convert('RGBA')
        white = Image.new('RGBA', image.size, 'white')
        return Image.alpha_composite(white, image).convert('RGB')
    return image.convert('L' if mode in ('1', 'L') else 'RGB')
