"""Images as the encoder takes them: one square, or tiles that overlap.

All of an image is looked at. Without tiles both of its sides become `size` pixels. With tiles its
shorter side becomes `size` pixels (0: as they are) and squares of `tile` pixels pass one by one;
of two that overlap each place is judged by the one in which it is farther from the edge, at least
`overlap` pixels unless the image itself ends there. Once that is as far as an encoder's place sees,
the maps are those of the whole image; little changes from a fraction of it on.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from anyshot_jax.types import Array, InputError

STEP = 32  # tiles begin at multiples of it, so that their cells are the image's
LEAST, MOST = 16, 4096  # pixels of a side
MOST_SEEN = 200_000_000  # pixels that an image is enlarged to


class View(NamedTuple):
    """The settings; `side` is what the encoder takes."""

    size: int
    tile: int
    overlap: int
    crop: str = 'whole'  # or centre: the largest centred square

    @property
    def side(self) -> int:
        return self.tile or self.size


class Square(NamedTuple):
    """One of the squares of an image, and which of its cells count."""

    x: Array  # [side, side, 3] uint8
    own: tuple[slice, slice]  # its cells that count,
    at: tuple[slice, slice]  # and where these are in the image's map


def check(view: View) -> None:
    """Refuses (InputError) settings that can't be; names the field."""
    if view.crop == 'tiles':
        raise InputError("crop='tiles': give the tiles' side in pixels instead, such as tile=256")
    if view.tile:
        if not 0 < view.tile <= MOST or view.tile % STEP:
            raise InputError(
                f'tile={view.tile}: need a multiple of {STEP} up to {MOST}; 0: no tiles'
            )
        if view.overlap < 0 or view.overlap % STEP or 2 * view.overlap >= view.tile:
            raise InputError(
                f'overlap={view.overlap}: need a multiple of {STEP} below half of tile={view.tile}'
            )
    least = 0 if view.tile else LEAST
    if view.size < least or view.size > MOST or (0 < view.size < LEAST):
        raise InputError(f'size={view.size}: need {LEAST} to {MOST} pixels'
                         + (', or 0 for images as they are' if view.tile else ''))  # fmt: skip


def looked_at(size: tuple[int, int], view: View) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is seen of an image of this size."""
    width, height = size
    if view.crop != 'centre':
        return 0, 0, width, height
    side = min(size)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def grid(image: Image.Image, view: View, cells: int) -> tuple[int, int]:
    """Rows and columns of the map of what is seen of an image. cells: of a side of a square."""
    if not view.tile:
        return cells, cells
    width, height = seen_size(image.size, view)
    cell = view.tile // cells
    return -(-height // cell), -(-width // cell)


def squares(image: Image.Image, view: View, cells: int) -> Iterator[Square]:
    """The squares of what is seen of an RGB image, one at a time."""
    if not view.tile:
        whole = slice(0, cells), slice(0, cells)
        x = np.asarray(image.resize((view.size, view.size), Image.Resampling.BICUBIC))
        yield Square(x, whole, whole)
        return
    rows, columns = grid(image, view, cells)
    size = seen_size(image.size, view)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC)
    x = np.asarray(image)
    cell = view.tile // cells
    for top, own_rows, at_rows in _along(rows, size[1], view, cell):
        for left, own_columns, at_columns in _along(columns, size[0], view, cell):
            part = x[top : top + view.tile, left : left + view.tile]
            lack = [(0, view.tile - n) for n in part.shape[:2]]
            if lack != [(0, 0), (0, 0)]:
                part = np.pad(part, (*lack, (0, 0)), mode='edge')
            yield Square(part, (own_rows, own_columns), (at_rows, at_columns))


def _along(count: int, length: int, view: View, cell: int) -> Iterator[tuple[int, slice, slice]]:
    """Yields where squares begin along one side, and the cells that each answers for."""
    padded = max(view.tile, -(-length // STEP) * STEP)
    last, step = padded - view.tile, view.tile - 2 * view.overlap
    starts = [*range(0, last, step), last]
    # Between two squares the middle of what both see is the border.
    middle = [(b + a + view.tile) // 2 // cell for a, b in itertools.pairwise(starts)]
    for start, first, end in zip(starts, [0, *middle], [*middle, count], strict=True):
        end = min(end, count)
        if end > first:
            offset = start // cell
            yield start, slice(first - offset, end - offset), slice(first, end)


def seen_size(size: tuple[int, int], view: View) -> tuple[int, int]:
    """Width and height at which an image of this size is cut into tiles.

    A line of pixels, some thousand times as long as wide, is enlarged to `MOST_SEEN` only.
    """
    if not view.size:
        return size
    share = min(view.size / min(size), max(1.0, (MOST_SEEN / (size[0] * size[1])) ** 0.5))
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def box(
    cell: Sequence[int], cells: int, size: tuple[int, int], view: View
) -> tuple[int, int, int, int]:
    """Left, top, right, bottom in pixels of what a cell (row, column) of a map stands for.

    Args:
      cells: of a side of a square. size: width and height of the image.
    """
    left, top, right, bottom = looked_at(size, view)
    size = right - left, bottom - top
    seen = seen_size(size, view) if view.tile else (view.size, view.size)
    step = view.side / cells
    ends = []
    for at, length, pixels, start in zip(cell[::-1], size, seen, (left, top), strict=True):
        first = min(int(at * step * length / pixels), length - 1)
        end = min(max(round((at + 1) * step * length / pixels), first + 1), length)
        ends.append((start + first, start + end))
    return ends[0][0], ends[1][0], ends[0][1], ends[1][1]


def copies(image: Image.Image, turns: int) -> list[Image.Image]:
    """The image and `turns` turned copies: by multiples of 360 / (turns + 1) degrees.

    Where a turned image leaves corners empty, its mirror image goes on.
    """
    found = [image]
    for i in range(1, turns + 1):
        degrees = 360 * i / (turns + 1)
        if degrees % 90 == 0:
            found.append(image.transpose(_QUARTERS[int(degrees) // 90 - 1]))
            continue
        x = np.asarray(image)
        margins = [min(n // 2 + 1, n) for n in x.shape[:2]]
        wide = Image.fromarray(np.pad(x, (*((m, m) for m in margins), (0, 0)), mode='symmetric'))
        turned = wide.rotate(degrees, Image.Resampling.BICUBIC)
        (top, left), (height, width) = margins, x.shape[:2]
        found.append(turned.crop((left, top, left + width, top + height)))
    return found


_QUARTERS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)
