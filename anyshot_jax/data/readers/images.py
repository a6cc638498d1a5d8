"""One image from anywhere -> uint8 pixels, or an error that names it.

Every door reads by this file: the loaders, `predict`, `serve` and the classifier. What is done to
the pixels themselves is in `pixels.py`, which kinds of sources there are in `sources.py`.
"""

import contextlib
import io
import os
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from anyshot_jax.data.readers import bombs, pixels
from anyshot_jax.data.readers.kinds import HEIC, NotAnImage, NotRead, unread_kind
from anyshot_jax.data.readers.pixels import CROPS, fit
from anyshot_jax.runtime.bars import bar
from anyshot_jax.types import Array, InputError

with contextlib.suppress(ImportError):  # the extra `heic`; pillow_heif is the same with an encoder
    try:
        from pi_heif import register_heif_opener
    except ImportError:
        from pillow_heif import register_heif_opener
    register_heif_opener()

Image.init()  # all its formats, now: Pillow's own first use of one is not safe among threads
WANTED = ('PNG', 'JPEG', 'BMP', 'GIF', 'TIFF', 'WEBP', 'PPM', 'JPEG2000', 'AVIF', 'HEIF')
FORMATS = tuple(f for f in WANTED if f in Image.OPEN)  # some need libraries that may be absent
# fmt: off
SUFFIXES = (
    '.png', '.jpg', '.jpeg', '.jpe', '.jfif', '.bmp', '.dib', '.gif', '.tif', '.tiff', '.webp',
    '.ppm', '.pgm', '.pbm', '.pnm', '.jp2', '.avif',
    *(('.heic', '.heif', '.hif') if 'HEIF' in FORMATS else ()),
)
# fmt: on
MAX_PIXELS = 50_000_000  # an image that unpacks to more is refused
MEMORY = 800_000_000  # bytes that all images in decoding may take together,
PER_PIXEL = 16  # of which one takes so many a pixel
ONE_COLOUR, FEW_LEVELS = 'images of one colour', f'images of fewer than {pixels.LEVELS} grey levels'
PAGES = 'files of several images, of which the first counts'


class Reading(NamedTuple):
    """Settings for reading images."""

    crop: str = 'auto'  # auto | whole | centre | tiles, see `pixels.fit`
    span: tuple[float, ...] = ()  # the values of 16 bits and floats that become 0 and 255
    max_pixels: int = MAX_PIXELS

    def check(self) -> 'Reading':
        """Itself; InputError where no image can be read so."""
        if self.crop not in CROPS:
            raise InputError(f'crop={self.crop!r}: need {", ".join(CROPS)}')
        numbers = all(isinstance(v, (int, float)) and np.isfinite(v) for v in self.span)
        if self.span and not (len(self.span) == 2 and numbers and self.span[0] < self.span[1]):
            raise InputError(f'range={self.span}: need two numbers (low, high), low < high')
        if self.max_pixels < 1:
            raise InputError(f'max_pixels={self.max_pixels}: need 1 or more')
        return self


def span_of(text: str) -> tuple[float, ...]:
    """(low, high) of 'LOW,HIGH', as --range has it; () of ''."""
    try:
        return tuple(float(v) for v in text.split(',')) if text else ()
    except ValueError:
        raise InputError(f'--range={text}: need two numbers, as --range=0,4095') from None


def read_image(
    source: Path | bytes, size: int, channels: int, max_pixels: int, name: str = '',
    crop: str = 'centre', span: tuple[float, ...] = (), odd: list[str] | None = None,
    shape: list[tuple[int, int]] | None = None,
) -> Array:  # fmt: skip
    """[size, size, channels] uint8: `open_image`, cropped and resized as `pixels.fit` does it.

    channels: 3 or 1. shape: takes width and height as they were. Raises as below.
    """
    image = open_image(source, max_pixels, name, span, odd)
    if shape is not None:
        shape.append(image.size)
    if channels == 1:
        return fit(image.convert('L'), size, crop)
    return in_colour(fit(image, size, crop))


def in_colour(x: Array) -> Array:
    """[..., 3] of [..., 1 or 3]: grey is expanded after it was made small."""
    return x if x.shape[-1] == 3 else np.repeat(x, 3, -1)


