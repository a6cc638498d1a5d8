"""From a decoded image to the 8-bit pixels that a net takes; needs NumPy and Pillow only.

`export` writes a copy of this file beside a program, so that images are read there as here.
Everything that is as large as the image is done in bands of rows, so that memory stays within a few
bytes a pixel.
"""

import io
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageOps

CROPS = ('auto', 'whole', 'centre', 'tiles')
SQUARISH = 4 / 3  # sides that differ by more than a third lose too much to a centred square
TILES = 3  # squares along the longer side
LEVELS = 8  # fewer grey levels than that after scaling to 8 bits are worth a word
FULL = 2**16
USED = FULL // 4  # values that span less than that don't use the range of 16 bits
TAILS = 0.001  # share of the darkest and of the brightest pixels that a stretched range ignores
FAINT = 24  # a drawing that is nearer to white than that, on average, can't be seen on white
BAND = 1 << 20  # pixels of a band of rows
MAX_PROFILE = 4 << 20  # bytes of a colour profile
MODES = ('L', 'RGB', 'RGBA', 'LA', 'CMYK')  # that a colour profile is applied to


class Eight(NamedTuple):
    """An image of 8 bits."""

    image: Image.Image  # mode L or RGB
    few_levels: bool  # fewer than `LEVELS` levels are left of 16 bits or floats


def eight_bits(image: Image.Image, span: tuple[float, ...] = ()) -> Eight:
    """The image upright, in sRGB, in mode L or RGB.

    EXIF's orientation is applied. 16 bits, 32 bits and floats become 8 by `span` or, without one,
    by their own range (`value_range`). Transparent parts become white; where the drawing is nearly
    white itself, black, and where it is of one such colour, its shape is drawn in black on white.

    Args:
      span: (low, high), the values that become 0 and 255; () for the image's own range.
    Raises:
      ValueError: pixels that are not finite, or a span that is none.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith('I') or image.mode == 'F':
        return _scaled(image, span)
    image = _srgb(image)
    if 'transparency' in image.info or image.has_transparency_data:
        return Eight(_opaque(image), False)
    return Eight(image.convert('L' if image.mode in ('1', 'L') else 'RGB'), False)


def value_range(low: float, high: float, whole: bool) -> tuple[float, float]:
    """The values that become 0 and 255, of what an image's pixels span (without its tails).

    Whole numbers have the range of 16 bits where they span a quarter of it, or all are the same,
    else their own. Fractions have 0..1 where they fit it, or 0..255, else their own.
    """
    if whole:
        if low >= 0 and high < FULL and (high - low >= USED or high == low):
            return 0, FULL - 1
    elif low >= 0 and high <= 1:
        return 0, 1
    elif low >= 0 and high <= 255:
        return 0, 255
    return (low, high) if high > low else (low, low + 1)


def _scaled(image: Image.Image, span: tuple[float, ...]) -> Eight:
    if span and (len(span) != 2 or not span[0] < span[1]):
        raise ValueError(f'range={span}: need (low, high), low < high')
    bands = lambda: (np.asarray(image.crop(box)) for box in _bands(image.size))
    least = min(float(np.min(b)) for b in bands())
    most = max(float(np.max(b)) for b in bands())
    if not np.isfinite(least + most):
        raise ValueError('has pixels that are not finite')
    whole = image.mode != 'F'
    low, high = tuple(span) or _own_range(bands, least, most, whole)
    result, seen = Image.new('L', image.size), np.zeros(256, bool)
    for box, band in zip(_bands(image.size), bands(), strict=True):
        share = (band.astype(np.float64) - low) / (high - low)
        grey = np.floor(np.clip(share, 0, 1) * 255 + 0.5).astype(np.uint8)
        seen[grey] = True
        result.paste(Image.fromarray(grey), box[:2])
    return Eight(result, bool(seen.sum() < LEVELS and most > least))


def _own_range(bands: Any, least: float, most: float, whole: bool) -> tuple[float, float]:
    """`value_range` of the values without their tails, by a histogram of 2^16 bins."""
    width = max(most - least, 1) / (FULL - 1) if whole else max(most - least, 1e-300) / (FULL - 1)
    count = np.zeros(FULL, np.int64)
    for band in bands():
        bins = np.minimum((band.astype(np.float64) - least) / width, FULL - 1).astype(np.int64)
        count += np.bincount(bins.ravel(), minlength=FULL)
    below = np.cumsum(count)
    cut = TAILS * below[-1]
    low = least + width * int(np.searchsorted(below, cut, side='right'))
    high = least + width * int(np.searchsorted(below, below[-1] - cut))
    if not whole and least >= 0 and most <= 255:  # a usual scale is told by all of the values
        return value_range(least, most, whole)
    if high <= low:
        low, high = least, most
    return value_range(low, high, whole)


def _srgb(image: Image.Image) -> Image.Image:
    """The image by its colour profile; as it is without one, or with one that can't be used."""
    content = image.info.get('icc_profile')
    if not content or len(content) > MAX_PROFILE or image.mode not in MODES:
        return image
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(content))
        if 'srgb' in ImageCms.getProfileDescription(own).casefold():
            return image
        alpha = image.getchannel('A') if image.mode in ('RGBA', 'LA') else None
        inputs = {'RGBA': 'RGB', 'LA': 'L'}.get(image.mode, image.mode)
        change = ImageCms.buildTransform(own, ImageCms.createProfile('sRGB'), inputs, 'RGB')
        result = Image.new('RGB', image.size)
        for box in _bands(image.size):
            band = image.crop(box)
            band = band if band.mode == inputs else band.convert(inputs)
            changed = ImageCms.applyTransform(band, change)
            assert changed is not None  # as of work in place
            result.paste(changed, box[:2])
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    if alpha is not None:
        result.putalpha(alpha)
    return result


