"""One product category: images without defects, and defects of several types with their masks.

The directory is in MVTec AD's or MVTec 3D AD's layout, with a manifest.csv or not, see
`readers/mvtec.py`. Roles: 'good' (one class, train/good), 'good_test' (test/good, if there is any),
'test' (the types of defect, with masks; with detect_only there may be none), and with
config.data.pseudo.classes 'train' and 'val': synthetic defects on images of 'good', see
`pseudo.py`, whose group is the row of their image in 'good'. Elsewhere group says which images are
near copies (of one part, say): support and query must not share one, and 'good', 'good_test' and
'test' number them alike.

Bergmann, Fauser, Sattlegger, Steger, "MVTec AD - a comprehensive real-world dataset for
unsupervised anomaly detection", 2019; Bergmann, Jin, Sattlegger, Steger, "The MVTec 3D-AD dataset
for unsupervised 3D anomaly detection and localization", 2021.
"""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from absl import logging
from ml_collections import ConfigDict
from PIL import Image

from anyshot_jax.data.pseudo import classes
from anyshot_jax.data.readers import masks
from anyshot_jax.data.readers.images import check_fields, open_image, read_images
from anyshot_jax.data.readers.locate import find_dir
from anyshot_jax.data.readers.mvtec import GOOD, LAYOUT, Item, find_items
from anyshot_jax.data.readers.notes import Notes
from anyshot_jax.storage.folders import data_root
from anyshot_jax.types import Array, Data, Dataset, InputError, from_arrays

DEFAULTS = {
    'category': '',  # a folder in config.data.dir; '': that is the category's folder itself
    'size': 256,  # pixels, see fit
    'fit': 'stretch',  # stretch: both sides to size | crop: shorter side to size, centre of `crop`
    'crop': 224,
    'channels': 3,  # 3 colour | 1 grey
    'group': 'tile',  # manifest.csv's column of near copies; '': none
    'drop_ambiguous': True,  # leaves out groups that show more than one type of defect
    'detect_only': False,  # one type of defect is enough: good is told from bad, not type from type
    'resize_masks': False,  # True: masks of another size than their image, but of its shape
    'on_error': 'raise',
    'max_pixels': 50_000_000,  # an image that unpacks to more is refused
    'pseudo': classes.FIELDS,
}
HELD_OUT = 5  # one of so many groups of normal images, where none are for testing

LARGE = 'masks over more than half of their image (is black the defect there?)'


def load(config: ConfigDict) -> Data:
    """Data of uint8 [N, S, S, channels], S = size or crop; mask is [N, S, S] where there is one.

    Raises:
      InputError: nothing there, fewer than two types of defect (unless detect_only), a manifest
        that doesn't fit, a damaged image, a link out of the directory; names the file or field.
    """
    check(config)
    root = _find(config)
    items = find_items(root, config.group)
    by_role = {
        'good': [i for i in items if i.split == 'train'],
        'good_test': [i for i in items if i.split == 'test' and i.kind == GOOD],
        'test': [i for i in items if i.split == 'test' and i.kind != GOOD],
    }
    if config.detect_only and not by_role['good_test']:
        by_role['good'], by_role['good_test'] = held_out(by_role['good'], root)
    least = 1 if config.detect_only else 2
    if config.drop_ambiguous:
        by_role['test'] = without_ambiguous(by_role['test'], config.group, root, least)
    kinds = sorted({item.kind for item in by_role['test']})
    to_judge = (
        'To judge new images having seen normal ones only: python -m anyshot_jax.predict '
        f'--good={by_role["good"][0].path.parent} --query=NEW --out=OUT'
    )
    if len(kinds) < least and not config.detect_only:
        raise InputError(
            f'{root} has {len(kinds)} type{"" if len(kinds) == 1 else "s"} of defect'
            f'{f" ({kinds[0]})" if kinds else ""}: there is nothing to tell apart'
            + (
                '; --config.data.detect_only=True tells it from normal images'
                if kinds
                else f'; --config=configs/mvtec_patchcore.py measures false alarms. {to_judge}'
            )
        )
    if not kinds:
        logging.warning(
            '%s shows no defect: what can be measured are false alarms. %s', root, to_judge
        )
    number = {g: n for n, g in enumerate(sorted({item.group for item in items}))}
    roles: dict[str, Dataset] = {
        role: _read(of_role, number, config) for role, of_role in by_role.items() if of_role
    }
    if config.pseudo.classes:
        good = roles['good']
        roles |= classes.make(good.x, config.pseudo, config.max_pixels, good.group)
    return Data(roles)


def check(config: ConfigDict) -> None:
    """Refuses (InputError) values that no category can be loaded with; names the field."""
    check_fields(config)
    if config.on_error != 'raise':
        raise InputError("config.data.on_error: only 'raise', a category's images are few")
    if config.fit not in ('stretch', 'crop'):
        raise InputError(f"config.data.fit = {config.fit!r}: need 'stretch' or 'crop'")
    if config.fit == 'crop' and not 1 <= config.crop <= config.size:
        raise InputError(f'config.data.crop = {config.crop}: need 1 to size = {config.size}')
    classes.check(config.pseudo)


