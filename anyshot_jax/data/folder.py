"""Your own images, one folder a class: <class>/<image>, folders below a class taken with it.

Either the directory holds `train`, `val` and `test` with class folders in each, or class folders
only, which config splits (fractions and seed, or lists of names). Classes are sorted by name,
images by path. Hidden files, system files and files that are no images are passed over and
counted. Links may lead to anywhere inside the directory.

A `classes.json` beside the class folders may describe the classes, see `descriptions.py`.
"""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from anyshot_jax.data.readers.descriptions import checked_descriptions, warn_same
from anyshot_jax.data.readers.folder_tree import Tree, find_classes
from anyshot_jax.data.readers.images import SUFFIXES, NotAnImage, check_fields, read_images
from anyshot_jax.data.readers.locate import find_dir
from anyshot_jax.data.splits import FIELDS, split_classes, split_items
from anyshot_jax.types import Array, Data, InputError

DEFAULTS = {
    **FIELDS,
    'size': 84,  # images are centre-cropped and resized to size x size
    'channels': 3,  # 3 colour | 1 grey
    'on_error': 'raise',  # raise | skip (and count) images that can't be read
    'max_pixels': 50_000_000,  # an image that unpacks to more is refused
    'turns': 1,
    'turns_eval': 1,
}

LAYOUT = '<class>/<image>, or train/<class>/<image> and the same for val and test'


def load(config: ConfigDict) -> Data:
    """Data of uint8 [N, size, size, channels]; names are the folders' names.

    Raises:
      InputError: no directory, no class, a class without images or in two roles, a damaged
        image (unless on_error='skip'), a link out of the directory; names it.
    """
    check_fields(config)
    root = find_dir(config.dir, 'folder', LAYOUT)
    tree = find_classes(root)
    if not tree.classes:
        raise InputError(f'{root} holds no class folder with files in it; expected {LAYOUT}')
    described = checked_descriptions(root, {name for _, name in tree.classes})
    warn_same(described)
    roles = _roles(tree, config)
    keys = sorted(tree.classes, key=lambda key: (roles[key], key))  # so that no role is copied
    x, label = read_classes(root, {key: tree.classes[key] for key in keys}, config, tree.ignored)
    turns = (config.turns, config.turns_eval)
    names = [name for _, name in keys]
    texts = [described.get(name, '') for name in names]
    return split_items(x, label, names, [roles[k] for k in keys], texts=texts, turns=turns)


def _roles(tree: Tree, config: ConfigDict) -> dict[tuple[str, str], str]:
    if tree.has_roles:
        return {key: key[0] for key in tree.classes}
    role = split_classes([name for _, name in tree.classes], config)
    return {key: role[key[1]] for key in tree.classes}


def read_classes(
    root: Path, classes: Mapping[tuple[str, str], list[Path]], config, ignored: int = 0
) -> tuple[Array, Array]:
    """x [N, size, size, channels] uint8 and label [N], the place of an item's class in `classes`.

    Args:
      classes: (role or '', class) -> its files. ignored: files passed over before, to be counted.
    Raises:
      InputError: a class of no readable image, a damaged one (unless on_error='skip'); names it.
    """
    files = [(f, c) for c, of_class in enumerate(classes.values()) for f in of_class]
    x = np.empty((len(files), config.size, config.size, config.channels), np.uint8)
    label: list[int] = []
    skipped, others = 0, ignored
    images = read_images(len(files), lambda i: (files[i][0], ''), config)
    with closing(images):
        for (file, c), found in zip(files, images, strict=True):
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
    if skipped or others:
        logging.info('%s: skipped %d images, passed over %d files', root, skipped, others)
    present = np.bincount(label, minlength=len(classes)) > 0
    if not present.all():
        empty = '/'.join(p for p in list(classes)[int(np.argmin(present))] if p)
        raise InputError(
            f'class {empty!r} in {root} has no readable image '
            f'({skipped} skipped, {others} files passed over in all)'
        )
    return x[: len(label)], np.array(label, np.int64)
