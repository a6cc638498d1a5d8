"""Textures to paste: a folder in DTD's layout, or drawn ones where none is given.

The folder holds `<category>/<image>`, or `images` with that in it (Cimpoi, Maji, Kokkinos,
Mohamed, Vedaldi, "Describing textures in the wild", 2014).
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from anyshot_jax.data.readers.folder_tree import find_classes
from anyshot_jax.data.readers.images import SUFFIXES, open_image, read_images
from anyshot_jax.storage.folders import data_root, user_path
from anyshot_jax.types import Array, InputError

PER_CATEGORY = 40  # drawn ones


class Texture(NamedTuple):
    """One image of a texture, not opened yet."""

    category: str
    name: str
    file: Path | None  # None: drawn


def find_textures(folder: str) -> list[Texture]:
    """Textures of a folder, also one in $ANYSHOT_DATA_DIR, by category and name; '': drawn ones.

    Raises:
      InputError: no such folder, or no image in it; names it.
    """
    if not folder:
        return [Texture(c, f'{c} {i}', None) for c in DRAWN for i in range(PER_CATEGORY)]
    path, root = user_path(folder), data_root()
    if not path.is_dir() and root and (root / folder).is_dir():
        path = root / folder
    if not path.is_dir():
        raise InputError(
            f'config.data.pseudo.textures: {path} is no folder; expected <category>/<image> in '
            "it, or '' for drawn textures"
        )
    path = path / 'images' if (path / 'images').is_dir() else path
    found = [
        Texture(category, file.stem, file)
        for (_, category), files in sorted(find_classes(path).classes.items())
        for file in files
        if file.suffix.lower() in SUFFIXES
    ]
    if not found:
        raise InputError(f'{path} holds no texture: expected <category>/<image>')
    return found


def read_textures(textures: Sequence[Texture], size: int, channels: int, max_pixels: int) -> Array:
    """[T, size, size, channels] uint8, stretched (bicubic); InputError names a damaged file."""
    x = np.empty((len(textures), size, size, channels), np.uint8)
    mode = 'RGB' if channels == 3 else 'L'

    def stretched(source, name):
        image = open_image(source, max_pixels, name).convert(mode)
        image = image.resize((size, size), Image.Resampling.BICUBIC)
        return np.asarray(image).reshape(x.shape[1:])

    files = [(t, texture.file) for t, texture in enumerate(textures) if texture.file]
    with closing(read_images(len(files), lambda i: (files[i][1], ''), None, stretched)) as images:
        for (t, _), found in zip(files, images, strict=True):
            if isinstance(found, InputError):
                raise found
            x[t] = found
    for t, texture in enumerate(textures):
        if not texture.file:
            x[t] = draw(texture, size, channels)
    return x


def draw(texture: Texture, size: int, channels: int) -> Array:
    """[size, size, channels] uint8: the pattern of its category, its numbers fixed by its name."""
    rng = np.random.default_rng(list(texture.name.encode()))
    pattern = DRAWN[texture.category](rng, *_plane(rng, size))
    low, high = sorted(rng.uniform(0, 1, 2))
    low, high = (low, high) if high - low > 0.3 else (0.15, 0.85)
    tints = rng.uniform(-0.15, 0.15, (2, channels)) * (channels > 1)
    grain = rng.normal(0, 0.03, (size, size, 1))
    colours = [np.clip(v + t, 0, 1) for v, t in zip((low, high), tints, strict=True)]
    mixed = colours[0] + pattern[..., None] * (colours[1] - colours[0]) + grain
    return np.round(np.clip(mixed, 0, 1) * 255).astype(np.uint8)


def _plane(rng: np.random.Generator, size: int) -> tuple[Array, Array]:
    """Coordinates in periods of the pattern, turned by a random angle."""
    angle, period = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(0.03), np.log(0.2)))
    row, col = np.mgrid[:size, :size] / size / period
    return np.cos(angle) * row + np.sin(angle) * col, np.cos(angle) * col - np.sin(angle) * row


# Patterns: (rng, u [S, S], v [S, S]) -> [S, S] in 0..1.


def _stripes(rng, u, v):
    return np.clip(0.5 + rng.uniform(0.5, 3) * np.sin(2 * np.pi * u), 0, 1)


def _checks(rng, u, v):
    return (np.floor(u) + np.floor(v)) % 2


def _dots(rng, u, v):
    radius = rng.uniform(0.15, 0.4)
    return np.clip((radius - np.hypot(u % 1 - 0.5, v % 1 - 0.5)) / 0.1 + 0.5, 0, 1)


def _grid(rng, u, v):
    half = rng.uniform(0.05, 0.2)
    return (np.minimum(u % 1, v % 1) < 2 * half).astype(float)


def _bricks(rng, u, v):
    joint = rng.uniform(0.05, 0.15)
    shifted = v / 2 + 0.5 * (np.floor(u) % 2)
    return ((u % 1 > joint) & (shifted % 1 > joint / 2)).astype(float)


def _waves(rng, u, v):
    bend = rng.uniform(0.2, 1)
    return 0.5 + 0.5 * np.sin(2 * np.pi * (u + bend * np.sin(2 * np.pi * v / 2)))


def _rings(rng, u, v):
    away = np.hypot(u - rng.uniform(u.min(), u.max()), v - rng.uniform(v.min(), v.max()))
    return 0.5 + 0.5 * np.sin(2 * np.pi * away)


def _cells(rng, u, v):
    """Lead of the nearest of random points over the next: bright cells, dark joints."""
    first, second = np.full(u.shape, np.inf), np.full(u.shape, np.inf)
    for _ in range(60):
        p, q = rng.uniform(u.min(), u.max()), rng.uniform(v.min(), v.max())
        away = np.hypot(u - p, v - q)
        second = np.minimum(second, np.maximum(first, away))
        first = np.minimum(first, away)
    return np.clip((second - first) / np.median(second - first), 0, 1)


def _clouds(rng, u, v):
    """Sums of waves in random directions, finer ones weaker."""
    total = np.zeros(u.shape)
    for _ in range(24):
        k, angle = np.exp(rng.uniform(np.log(0.1), np.log(1.5))), rng.uniform(0, 2 * np.pi)
        wave = np.cos(angle) * u + np.sin(angle) * v
        total += np.sin(2 * np.pi * (k * wave + rng.uniform())) / np.sqrt(k)
    return np.clip(0.5 + total / (4 * total.std()), 0, 1)


def _grain(rng, u, v):
    """Random values on squares of a third of a period."""
    cells = rng.uniform(0, 1, 4096)
    index = np.floor(3 * u).astype(int) * 73 + np.floor(3 * v).astype(int) * 179
    return cells[index % 4096]


DRAWN: dict[str, Callable] = {
    'bricks': _bricks,
    'cells': _cells,
    'checks': _checks,
    'clouds': _clouds,
    'dots': _dots,
    'grain': _grain,
    'grid': _grid,
    'rings': _rings,
    'stripes': _stripes,
    'waves': _waves,
}