def _find(config: ConfigDict) -> Path:
    """The category's folder."""
    name = config.category
    if name and (name in ('.', '..') or Path(name).name != name):
        raise InputError(f"config.data.category = {name!r}: need a folder's name, like 'bottle'")
    if config.dir:
        path = find_dir(config.dir, 'mvtec', LAYOUT) / name
        if not path.is_dir():
            raise InputError(f'{path} is no folder: expected there {LAYOUT}')
        return path
    if not name:
        raise InputError(
            'no category given: set --config.data.dir=FOLDER, or --config.data.category=NAME of a '
            f'folder in $ANYSHOT_DATA_DIR or $ANYSHOT_DATA_DIR/mvtec; expected there: {LAYOUT}'
        )
    root = data_root()
    if root and (root / 'mvtec' / name).is_dir():
        return root / 'mvtec' / name
    return find_dir('', name, LAYOUT)


def held_out(good: Sequence[Item], root: Path) -> tuple[list[Item], list[Item]]:
    """Splits normal images where none are for testing: the last fifth of the groups is held out."""
    groups = list(dict.fromkeys(item.group for item in good))
    if len(groups) < 2:
        raise InputError(
            f'{root} has no test/{GOOD}, and too few groups in train/{GOOD} to hold one out: add '
            'normal images to either'
        )
    last = set(groups[-max(1, len(groups) // HELD_OUT) :])
    kept = [item for item in good if item.group not in last]
    logging.warning(
        '%s has no test/%s: the last %d of %d images in train/%s are held out',
        root, GOOD, len(good) - len(kept), len(good), GOOD,
    )  # fmt: skip
    return kept, [item for item in good if item.group in last]


def without_ambiguous(items: Sequence[Item], group: str, root: Path, least: int) -> list[Item]:
    """The items whose group shows one type of defect; the others are named in the log.

    Args:
      least: types that are needed.
    Raises:
      InputError: of so many types fewer are left: these groups are shared, not odd.
    """
    kinds = defaultdict(set)
    for item in items:
        kinds[item.group].add(item.kind)
    strange = {g: '+'.join(sorted(k)) for g, k in kinds.items() if len(k) > 1}
    kept = [item for item in items if item.group not in strange]
    if len({i.kind for i in items}) >= least > len({i.kind for i in kept}):
        raise InputError(
            f'{root}: types of defect share almost every {group}; leaving out those that show more '
            f'than one leaves {len(kept)} of {len(items)} images. '
            '--config.data.drop_ambiguous=False keeps them: support and queries are then of '
            f'different ones; --config.data.group="" takes every image for a {group} of its own'
        )
    if strange:
        logging.warning(
            'left out %d images whose %s shows more than one type of defect: %s '
            '(config.data.drop_ambiguous=False keeps them)',
            len(items) - len(kept), group, ', '.join(f'{g} ({k})' for g, k in strange.items()),
        )  # fmt: skip
    return kept


def _read(items: Sequence[Item], number: dict[str, int], config: ConfigDict) -> Dataset:
    names = tuple(sorted({item.kind for item in items}))
    items = sorted(items, key=lambda i: (i.kind, i.path))  # by class, so that nothing is copied
    side = config.size if config.fit == 'stretch' else config.crop
    x = np.empty((len(items), side, side, config.channels), np.uint8)
    mask = np.zeros(x.shape[:3], bool) if any(item.mask for item in items) else None
    of_image = {item.path: item.mask for item in items}
    notes = Notes()

    def read(path, name):
        image = open_image(path, config.max_pixels)
        pixels = np.asarray(fitted(image.convert('RGB' if config.channels == 3 else 'L'), config))
        if mask is None:
            return pixels, None
        own = of_image[path]
        blank = np.zeros(x.shape[1:3], bool)
        return pixels, read_mask(own, config, image.size) if own else blank

    with closing(read_images(len(items), lambda i: (items[i].path, ''), config, read)) as found:
        for i, both in enumerate(found):
            if isinstance(both, InputError):
                raise both
            x[i] = both[0].reshape(x.shape[1:])
            if mask is not None:
                mask[i] = both[1]
                if both[1].mean() > 0.5:
                    notes.add(LARGE, '/'.join(items[i].path.parts[-3:]))
    if notes:
        logging.warning('%s: %s', config.dir or config.category, notes)
    return from_arrays(
        x,
        [names.index(item.kind) for item in items],
        names,
        group=[number[item.group] for item in items],
        mask=mask,
    )


def fitted(image: Image.Image, config, how=Image.Resampling.BICUBIC) -> Image.Image:
    """The image at the size that config.fit, size and crop say; bicubic, averaging."""
    if config.fit == 'stretch':
        return image.resize((config.size, config.size), how)
    width, height = image.size
    short = min(width, height)
    size = tuple(max(config.size, round(s * config.size / short)) for s in (width, height))
    left, top = ((s - config.crop) // 2 for s in size)
    return image.resize(size, how).crop((left, top, left + config.crop, top + config.crop))


def read_mask(paths: Sequence[Path], config, size: tuple[int, int]) -> Array:
    """[S, S] bool of an image's masks (`masks.read`), fitted like the image, but nearest.

    Args:
      size: width and height of its image.
    Raises:
      InputError: a mask is of another size than that, or with config.resize_masks of another shape;
        or as `masks.read`.
    """
    inside, name = masks.read(paths, config.max_pixels), f'the mask {paths[0]}'
    if inside.shape[::-1] != size and not config.resize_masks:
        raise InputError(
            f'{name} has {inside.shape[1]} x {inside.shape[0]} pixels, but its image {size[0]} x '
            f'{size[1]}; if it shows the same all the same, give --config.data.resize_masks=True'
        )
    inside = masks.at_size(inside, size, name)
    inside = Image.fromarray(inside.astype(np.uint8) * 255)
    return np.asarray(fitted(inside, config, Image.Resampling.NEAREST)) > 0