def read_images(
    count: int,
    source: Callable[[int], tuple[Path | bytes, str]],
    config,
    read: Callable[[Path | bytes, str], Any] | None = None,
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


def open_image(
    source: Path | bytes | Image.Image,
    max_pixels: int,
    name: str = '',
    span: tuple[float, ...] = (),
    odd: list[str] | None = None,
) -> Image.Image:
    """The upright image in mode L or RGB (see `pixels.eight_bits`); of several the first.

    The format is told from the content. All that are decoded at a time share `MEMORY`.

    Args:
      source: a file, its bytes, or an image. max_pixels: checked before decoding.
      name: for error messages; the path when empty. span: as `Reading`.
      odd: takes what is worth a word: ONE_COLOUR, FEW_LEVELS, PAGES.
    Raises:
      NotAnImage: unknown content. NotRead: a kind that isn't read, or too large. InputError:
        unreadable or damaged. All name the file.
    """
    name = name or str(source)
    try:
        if isinstance(source, Image.Image):
            return _eight_bits(source, max_pixels, name, span, odd)
        with io.BytesIO(source) if isinstance(source, bytes) else source.open('rb') as f:
            return _decode(f, max_pixels, name, span, odd)
    except InputError:
        raise
    except UnidentifiedImageError as e:
        raise _unknown(source, name) from e
    except Exception as e:  # whatever a decoder raises on hostile bytes, the file is the reason
        raise InputError(f'{name} is damaged or unreadable: {type(e).__name__}: {e}') from e


def _decode(f: BinaryIO, max_pixels: int, name: str, span, odd) -> Image.Image:
    with _opened(f, name) as image:
        if odd is not None and _has_pages(image):
            odd.append(PAGES)
        return _eight_bits(image, max_pixels, name, span, odd)


@contextlib.contextmanager
def decoding(f: BinaryIO, max_pixels: int, name: str) -> Iterator[Image.Image]:
    """An open file's image as it is, unpacked; its memory is of the share of all.

    Raises:
      NotRead: too large. Whatever a decoder raises on damaged bytes.
    """
    with _opened(f, name) as image, _room(image, max_pixels, name):
        image.load()
        yield image


_opening = threading.Lock()


def _opened(f: BinaryIO, name: str) -> Image.Image:
    """The file's header; max_pixels is checked here, and not by Pillow's own limit."""
    if why := bombs.refusal(f):
        raise InputError(f'{name} {why}')
    pieces = bombs.Pieces(f, name)
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(pieces, formats=FORMATS)  # type: ignore[arg-type]
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    pieces.left = bombs.PIXELS
    if bombs.has_scans(image, f):
        raise InputError(f'{name} is a JPEG of very many scans: save it as one of a single scan')
    return image


def _has_pages(image: Image.Image) -> bool:
    if image.format in ('MPO', 'JPEG'):  # a camera's previews
        return False
    if image.format != 'TIFF':
        return bool(getattr(image, 'is_animated', False))
    try:  # unlike its n_frames, which walks through all
        image.seek(1)
    except EOFError:
        return False
    finally:
        image.seek(0)
    return True


def _eight_bits(image: Image.Image, max_pixels: int, name: str, span, odd) -> Image.Image:
    with _room(image, max_pixels, name):
        image.load()
        try:
            found = pixels.eight_bits(image, span)
        except ValueError as e:
            raise InputError(f'{name} {e}') from e
    if odd is not None:
        ends = np.ravel(found.image.getextrema())  # of every channel
        if (ends[::2] == ends[1::2]).all():
            odd.append(ONE_COLOUR)
        elif found.few_levels:
            odd.append(FEW_LEVELS)
    return found.image


_free, _freed = [MEMORY], threading.Condition()


@contextlib.contextmanager
def _room(image: Image.Image, max_pixels: int, name: str) -> Iterator[None]:
    """Waits until the images in decoding leave room for one more; the largest goes alone.

    Raises:
      NotRead: it has more than max_pixels.
    """
    width, height = bombs.unpacked(image)
    if width * height > max_pixels:
        raise NotRead(
            f'{name} has {width} x {height} pixels, more than max_pixels = {max_pixels:,}: shrink '
            f'it, or give max_pixels={width * height}'
        )
    if not width * height:
        raise InputError(f'{name} has {width} x {height} pixels: there is nothing to see')
    need = min(width * height * PER_PIXEL, MEMORY)
    with _freed:
        _freed.wait_for(lambda: _free[0] >= need)
        _free[0] -= need
    try:
        yield
    finally:
        with _freed:
            _free[0] += need
            _freed.notify_all()


def _unknown(source: Any, name: str) -> InputError:
    """The error for content that no decoder knows."""
    if isinstance(source, bytes):
        head = source[:4096]
    else:
        with source.open('rb') as f:
            head = f.read(4096)
    kind = unread_kind(name, head)
    if kind == HEIC and 'HEIF' in FORMATS:
        return InputError(f'{name} is a damaged HEIC image, or of a kind of it that is not read')
    if kind:
        return NotRead(f'{name} is {kind}')
    return NotAnImage(f'{name} is not an image ({", ".join(FORMATS)} are read)')
