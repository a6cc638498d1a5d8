"""Images packed in one .npz file: encoded as they were (JPEG, PNG, ...), end to end.

Keys: jpeg (or image) [bytes] uint8, the files one after another; offset [N + 1], where each
begins and the last ends; label [N] whole numbers; optionally name [C], what number c in label is
called, and description [C]. config.data.group names one more [N], whole numbers whose names are in
<group>_name, such as who drew an image: retrieval doesn't ask for items of the query's own group.
The classes are split by config as for `folder`: a split by image
that the file may have is of no use where test classes must be new.
"""

from contextlib import closing

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from anyshot_jax.data.readers.images import check_fields, read_images
from anyshot_jax.data.readers.locate import find_dir
from anyshot_jax.data.splits import FIELDS, split_classes, split_items
from anyshot_jax.storage.npz import read_npz
from anyshot_jax.types import Array, Data, InputError, nearest

DEFAULTS = {
    **FIELDS,
    'group': '',  # key of the items' groups; '': an item is only like itself
    'merge': (),  # ((name, name, ...), ...): groups that count as one
    'set': '',  # the folder under ANYSHOT_DATA_DIR where config.data.dir is empty
    'size': 84,  # images are centre-cropped and resized to size x size
    'channels': 3,  # 3 colour | 1 grey
    'on_error': 'raise',  # raise | skip (and count) images that can't be read
    'max_pixels': 50_000_000,  # an image that unpacks to more is refused
    'max_bytes': 16_000_000_000,  # the largest size of the file, unpacked
    'turns': 1,
    'turns_eval': 1,
}

LAYOUT = 'an .npz with jpeg [bytes], offset [N + 1] and label [N]'
MAX_GROUPS = 1_000_000
KEYS = ('jpeg', 'image', 'offset', 'label', 'name', 'description')


def load(config: ConfigDict) -> Data:
    """Data of uint8 [N, size, size, channels].

    Raises:
      InputError: names the file, and the key or image that can't be used.
    """
    check_fields(config)
    path = find_dir(config.dir, config.set or 'packed', LAYOUT)
    if path.is_dir():
        files = sorted(path.glob('*.npz'))
        if len(files) != 1:
            raise InputError(f'{path} holds {len(files)} .npz files: name one, {LAYOUT}')
        path = files[0]
    own = (config.group, f'{config.group}_name') if config.group else ()
    z = read_npz(path, config.max_bytes, (*KEYS, *own))
    z = {'jpeg': z['image'], **z} if 'image' in z else z
    missing = [k for k in ('jpeg', 'offset', 'label') if k not in z]
    if missing:
        raise InputError(f'{path} has no array {" and none called ".join(missing)}: need {LAYOUT}')
    files, offset, label = z['jpeg'], z['offset'], z['label']
    _check(path, files, offset, label)
    num = int(label.max()) + 1
    if num > len(label):  # before anything is made for each of them
        raise InputError(f'{path}: labels run up to {num - 1:,}: a class of them has no image')
    names = _strings(path, 'name', z, [str(i) for i in range(num)], len(label))
    texts = _strings(path, 'description', z, [''] * len(names), len(label))
    if label.max() >= len(names) or len(texts) != len(names):
        raise InputError(
            f'{path}: labels run up to {label.max()}, but there are {len(names)} names '
            f'and {len(texts)} descriptions'
        )
    if len(set(names)) < len(names):
        raise InputError(f'{path}: the same class name twice in name')
    group = _groups(path, z, len(label), config) if config.group else None
    role = split_classes(names, config)
    roles = [role[n] for n in names]
    # By role and class: then no role's images are copied.
    order = np.lexsort((label, np.array(roles)[label]))

    def source(i: int) -> tuple[bytes, str]:
        at = order[i]
        return files[offset[at] : offset[at + 1]].tobytes(), f'{path}, image {at}'

    x = np.empty((len(label), config.size, config.size, config.channels), np.uint8)
    kept: list[int] = []
    with closing(read_images(len(label), source, config)) as images:
        for i, found in zip(order, images, strict=True):
            if not isinstance(found, InputError):
                x[len(kept)] = found
                kept.append(i)
            elif config.on_error == 'raise':
                raise InputError(f"{found} (config.data.on_error='skip' goes on without it)")
            else:
                logging.warning('skipped: %s', found)
    label = label[kept].astype(np.int64)
    present = np.bincount(label, minlength=len(names)) > 0
    if not present.all():
        raise InputError(f'{path}: class {names[int(np.argmin(present))]!r} has no image')
    return split_items(
        x[: len(kept)],
        label,
        names,
        roles,
        group=None if group is None else group[kept],
        texts=texts,
        turns=(config.turns, config.turns_eval),
    )


def _check(path, files: Array, offset: Array, label: Array) -> None:
    if files.dtype != np.uint8 or files.ndim != 1:
        raise InputError(f'{path}: jpeg is {files.dtype} {files.shape}, expected uint8 [bytes]')
    whole = all(a.dtype.kind in 'iu' and a.ndim == 1 for a in (offset, label))
    if not whole or not len(label) or len(offset) != len(label) + 1:
        raise InputError(
            f'{path}: offset is {offset.dtype} {offset.shape} and label {label.dtype} '
            f'{label.shape}, expected whole numbers [N + 1] and [N]'
        )
    signed = offset.astype(np.int64)
    if signed[0] < 0 or signed[-1] > len(files) or (np.diff(signed) < 0).any():
        raise InputError(f'{path}: offset does not rise from 0 to the {len(files):,} bytes of jpeg')
    if label.min() < 0:
        raise InputError(f'{path}: label {label.min()} is negative')


def _strings(path, key: str, z: dict[str, Array], default: list[str], most: int) -> list[str]:
    if key not in z:
        return default
    if z[key].dtype.kind != 'U' or z[key].ndim != 1:
        raise InputError(f'{path}: {key} is {z[key].dtype} {z[key].shape}, expected strings [C]')
    if len(z[key]) > most:
        raise InputError(f'{path}: {key} has {len(z[key]):,} entries for {most:,} images')
    return [str(v) for v in z[key]]


def _groups(path, z: dict[str, Array], num: int, config: ConfigDict) -> Array:
    """[N] whole numbers; merged groups share one."""
    key = config.group
    if key not in z:
        raise InputError(f'{path} has no array {key}, which config.data.group names')
    group = z[key]
    if group.dtype.kind not in 'iu' or group.shape != (num,) or group.min() < 0:
        raise InputError(
            f'{path}: {key} is {group.dtype} {group.shape}, expected {num} whole numbers >= 0'
        )
    largest = int(group.max())
    if f'{key}_name' not in z and largest >= MAX_GROUPS:
        raise InputError(f'{path}: {key} runs up to {largest:,}: number the groups from 0 on')
    default = [] if f'{key}_name' in z else [str(i) for i in range(largest + 1)]
    names = _strings(path, f'{key}_name', z, default, max(num, MAX_GROUPS))
    if largest >= len(names):
        raise InputError(f'{path}: {key} runs up to {group.max()}, but has {len(names)} names')
    one = np.arange(len(names))
    for merged in config.merge:
        for name in merged:
            if name not in names:
                raise InputError(f'config.data.merge: no {key} {name!r}{nearest(name, names)}')
        one[[names.index(name) for name in merged]] = names.index(merged[0])
    return one[group.astype(np.int64)]
