"""Which cells of an image show the object, and not what lies around it.

Found in the image's pixels (`data/pseudo/foreground.py`), or, by 'pca', in what the encoder makes
of its patches: those of an object differ from those around it most along their first principal
component. After Damm et al., "AnomalyDINO", WACV 2025, who masks so the patches of DINOv2; the
threshold there is a number for that encoder, here it is Otsu's of each image.
"""

import numpy as np
from PIL import Image
from scipy import ndimage

from anyshot_jax.data.pseudo import foreground
from anyshot_jax.types import Array, InputError

WAYS = ('none', *foreground.WAYS, 'pca')
FOUND_ON = 256  # pixels of the images in which the foreground is looked for
COVERED = 0.1  # share of a cell that the object has to cover for the cell to count
LEAST, MOST = 0.02, 0.95  # shares of an image's cells between which an object is believed
SMALLEST = 3  # patches of a side from which on one lies inside
AROUND = 0.5  # an object reaches a smaller share of the image's rim than of its inside, times this


def check(how: str, tile: int) -> None:
    """Refuses (InputError) a way that isn't known or can't be."""
    if how not in WAYS:
        raise InputError(f'foreground={how!r}: need {", ".join(WAYS[:-1])} or {WAYS[-1]}')
    if how == 'pca' and tile:
        raise InputError(
            f"foreground='pca' compares an image's patches with one another, tile={tile} shows a "
            "part of them at a time: take 'flood' or 'grabcut', or tile=0"
        )
    if how in foreground.WAYS:
        foreground.check(how)


def check_grid(how: str, side: int) -> None:
    """Refuses (InputError) to look for an object where no patch lies inside of [side, side]."""
    if how == 'pca' and side < SMALLEST:
        raise InputError(
            f"foreground='pca' needs {SMALLEST} x {SMALLEST} patches or more of an image, here are "
            f'{side} x {side}: raise size, or take a finer map (layers)'
        )


def in_pixels(image: Image.Image, grid: tuple[int, int], how: str) -> np.ndarray:
    """[rows, columns] float32, 1 where a cell shows the object; all where that isn't its way."""
    if how not in foreground.WAYS:
        return np.ones(grid, np.float32)
    small = image.resize((FOUND_ON, FOUND_ON), Image.Resampling.BICUBIC)
    inside = foreground.find(np.asarray(small)[None], how)[0]
    share = Image.fromarray(inside.astype(np.uint8) * 255).resize(grid[::-1], Image.Resampling.BOX)
    return (np.asarray(share) >= COVERED * 255).astype(np.float32)


def in_patches(patches: Array) -> np.ndarray:
    """[h, w] float32, 1 where the patches [h, w, D] of an image show the object.

    h and w are SMALLEST or more. With the cells beside them, and with holes filled: a defect may be
    at its edge, or look like what is around. All where nothing is found that lies inside the image.
    """
    shape = patches.shape[:2]
    x = np.asarray(patches, np.float64).reshape(-1, patches.shape[-1])
    x = x - x.mean(0)
    _, axes = np.linalg.eigh(x.T @ x)
    value = (x @ axes[:, -1]).reshape(shape)
    inside = value > otsu(value)
    rim = np.ones(shape, bool)
    rim[1:-1, 1:-1] = False
    if inside[rim].mean() > inside[~rim].mean():
        inside = ~inside
    if inside[rim].mean() > AROUND * inside[~rim].mean() or not LEAST < inside.mean() < MOST:
        return np.ones(shape, np.float32)
    grown = ndimage.binary_dilation(ndimage.binary_fill_holes(inside), np.ones((3, 3)))
    return grown.astype(np.float32)


def otsu(value: Array) -> float:
    """The threshold that parts values into two groups whose means are farthest, by their sizes."""
    v = np.sort(np.asarray(value, np.float64), axis=None)
    low = np.arange(1, len(v))
    below = np.cumsum(v)[:-1]
    apart = low * (len(v) - low) * (below / low - (v.sum() - below) / (len(v) - low)) ** 2
    at = int(apart.argmax())
    return float(v[at] + v[at + 1]) / 2
