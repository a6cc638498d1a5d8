"""Costs of images that their width and height do not say, told before they are decoded.

A bomb is a small file that takes hours or gigabytes. Those of many pixels are refused by
max_pixels; here are the others that Pillow decodes.
"""

import re
import struct
from typing import Any, BinaryIO

from PIL import Image

from anyshot_jax.types import InputError

MAX_SCANNED = 2_000_000_000  # pixels of all scans of a JPEG: each takes as long as an image
MARKER = re.compile(rb'\xff[^\x00\xd0-\xd7\xff]')  # of a JPEG, but those inside of a scan
SCAN, END, BARE = 0xDA, 0xD9, (0x01, 0xD8)  # BARE: nothing belongs to them
MAX_MARKERS = 100_000
TILE = (322, 323)  # TIFF's tags of a tile's width and length
OFFSETS = (273, 324)  # and of where its strips and tiles are
MAX_STRIPS = 200_000
MAX_COMMENTS = 1000  # of a PPM in digits: for each, Pillow copies what follows
HEADER, PIXELS = 20_000, 1_000_000  # pieces that a file is read in, a few a segment


class Pieces:
    """An open file that may be read in so many pieces.

    Pillow reads headers by loops over segments, blocks, chunks or single bytes, so that a file of
    empty ones takes minutes.
    """

    def __init__(self, f: BinaryIO, name: str, left: int = HEADER):
        self._file, self._name, self.left = f, name, left

    def read(self, *size: int) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise InputError(f'{self._name} is made of very many small pieces: save it again')
        return self._file.read(*size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def refusal(f: BinaryIO) -> str:
    """Reason to keep a file from Pillow's header readers, or ''."""
    head = f.read(8)
    try:
        if head[:2] in (b'P1', b'P2', b'P3') and f.read().count(b'#') > MAX_COMMENTS:
            return f'has more than {MAX_COMMENTS:,} comments: save it without'
        if head[:2] in (b'II', b'MM') and _strips(f, head) > MAX_STRIPS:
            return f'is a TIFF of more than {MAX_STRIPS:,} strips or tiles: save it in larger ones'
        return ''
    finally:
        f.seek(0)


def _strips(f: BinaryIO, head: bytes) -> int:
    """The strips or tiles of a TIFF's first image; 0 where its directory can't be read."""
    order = '<' if head[:2] == b'II' else '>'
    big = head[2:4] in (b'+\0', b'\0+')
    number, entry = (order + 'Q', order + 'HHQQ') if big else (order + 'H', order + 'HHII')
    counts = [0]
    try:
        f.seek(8 if big else 4)
        f.seek(*struct.unpack(order + 'Q' if big else order + 'I', f.read(8 if big else 4)))
        (entries,) = struct.unpack(number, f.read(struct.calcsize(number)))
        for _ in range(min(entries, 2**16)):
            tag, _, count, _ = struct.unpack(entry, f.read(struct.calcsize(entry)))
            counts += [count] * (tag in OFFSETS)
    except (OSError, OverflowError, ValueError, struct.error):
        return 0  # Pillow says what is wrong with it
    return max(counts)


def unpacked(image: Image.Image) -> tuple[int, int]:
    """Width and height of what is decoded at once: a TIFF's tiles may be larger than the image."""
    tags = getattr(image, 'tag_v2', None) or {}
    width, height = (tags.get(tag, 0) for tag in TILE)
    whole = isinstance(width, int) and isinstance(height, int)
    return (width, height) if whole and width * height > image.width * image.height else image.size


def has_scans(image: Image.Image, f: BinaryIO) -> bool:
    """True for a JPEG of too many scans: a few bytes of each go over all pixels."""
    if image.format not in ('JPEG', 'MPO'):
        return False
    before = f.tell()
    f.seek(0)
    scans = _scans(f.read())
    f.seek(before)
    return scans > 1 and scans * image.width * image.height > MAX_SCANNED


def _scans(content: bytes) -> int:
    """The scans of a JPEG's first image, without those of a preview in its header."""
    at, count = 0, 0
    for _ in range(MAX_MARKERS):
        found = MARKER.search(content, at)
        if not found:
            return count
        at, kind = found.end(), content[found.end() - 1]
        if kind == END:
            return count
        count += kind == SCAN
        at += 0 if kind in BARE else int.from_bytes(content[at : at + 2])
    return MAX_SCANNED
