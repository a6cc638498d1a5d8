"""Masks of defects as tools write them: in any form, under any of the names in use.

A mask may be black and white (0 and 1, or 0 and 255), ids or colours of several types, a palette, a
drawing on transparency, of 1, 8, 16 or 32 bits or floats, or a .npy array. What is not background
is defect. The background is black, or transparent; where nothing is black, it is a palette's first
colour, or what is not above half of the largest grey. JPEG blurs edges, so that there, too, only
what is above half of the largest grey counts.

Files are matched to images by their names without what says that they are masks (000_mask, 000-gt,
mask_000, 000_Mask, ...), or by a folder of the image's name with one or more masks in it (MVTec
LOCO AD).
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from anyshot_jax.data.readers.images import NotRead, decoding
from anyshot_jax.types import Array, InputError

FOLDERS = frozenset(
    ('ground_truth', 'groundtruth', 'ground truth', 'ground-truth', 'gt', 'mask', 'masks')
)
SAYS = '(?:mask|masks|gt|ground[_ -]?truth|label|labels|seg|segmentation|annotation|anomaly|defect)'
AFTER = re.compile(rf'[ _.-]+{SAYS}$', re.IGNORECASE)
BEFORE = re.compile(rf'^{SAYS}[ _.-]+', re.IGNORECASE)
LOSSY = ('JPEG', 'MPO')
SUFFIX = '.npy'


def read(paths: Sequence[Path], max_pixels: int) -> Array:
    """[H, W] bool, True where one of the masks of an image shows a defect.

    Raises:
      InputError: unreadable, damaged or too large, or masks of different sizes; names the file.
    """
    first, *others = (_read(path, max_pixels) for path in paths)
    for path, other in zip(paths[1:], others, strict=True):
        if other.shape != first.shape:
            raise InputError(f'the mask {path} has another size than {paths[0]}')
        first = first | other
    return first


def at_size(inside: Array, size: tuple[int, int], name: str) -> Array:
    """A mask [h, w] bool at the size of its image, (width, height): nearest, the shape being equal.

    Raises:
      InputError: it has another shape, which is how a mask of another image looks; says `name`.
    """
    height, width = inside.shape
    if (width, height) == size:
        return inside
    # Equal up to what rounding the mask's sides does, half a pixel each.
    if abs(width * size[1] - height * size[0]) >= sum(size) / 2:
        raise InputError(
            f'{name} has {width} x {height} pixels, but its image {size[0]} x {size[1]}, which is '
            'another shape'
        )
    whole = Image.fromarray(inside.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
    return np.asarray(whole) > 0


def _read(path: Path, max_pixels: int) -> Array:
    try:
        return _of_array(path, max_pixels) if path.suffix.lower() == SUFFIX else _of_image(
            path, max_pixels)  # fmt: skip
    except InputError:
        raise
    except UnidentifiedImageError as e:
        raise InputError(f'the mask {path} is not an image') from e
    except Exception as e:  # whatever a decoder raises on hostile bytes, the file is the reason
        raise InputError(
            f'the mask {path} is damaged or unreadable: {type(e).__name__}: {e}'
        ) from e


def _of_array(path: Path, max_pixels: int) -> Array:
    with path.open('rb') as f:
        version = np.lib.format.read_magic(f)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else (
            np.lib.format.read_array_header_2_0)  # fmt: skip
        shape, _, dtype = header(f)
    shape = tuple(n for n in shape if n != 1) if len(shape) > 2 else shape
    if len(shape) != 2 or dtype.kind not in 'buif':
        raise InputError(f'the mask {path} is {dtype} {shape}: need numbers [H, W]')
    if shape[0] * shape[1] > max_pixels:
        raise NotRead(f'the mask {path} has {shape[1]} x {shape[0]} pixels, more than max_pixels')
    found = np.load(path, allow_pickle=False).reshape(shape)
    return np.nan_to_num(found) != 0 if dtype.kind == 'f' else found != 0


def _of_image(path: Path, max_pixels: int) -> Array:
    with path.open('rb') as f, decoding(f, max_pixels, f'the mask {path}') as image:
        return shown(image)


def shown(image: Image.Image) -> Array:
    """[H, W] bool, True where a mask that is open as an image shows a defect."""
    lossy = image.format in LOSSY
    image = ImageOps.exif_transpose(image)
    if 'transparency' in image.info or image.has_transparency_data:
        drawn = np.asarray(image.convert('RGBA'))
        if (drawn[..., 3] == 0).any():
            visible, coloured = drawn[..., 3] > 0, drawn[..., :3].any(-1)
            return visible & coloured if (visible & coloured).any() else visible
    if image.mode == 'P':
        index, colour = np.asarray(image), np.asarray(image.convert('RGB')).any(-1)
        return colour if not colour.all() else index != 0
    if image.mode in ('L', 'I', 'F', '1') or image.mode.startswith('I;'):
        grey = np.asarray(image)
    else:
        grey = np.asarray(image.convert('RGB')).max(-1)
    grey = grey.astype(np.uint8) if grey.dtype == bool else grey
    if lossy or (grey != 0).all():
        return grey > grey.max() // 2 if grey.max() > 0 else grey != 0
    return grey != 0


def match(images: Iterable[str], masks: Iterable[str]) -> tuple[dict[str, list[str]], list[str]]:
    """(image -> its masks, masks that belong to none), by names without suffixes.

    Args:
      images, masks: inside their folders, with / between folders.
    """
    by_name = {image.casefold(): image for image in images}
    of_image: dict[str, list[str]] = {}
    lost = []
    for mask in masks:
        image = next((by_name[n] for n in _names(mask) if n in by_name), None)
        if image is None:
            lost.append(mask)
        else:
            of_image.setdefault(image, []).append(mask)
    return of_image, lost


def _names(mask: str) -> Iterable[str]:
    """Names that the image of a mask may have, the likeliest first."""
    folder, _, name = mask.casefold().rpartition('/')
    inside = f'{folder}/' if folder else ''
    yield inside + name
    for pattern in (AFTER, BEFORE):
        bare = pattern.sub('', name)
        if bare and bare != name:
            yield inside + bare
    if folder:  # a folder of masks for each image
        yield folder
