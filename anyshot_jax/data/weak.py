"""Weak-shot data: clean images of base classes, web images of novel ones, a clean test.

`layout` says how they lie (see `readers/weak.py`): base/<class>/*, web/<class>/*, test/<class>/* or
an official data set. Test images of novel classes become the role test, those of base classes
test_base. Web images that are too near to a test image of their class can be left out
(`near_encoder`): a search finds the very images that a data set was once made of.
"""

import hashlib

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from anyshot_jax.config import check_choices
from anyshot_jax.data.readers.classes import read_classes
from anyshot_jax.data.readers.images import check_fields
from anyshot_jax.data.readers.locate import find_dir
from anyshot_jax.data.readers.weak import check, find
from anyshot_jax.types import Array, Data, InputError, from_arrays

DEFAULTS = {
    'layout': 'folders',  # folders | cub | car | aircraft | webvision
    'per_class': 0,  # of base and web so many images a class, the first; 0: all
    'max_bytes': 32_000_000_000,  # that all images may take in memory
    'size': 224,  # images are centre-cropped and resized to size x size
    'channels': 3,  # 3 colour | 1 grey
    'on_error': 'raise',  # raise | skip (and count) images that can't be read
    'max_pixels': 50_000_000,  # an image that unpacks to more is refused
    'near_encoder': '',  # in whose features images are near, e.g. resnet50; '': none is left out
    'near_distance': 9.0,  # a web image nearer than this to a test image of its class goes
    'near_keep': 0,  # instead: of every class keep so many, the farthest; 0: go by the distance
    'hold_out': 0.0,  # share of the web images of a class that become val, labels as they are
    'seed': 0,  # which these are
}
LAYOUTS = ('folders', 'cub', 'car', 'aircraft', 'webvision')


def load(config: ConfigDict) -> Data:
    """Data of uint8 [N, size, size, channels]; roles base, web, test, perhaps test_base and val.

    Raises:
      InputError: a field, file, folder or class that can't be used; names it.
    """
    check_fields(config)
    check_choices(config, {'layout': LAYOUTS}, 'config.data')
    if config.per_class < 0:
        raise InputError(f'config.data.per_class={config.per_class} must be >= 0')
    if not 0 <= config.hold_out < 1:
        raise InputError(f'config.data.hold_out={config.hold_out} must be >= 0 and < 1')
    root = find_dir(config.dir, 'weak', 'base/<class>/*, web/<class>/* and test/<class>/*')
    files, notes = find(root, config.layout, config.per_class)
    check(files, root)
    num = sum(map(len, files.values()))
    size = num * config.size * config.size * config.channels
    if size > config.max_bytes:
        raise InputError(
            f'{root}: {num:,} images of {config.size}x{config.size} take {size / 1e9:.0f} GB, more '
            f'than config.data.max_bytes={config.max_bytes:,}: take fewer (config.data.per_class), '
            'smaller ones (config.data.size), or raise it'
        )
    novel = {c for role, c in files if role == 'web'}
    # Where an item's class goes decides its role: test images of base classes are test_base.
    of = {'base': 'base', 'web': 'web'}
    role = {k: of.get(k[0], 'test' if k[1] in novel else 'test_base') for k in files}
    keys = sorted(files, key=lambda k: (role[k], k[1]))
    x, label = read_classes(root, {k: files[k] for k in keys}, config, notes)
    rng, data = np.random.default_rng(config.seed), {}
    for r in ('base', 'web', 'test', 'test_base'):
        classes = [i for i, k in enumerate(keys) if role[k] == r]
        if not classes:
            continue
        rows = np.flatnonzero(np.isin(label, classes))
        # All classes of a role stand together.
        data[r] = (
            x[rows[0] : rows[-1] + 1],
            label[rows] - classes[0],
            [keys[i][1] for i in classes],
        )
    refuse_copies(*data['base'], *data['web'])
    if config.near_encoder:
        data['web'] = _far(data['web'], data['test'], config)
    web_x, web_label, names = data.pop('web')
    later = _some_of_each(rng, web_label, config.hold_out)
    made = {r: from_arrays(d[0], d[1], tuple(d[2])) for r, d in data.items()}
    if 'test_base' in made and made['test_base'].names != made['base'].names:
        raise InputError(
            f'{root}: {len(made["test_base"].names)} base classes have test images, of '
            f'{len(made["base"].names)}: need all or none'
        )
    made['web'] = from_arrays(web_x[~later], web_label[~later], tuple(names))
    if later.any():
        made['val'] = from_arrays(web_x[later], web_label[later], tuple(names))
    return Data(made)


