"""Costs of images that their width and height do not say, told before they are decoded.

A bomb is a small file that takes hours or gigabytes. Those of many pixels are refused by
max_pixels; here are the others that Pillow decodes.
"""

import re
from typing import BinaryIO

from PIL import Image

MAX_SCANNED = 2_000_000_000  # pixels of all scans of a JPEG: each takes as long as an image
MARKER = re.compile(rb'\xff[^\x00\xd0-\xd7\xff]')  # of a JPEG, but those inside of a scan
SCAN, END, BARE = 0xDA, 0xD9, (0x01, 0xD8)  # BARE: nothing belongs to them
TILE = (322, 323)  # TIFF's tags of a tile's width and length


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
    while found := MARKER.search(content, at):
        at, kind = found.end(), content[found.end() - 1]
        if kind == END:
            break
        count += kind == SCAN
        at += 0 if kind in BARE else int.from_bytes(content[at : at + 2])
    return count
