"""Your own pictures, one folder a class: <class>/<image>, folders below a class taken with it.

Either the directory holds `train`, `val` and `test` with class folders in each, or class folders
only, which config splits (fractions and seed, or lists of names). Classes are sorted by name,
pictures by path. Hidden files, system files and files that are no pictures are passed over and
counted. Links may lead to anywhere inside the directory.

A `classes.json` beside the class folders may describe the classes, see `descriptions.py`.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from absl import logging
from ml_collections import ConfigDict
from tqdm import tqdm

from anyshot_jax.data.descriptions import check_descriptions
from anyshot_jax.data.folder_tree import Tree, find_classes
from anyshot_jax.data.images import SUFFIXES, NotAnImage, read_image
from anyshot_jax.data.locate import find_dir
from anyshot_jax.data.splits import FIELDS, split_classes, split_items
from anyshot_jax.types import Array, Data, InputError

DEFAULTS = {
    **FIELDS,
    'size': 84,  # pictures are centre-cropped and resized to size x size
    'channels': 3,  # 3 colour | 1 grey
    'on_error': 'raise',  # raise | skip (and count) pictures that can't be read
    'max_pixels': 50_000_000,  # a picture that unpacks to more is refused
    'turns': 1,
    'turns_eval': 1,
}

LAYOUT = '<class>/<image>, or train/<class>/<image> and the same for val and test'


def load(config: ConfigDict) -> Data:
    """Data of uint8 [N, size, size, channels]; names are the folders' names.

    Raises:
      InputError: no directory, no class, a class without pictures or in two roles, a damaged
        picture (unless on_error='skip'), a link out of the directory; names it.
    """
    _check_fields(config)
    root = find_dir(config.dir, 'folder', LAYOUT)
    tree = find_classes(root)
    if not tree.classes:
        raise InputError(f'{root} holds no class folder with files in it; expected {LAYOUT}')
    check_descriptions(root, {name for _, name in tree.classes})
    roles = _roles(tree, config)
    keys = sorted(tree.classes)
    x, label, skipped, others = _read(root, tree, keys, config)
    others += tree.ignored
    if skipped or others:
        logging.info('%s: skipped %d pictures, passed over %d files', root, skipped, others)
    count = np.bincount(label, minlength=len(keys))
    if not count.all():
        empty = '/'.join(p for p in keys[int(np.argmin(count))] if p)
        raise InputError(
            f'class {empty!r} in {root} has no readable picture '
            f'({skipped} skipped, {others} files passed over in all)'
        )
    turns = (config.turns, config.turns_eval)
    return split_items(x, label, [n for _, n in keys], [roles[k] for k in keys], turns=turns)


def _check_fields(config: ConfigDict) -> None:
    if config.on_error not in ('raise', 'skip'):
        raise InputError(f"config.data.on_error = {config.on_error!r}: need 'raise' or 'skip'")
    if config.channels not in (1, 3):
        raise InputError(f'config.data.channels = {config.channels}: need 1 or 3')
    if not 1 <= config.size <= 4096:
        raise InputError(f'config.data.size = {config.size}: need 1 to 4096')


def _roles(tree: Tree, config: ConfigDict) -> dict[tuple[str, str], str]:
    if tree.has_roles:
        return {key: key[0] for key in tree.classes}
    role = split_classes([name for _, name in tree.classes], config)
    return {key: role[key[1]] for key in tree.classes}


def _read(
    root: Path, tree: Tree, keys: list[tuple[str, str]], config: ConfigDict
) -> tuple[Array, Array, int, int]:
    """x, label, and how many pictures were skipped and other files passed over."""
    files = [(f, c) for c, key in enumerate(keys) for f in tree.classes[key]]
    x = np.empty((len(files), config.size, config.size, config.channels), np.uint8)
    label: list[int] = []
    skipped = others = 0
    for (file, c), found in zip(files, _pictures([f for f, _ in files], config), strict=True):
        if isinstance(found, NotAnImage) and file.suffix.lower() not in SUFFIXES:
            others += 1
        elif isinstance(found, InputError):
            if config.on_error == 'raise':
                raise InputError(f"{found} (config.data.on_error='skip' goes on without it)")
            logging.warning('skipped: %s', found)
            skipped += 1
        else:
            x[len(label)] = found
            label.append(c)
    return x[: len(label)], np.array(label, np.int64), skipped, others


def _pictures(files: list[Path], config: ConfigDict) -> Iterator[Array | InputError]:
    """Decoded by a few threads (the decoders release the interpreter), in the order of `files`."""

    def read(file: Path) -> Array | InputError:
        try:
            return read_image(file, config.size, config.channels, config.max_pixels)
        except InputError as e:
            return e

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        step = 256  # so that an error stops the reading soon, and little waits undrawn
        with tqdm(total=len(files), desc='read pictures', disable=None) as bar:
            for start in range(0, len(files), step):
                for found in pool.map(read, files[start : start + step]):
                    bar.update()
                    yield found
