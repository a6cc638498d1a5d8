"""Vectors from an .npz file, as a network computed them elsewhere.

Keys: x (or features) [N, D]; y (or labels) [N], whole numbers or strings; optionally names (or
class_names) [C], what number c in y is called; role (or split) [N], or class_split [C] in the order
of the classes, of 'train', 'val', 'test'; attribute (or semantic) [C, A]. Without roles the classes
are split by config as for `folder`. Classes are sorted: numbers by value, strings by name.
"""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from anyshot_jax.data.readers.locate import find_dir
from anyshot_jax.data.splits import FIELDS, ROLES, split_classes, split_items
from anyshot_jax.storage.npz import read_npz
from anyshot_jax.types import Array, Data, InputError

DEFAULTS = {**FIELDS, 'max_bytes': 16_000_000_000}  # the largest size of the unpacked file

LAYOUT = 'an .npz with x [N, D] and y [N]; a folder must hold features.npz or one .npz only'
KEYS = {  # what it is: the names it may have in the file
    'x': ('x', 'features'),
    'y': ('y', 'labels'),
    'names': ('names', 'class_names'),
    'role': ('role', 'split'),
    'class_split': ('class_split',),
    'attribute': ('attribute', 'semantic'),
}


def load(config: ConfigDict) -> Data:
    """Data of float32 [N, D]; extras attribute [C, A] float32 where the file has it.

    Raises:
      InputError: names the file, and the key and row that can't be used.
    """
    path = _file(find_dir(config.dir, 'features', LAYOUT))
    z = read_npz(path, config.max_bytes, tuple(k for keys in KEYS.values() for k in keys))
    found = {what: z[k] for what, keys in KEYS.items() for k in keys if k in z}
    missing = [' or '.join(KEYS[what]) for what in ('x', 'y') if what not in found]
    if missing:
        raise InputError(f'{path} has no array {" and none called ".join(missing)}')
    x = _finite(found['x'], f'{path}, x')
    y = found['y']
    if y.shape != x.shape[:1] or y.dtype.kind not in 'iuU':
        raise InputError(
            f'{path}: y is {y.dtype} {y.shape}, expected {len(x)} whole numbers or strings'
        )
    if 'names' in found and (found['names'].ndim != 1 or found['names'].dtype.kind != 'U'):
        names = found['names']
        raise InputError(f'{path}: names are {names.dtype} {names.shape}, expected strings [C]')
    values, label = np.unique(y, return_inverse=True)
    names = _names(values, found.get('names'), path)
    extras = {}
    if 'attribute' in found:
        # Rows stand for all class names in the file, of which some may have no items.
        table = _finite(found['attribute'], f'{path}, attribute')
        rows = values if 'names' in found and y.dtype.kind in 'iu' else np.arange(len(values))
        if len(table) != (len(found['names']) if 'names' in found else len(values)):
            raise InputError(f'{path}: attribute has {len(table)} rows, not one for every class')
        extras['attribute'] = table[rows]
    return split_items(x, label, names, _roles(found, label, names, path, config), extras=extras)


def _file(path: Path) -> Path:
    if path.is_file():
        return path
    inside = sorted(path.glob('*.npz'))
    if (path / 'features.npz') in inside:
        return path / 'features.npz'
    if len(inside) != 1:
        raise InputError(f'{path} holds {len(inside)} .npz files; expected {LAYOUT}')
    return inside[0]


def _finite(x: Array, where: str) -> Array:
    """[N, D] float32, else InputError."""
    if x.ndim != 2 or not x.size or x.dtype.kind not in 'fiub':
        raise InputError(f'{where} is {x.dtype} {x.shape}, expected numbers [N, D]')
    with np.errstate(over='ignore'):
        x = x.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(x).all(1))
    if len(bad):
        raise InputError(
            f'{where}: {len(bad)} rows have NaN, infinite or too large values, '
            f'the first is row {bad[0]}'
        )
    return x


def _names(values: Array, names: Array | None, path: Path) -> list[str]:
    if names is None or values.dtype.kind == 'U':
        return [str(v) for v in values]
    if values.min() < 0 or values.max() >= len(names):
        raise InputError(
            f'{path}: y runs {values.min()}..{values.max()}, but there are {len(names)} names'
        )
    return [str(names[v]) for v in values]


def _roles(found: dict, label: Array, names: list[str], path: Path, config) -> list[str]:
    """The role of every class."""
    if 'role' in found:
        of_item = found['role']
        if of_item.shape != label.shape or of_item.dtype.kind != 'U':
            raise InputError(f'{path}: role must be {len(label)} strings, one for every row')
        roles, number = np.unique(of_item, return_inverse=True)
        pairs = np.unique(label * len(roles) + number)  # of class and role, each once
        mixed = np.flatnonzero(np.diff(pairs // len(roles)) == 0)
        if len(mixed):
            several = pairs // len(roles) == pairs[mixed[0]] // len(roles)
            raise InputError(
                f'{path}: class {names[pairs[mixed[0]] // len(roles)]!r} has items in '
                f'{" and ".join(roles[pairs[several] % len(roles)])}; few-shot '
                'evaluation needs classes that training has never seen'
            )
        result = [str(r) for r in roles[pairs % len(roles)]]
    elif 'class_split' in found:
        if found['class_split'].shape != (len(names),):
            raise InputError(f'{path}: class_split must have {len(names)} entries, one a class')
        result = [str(r) for r in found['class_split']]
    else:
        if len(set(names)) < len(names):
            raise InputError(f'{path}: the same class name twice in names')
        by_name = split_classes(names, config)
        result = [by_name[n] for n in names]
    unknown = sorted(set(result) - set(ROLES))
    if unknown:
        raise InputError(f'{path}: role {unknown[0]!r} is none of {", ".join(ROLES)}')
    return result
