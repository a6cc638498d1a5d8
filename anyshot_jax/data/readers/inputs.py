"""Inputs of `fit`, `predict` and their kin: images of any kind, or feature vectors.

One image is a list of one. Of arrays, [N, H, W], [N, H, W, C] and [N, C, H, W] are N images and
[H, W, C] is one, C of 1, 3 (RGB) or 4; a tensor [3, H, W] is one, too. Numbers in one or two
dimensions are feature vectors. Columns of a table, generators and a folder are taken as well.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from anyshot_jax.data.readers.examples import Examples, examples
from anyshot_jax.data.readers.folder_tree import find_files
from anyshot_jax.data.readers.images import SUFFIXES
from anyshot_jax.data.readers.sources import (
    CHANNELS,
    array_of,
    eight_bit,
    float_top,
    is_image,
    path_of,
)
from anyshot_jax.storage.folders import user_path
from anyshot_jax.types import Array, InputError

KINDS = 'paths, bytes, open files, PIL images or arrays'


def images_of(X: Any, span: tuple[float, ...] = ()) -> list[Any] | None:
    """The images that X is, each as `sources.image_of` takes it; None of feature vectors.

    Args:
      span: of floats, as `images.Reading`; () where they are 0..1 or 0..255.
    Raises:
      InputError: nothing in it, a URL, a table of several columns, or a set, which has no order.
    """
    if isinstance(X, (str, os.PathLike)):
        folder = Path(os.fsdecode(X))
        return _files(folder) if _is_folder(folder) else [path_of(X)]
    if isinstance(X, (bytes, bytearray, memoryview, Image.Image)):
        return [X]
    if hasattr(X, 'tocsr'):  # scikit-learn says what it does with a sparse matrix
        return None
    if isinstance(X, (Set, Mapping)):
        raise InputError(f'X is a {type(X).__name__}: give a list of {KINDS}')
    X = _column(X)
    array = array_of(X)
    if array is not None:
        return _of_array(array, span, tensor=not isinstance(X, np.ndarray))
    if is_image(X):  # an open file
        return [X]
    if isinstance(X, Iterator) or (isinstance(X, Iterable) and not isinstance(X, Sequence)):
        X = list(X)
    if not isinstance(X, Sequence):
        return None
    if not len(X):
        raise InputError(f'X is empty: give one or more {KINDS}, or feature vectors')
    if not is_image(X[0]):
        if any(is_image(item) for item in X):
            raise InputError(f'X[0] is {X[0]!r:.50} and no image, but others are')
        return None
    return _same_scale(list(X), span)


def rows_of(X: Any) -> Any:
    """Feature vectors as scikit-learn takes them: a generator becomes a list."""
    return list(X) if isinstance(X, Iterator) else X


def is_folder(X: Any) -> bool:
    """True if X names a folder of class folders."""
    return isinstance(X, (str, os.PathLike)) and _is_folder(Path(os.fsdecode(X)))


def examples_of(X: Any) -> Examples:
    """The examples in a folder, as the command `predict` takes its --support."""
    return examples(user_path(os.fsdecode(X)))


def _is_folder(path: Path) -> bool:
    try:
        return user_path(path).is_dir()
    except (OSError, ValueError, RuntimeError):
        return False


def _files(folder: Path) -> list[Any]:
    """The images in a folder and below it, in the order of their paths."""
    paths, _ = find_files(user_path(folder))
    found = [p for p in paths if p.suffix.lower() in SUFFIXES]
    if not found:
        raise InputError(f'{folder} holds no images')
    return found


def _column(X: Any) -> Any:
    """The values of a series, or of a table's only column, where they are no numbers."""
    if not hasattr(X, 'to_numpy'):
        return X
    columns = list(getattr(X, 'columns', []))
    if not columns:
        values = X.to_numpy()
        return values if values.dtype.kind in 'biuf' else list(values)
    kinds = [np.asarray(X[c].to_numpy()).dtype.kind for c in columns]
    if all(kind in 'biuf' for kind in kinds):
        return X  # feature vectors: scikit-learn keeps their names
    texts = [c for c, kind in zip(columns, kinds, strict=True) if kind not in 'biuf']
    if len(columns) > 1:
        raise InputError(
            f'X is a table of the columns {", ".join(map(str, columns[:8]))}: give the one that '
            f'holds the images, such as X[{texts[0]!r}]'
        )
    return list(X[columns[0]].to_numpy())


def _of_array(array: Array, span: tuple[float, ...], tensor: bool) -> list[Any] | None:
    if array.dtype.kind in 'OUS':
        if array.ndim == 2 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim == 0:
            return images_of(array.item(), span)
        if array.ndim == 1 and len(array) and is_image(array[0]):
            return _same_scale(list(array), span)
        return None
    if array.ndim not in (3, 4) or 0 in array.shape or array.dtype.kind not in 'uifb':
        return None
    if array.dtype.kind == 'f':
        array = eight_bit(array, 'X', span)
    if array.ndim == 4:
        return list(array)
    one = array.shape[-1] in CHANNELS or (tensor and array.shape[0] in CHANNELS)
    return [array] if one else list(array)


def _same_scale(items: list[Any], span: tuple[float, ...]) -> list[Any]:
    """Floats in one list are all of 0..1, or all of 0..255."""
    arrays = {i: a for i, a in enumerate(map(array_of, items)) if a is not None}
    floats = {
        i: a for i, a in arrays.items() if a.dtype.kind == 'f' and a.ndim in (2, 3) and a.size
    }
    if floats and not span:
        top = float_top(floats.values(), 'X')
        for i, a in floats.items():
            items[i] = np.floor(a.astype(np.float64) * (255 / top) + 0.5).astype(np.uint8)
    return items
