"""Images as requests bring them: read within limits, and made into what a page shows."""

import base64
import hashlib
import io
import re
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from anyshot_jax.data.readers.images import Reading
from anyshot_jax.data.readers.sources import image_of
from anyshot_jax.types import Array, InputError


class Limits(NamedTuple):
    """Limits of a request, and of a model."""

    bytes: int = 64 * 2**20
    images: int = 16
    pixels: int = 50_000_000  # of one image, unpacked
    all_pixels: int = 200_000_000  # of all images of a request, unpacked one after the other
    held_pixels: int = 60_000_000  # of all images of a request that are unpacked together
    seconds: int = 60  # that a request may take to arrive
    name: int = 100  # characters
    description: int = 2000
    classes: int = 1000
    support: int = 10_000  # images


class Upload(NamedTuple):
    """An image file as it came; its name is shown, and never a path."""

    name: str
    content: bytes


class Seen(NamedTuple):
    """An upload that was read."""

    name: str
    image: Image.Image  # upright, of mode L or RGB
    odd: list[str]  # what is worth a word, such as that it is of one colour


_unpacking = threading.Lock()  # only one image is unpacked at once: it may be large


def opened(uploads: Sequence[Upload], how: Reading, most_pixels: int) -> Iterator[Seen]:
    """Reads uploads one after the other.

    Args:
      most_pixels: of all of them.
    Raises:
      InputError: a file is no image, damaged or too large, or all of them are together.
    """
    pixels = 0
    for upload in uploads:
        odd: list[str] = []
        with _unpacking:
            image = image_of(upload.content, upload.name, how, odd)
        pixels += image.width * image.height
        if pixels > most_pixels:
            raise InputError(
                f'more than {most_pixels:,} pixels in one request: send fewer images at once'
            )
        yield Seen(upload.name, image, odd)


def line(text: str, what: str, most: int, empty: bool = False) -> str:
    """One line of text without control characters; InputError if it is too long, or empty."""
    text = unicodedata.normalize('NFC', text)
    text = ' '.join(re.sub(r'[\x00-\x1f\x7f-\x9f\ud800-\udfff]', ' ', text).split())
    if not (text or empty):
        raise InputError(f'{what} is missing')
    if len(text) > most:
        raise InputError(f'{what} has {len(text):,} characters: {most:,} at most')
    return text


def digest(image: Array) -> str:
    """Digest of an image's pixels, which is its address."""
    return hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=16).hexdigest()


def encoded(image: Array, kind: str) -> bytes:
    """A file of kind png or jpeg of an image [H, W, 3] uint8."""
    data = io.BytesIO()
    how = {} if kind == 'png' else {'quality': 85, 'subsampling': 0}
    Image.fromarray(image).save(data, kind, **how)
    return data.getvalue()


def uri(image: Array) -> str:
    """The image as a page may have it in its text."""
    return 'data:image/jpeg;base64,' + base64.b64encode(encoded(image, 'jpeg')).decode()