def _opaque(image: Image.Image) -> Image.Image:
    """RGB, over white or over what shows the drawing."""
    total = np.zeros(5)  # of alpha, and of each channel and the distance to white, weighted by it
    lowest, highest = np.full(3, 255), np.zeros(3, int)
    hidden = False
    for box in _bands(image.size):
        band = np.asarray(image.crop(box).convert('RGBA'))
        colour, alpha = band[..., :3], band[..., 3]
        seen = alpha > 0
        hidden |= bool((alpha < 128).any())
        weight = alpha[seen].astype(np.float64)
        total[0] += weight.sum()
        total[4] += (weight * (255 - colour[seen].min(1))).sum()
        if seen.any():
            lowest = np.minimum(lowest, colour[seen].min(0))
            highest = np.maximum(highest, colour[seen].max(0))
    faint = hidden and total[0] > 0 and total[4] / total[0] < FAINT
    if faint and (highest - lowest).max() < LEVELS:
        shape = image.convert('RGBA').getchannel('A')
        return ImageOps.invert(shape).convert('RGB')
    result, ground = Image.new('RGB', image.size), 'black' if faint else 'white'
    for box in _bands(image.size):
        part = image.crop(box).convert('RGBA')
        under = Image.new('RGBA', part.size, ground)
        result.paste(Image.alpha_composite(under, part).convert('RGB'), box[:2])
    return result


def _bands(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Boxes of whole rows that cover an image."""
    width, height = size
    rows = max(BAND // max(width, 1), 1)
    for top in range(0, height, rows):
        yield 0, top, width, min(top + rows, height)


# To the size of a net.


def fit(image: Image.Image, size: int, crop: str = 'centre') -> Any:
    """[size, size, channels] uint8, resized (bicubic, averaging over all source pixels).

    Args:
      crop: centre (the largest centred square) | whole (all of it, sides stretched) | auto (centre
        where the sides differ by a third at most, else whole).
    """
    if seen(image.size, crop) == 'whole':
        square = image.resize((size, size), Image.Resampling.BICUBIC)
    else:
        square = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(square).reshape(size, size, -1)


def is_long(size: tuple[int, int]) -> bool:
    """True if a centred square would leave out more than a quarter of an image."""
    return max(size) > SQUARISH * min(size)


def seen(size: tuple[int, int], crop: str) -> str:
    """Resolves `crop` for an image of that width and height: whole or centre."""
    if crop != 'auto':
        return 'centre' if crop == 'centre' else 'whole'
    return 'whole' if is_long(size) else 'centre'


def tiles(image: Image.Image, size: int) -> Any:
    """[TILES, size, size, channels] uint8: squares along the longer side that cover all of it.

    Of an image longer than TILES squares, parts of equal length, stretched to squares.
    """
    width, height = image.size
    long, short = max(width, height), min(width, height)
    length = max(short, long / TILES)
    parts = []
    for i in range(TILES):
        start = (long - length) * i / (TILES - 1)
        box = (start, 0, start + length, height) if width >= height else (
            0, start, width, start + length)  # fmt: skip
        parts.append(np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box)))
    return np.stack(parts).reshape(TILES, size, size, -1)


def read(source: Any, size: int, crop: str = 'auto', span: Sequence[float] = ()) -> Any:
    """[size, size, 3] uint8 of an image file: what an exported program takes."""
    with Image.open(source) as image:
        found = fit(eight_bits(image, tuple(span)).image, size, crop)
    return found if found.shape[-1] == 3 else np.repeat(found, 3, -1)