def refuse_copies(base: Array, base_label: Array, base_names, web: Array, label: Array, names):
    """Refuses a web class of which half the images stand in base classes; warns of fewer.

    Args:
      base: [N, ...], web: [M, ...] images. base_label: [N], label: [M], numbers of the names.
    Raises:
      InputError: names the web class and the base class.
    """
    digest = lambda row: hashlib.blake2b(row.tobytes(), digest_size=16).digest()
    of = {digest(row): c for row, c in zip(base, base_label, strict=True)}
    found = np.array([of.get(digest(row), -1) for row in web])
    for c, name in enumerate(names):
        own = found[label == c]
        copies = own[own >= 0]
        if not len(copies):
            continue
        said = (
            f'{len(copies)} of {len(own)} images of web class {name!r} are images of base classes, '
            f'most of them of {base_names[int(np.bincount(copies).argmax())]!r}'
        )
        if 2 * len(copies) >= len(own):
            raise InputError(f'{said}: it is no novel class; remove one of the two folders')
        logging.warning(said)


def _some_of_each(rng, label: Array, share: float) -> Array:
    """[N] bool: round(share * number) items of each class, but never all of one."""
    chosen = np.zeros(len(label), bool)
    for c in range(int(label.max()) + 1):
        rows = rng.permutation(np.flatnonzero(label == c))
        chosen[rows[: min(round(share * len(rows)), len(rows) - 1)]] = True
    return chosen


def _far(web, test, config: ConfigDict):
    """The web images without those that are near to a test image of their class."""
    from anyshot_jax import encoders
    from anyshot_jax.encoders import embedding

    encoder = encoders.load(config.near_encoder)
    if isinstance(encoder, encoders.TextEncoder):
        raise InputError(f'config.data.near_encoder={config.near_encoder!r} reads texts')
    z_web, z_test = (embedding.features(encoder, d[0]) for d in (web, test))
    keep = far_from_test(
        z_web, web[1], z_test, test[1], distance=config.near_distance, keep=config.near_keep
    )
    logging.info('left out %d of %d web images near to a test image', (~keep).sum(), len(keep))
    for c, name in enumerate(web[2]):
        if not keep[web[1] == c].any():
            raise InputError(
                f'every web image of class {name!r} is nearer than '
                f'config.data.near_distance={config.near_distance} to a test image: lower it'
            )
    return web[0][keep], web[1][keep], web[2]


def far_from_test(
    web: Array, web_label: Array, test: Array, test_label: Array, *, distance: float, keep: int = 0
) -> Array:
    """Picks web items that are far enough from every test item of their class.

    Args:
      web: [N, D], test: [M, D] features. web_label: [N], test_label: [M], the same classes.
      distance: the least Euclidean distance. keep: > 0, instead: that many of each class, those
        farthest from their nearest test item (of equals the first).
    Returns:
      [N] bool.
    """
    kept = np.zeros(len(web), bool)
    for c in np.unique(web_label):
        rows, others = np.flatnonzero(web_label == c), test[test_label == c].astype(np.float64)
        near = np.array([
            np.sqrt(((others - web[i].astype(np.float64)) ** 2).sum(1)).min(initial=np.inf)
            for i in rows
        ])  # fmt: skip
        chosen = np.argsort(-near, kind='stable')[:keep] if keep else near >= distance
        kept[rows[chosen]] = True
    return kept
