"""Limits of files that are read for images: as many bytes as their pixels may need."""

from pathlib import Path

from anyshot_jax.data.readers.images import MAX_PIXELS, SUFFIXES
from anyshot_jax.data.readers.kinds import BY_SUFFIX, NotAnImage, NotRead
from anyshot_jax.storage.files import read_whole

FILE_PER_PIXEL = 10  # bytes that a file may have, each pixel of max_pixels allowing so many


def file_content(path: Path, max_pixels: int) -> bytes:
    """The bytes of a file that may hold an image of so many pixels.

    Raises:
      NotRead: an image that is too large; NotAnImage: another file that is. OSError: unreadable.
    """
    check_size(path, path.stat().st_size, max_pixels)
    return read_whole(path, most_bytes(max_pixels))


def most_bytes(max_pixels: int) -> int:
    """Largest number of bytes of a file; never less than for `MAX_PIXELS`."""
    return FILE_PER_PIXEL * max(max_pixels, MAX_PIXELS)


def check_size(path: Path, size: int, max_pixels: int) -> None:
    """Refuses (NotRead, NotAnImage) a file of so many bytes where they are too many."""
    if size > (most := most_bytes(max_pixels)):
        kind = NotRead if path.suffix.lower() in (*SUFFIXES, *BY_SUFFIX) else NotAnImage
        raise kind(
            f'{path} has {size:,} bytes, more than the {most:,} that max_pixels = {max_pixels:,} '
            f'allows: shrink it, or give max_pixels={-(-size // FILE_PER_PIXEL)}'
        )
