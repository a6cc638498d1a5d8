"""Synthetic defects (`data/pseudo/`) on a user's own normal images, as the encoder sees them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from anyshot_jax.data.pseudo import classes, foreground
from anyshot_jax.data.readers.sources import name_of
from anyshot_jax.detect import views
from anyshot_jax.detect.inputs import open_item
from anyshot_jax.detect.scores import Looks
from anyshot_jax.types import Array, Dataset


def squares(looks: Looks, items: Sequence[Any], rows: Array, cells: int, seed: int) -> np.ndarray:
    """[N, S, S, 3] uint8, what the encoder sees of images: one of its tiles if there are several.

    Args:
      rows: of the items. cells: of a side of a square.
    """
    rng, found = np.random.default_rng(seed), []
    for i in rows:
        image, _ = open_item(items[i], name_of(items[i], i), looks.reading)
        image = image.crop(views.looked_at(image.size, looks.view))
        every = list(views.squares(image, looks.view, cells))
        found.append(every[rng.integers(len(every))].x)
    return np.stack(found)


def defects(sources: Array, looks: Looks, num: int, seed: int) -> Dataset:
    """`num` classes of synthetic defects, an item of each class on every source, with masks.

    On the object where that is found in pixels, else anywhere in the image; a warning says so where
    an object is looked for.

    Args:
      sources: [N, S, S, 3] uint8.
    """
    fields = ConfigDict(classes.FIELDS)
    fields.update({'classes': num, 'val_classes': 0, 'per_class': len(sources), 'seed': seed})
    in_pixels = looks.foreground in foreground.WAYS
    fields.foreground = looks.foreground if in_pixels else 'none'
    if not in_pixels and looks.foreground != 'none':
        logging.warning(
            'foreground=%r is not found in pixels: synthetic defects are made beside the object, '
            "too; 'flood' or 'grabcut' keep them on it", looks.foreground,
        )  # fmt: skip
    return classes.make(sources, fields, looks.reading.max_pixels)['train']
