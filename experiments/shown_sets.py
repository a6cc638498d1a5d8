"""The sets of images that experiments show, with features of each: one place names them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from compare_classifiers import features, files, grocery, industrial

from anyshot_jax.data.readers.images import SUFFIXES
from anyshot_jax.storage.folders import data_root
from anyshot_jax.storage.npz import read_npz
from anyshot_jax.types import Array, InputError

ENCODER, OWN = 'efficientnet_lite0+stride16', 1280  # features that count unless a support chooses
EMOJI = 60  # classes; 1,040 in all


def shown() -> Iterator[tuple[str, Array, Array]]:
    """Name, features [N, D] (the first `OWN` are the encoder's last map's) and labels [N] 0..C-1.

    Raises:
      InputError: ANYSHOT_DATA_DIR is not set.
    """
    root = data_root()
    if root is None:
        raise InputError('ANYSHOT_DATA_DIR is not set')
    z = read_npz(root / 'emoji' / 'emoji64.npz', 1 << 30)
    few = int((z['label'] < EMOJI).sum())  # labels ascend
    tiles = [p for p in _images(root / 'magnetic_tile' / 'test') if p.parent.name != 'good']
    textures = _images(root / 'dtd' / 'images')
    sets = {
        'metal defects': industrial(root, 'MSD')[:2],
        'textures (KTD)': industrial(root, 'KTD')[:2],
        'textures (DTD)': (textures, _classes(textures)),
        'magnetic tiles': (tiles, _classes(tiles)),
        'Grocery Store': grocery(root)[:2],
        'emoji': (files(z['jpeg'], z['offset'][: few + 1]), z['label'][:few]),
    }
    for name, (images, names) in sets.items():
        x, _ = features(name, images, ENCODER)
        yield name, x, np.unique(names, return_inverse=True)[1]


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob('*/*') if p.suffix.lower() in SUFFIXES)


def _classes(paths: list[Path]) -> Array:
    return np.array([p.parent.name for p in paths])
