"""Industrial sets: MSD (metal surface defects), KTD (Kylberg textures), and others laid out so.

The directory holds `classes.json` and `images/<class>/<image>`, see `readers/industrial.py`.
Classes are sorted by name, images by path.

Which classes are novel, in role 'test' (config.data.classes): 'A' those with seen = false. Of MSD
other sets are in circulation too, and publications don't say which is theirs: 'B' the last five by
name, 'C' every fourth, 'D' those of GTnet's novel.json. 'random': as many as in A, the first of the
sorted names shuffled by split_seed. Of the others the first `val`, shuffled by val_seed, validate.

With held_out a part of every class of train and val is kept back as role 'test_seen', for
generalised zero-shot: its classes are train's and then val's. In A these are the files that
classes.json names, if it does. Else a class's n images are cut into max(2, n / 5) equal runs, and
the last of each run is kept back.

texts are 'what it is: description'. What it is: the long_name without its remark, else the class's
name in words.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from anyshot_jax.config import check_choices
from anyshot_jax.data.readers.classes import read_classes
from anyshot_jax.data.readers.descriptions import warn_same
from anyshot_jax.data.readers.images import check_fields
from anyshot_jax.data.readers.industrial import LAYOUT, find_files, read_listing, short
from anyshot_jax.data.readers.locate import find_dir
from anyshot_jax.data.readers.notes import Notes
from anyshot_jax.data.splits import ROLES, split_items
from anyshot_jax.types import TEST_SEEN, Data, InputError, from_arrays

DEFAULTS = {
    'set': 'MSD',  # MSD | KTD | the name of another folder of this layout
    'classes': 'A',  # which are novel: A | random, and of MSD: B | C | D
    'split_seed': 0,  # which those of 'random' are
    'val': 3,  # how many of the seen classes validate (MSD and KTD have 15); 0: all train
    'val_seed': 0,  # which these are
    'held_out': False,  # True: keeps back items of the seen classes, in role test_seen
    'size': 224,  # images are centre-cropped and resized to size x size
    'channels': 3,  # 3 colour | 1 grey
    'on_error': 'raise',  # raise | skip (and count) images that can't be read
    'max_pixels': 50_000_000,  # an image that unpacks to more is refused
}

# fmt: off
MSD = (
    'Am', 'Cr', 'In', 'Ld', 'Pa', 'Ps', 'Rail', 'Rs', 'Sc', 'Sca', 'blister', 'bump',
    'coating_crack', 'convexity', 'damage', 'dirty_spot', 'indentation', 'jet_flow',
    'orange_peel', 'rub_mark',
)
# fmt: on
NOVEL = {
    'B': MSD[15:],
    'C': MSD[3::4],
    'D': ('bump', 'convexity', 'dirty_spot', 'jet_flow', 'rub_mark'),
}


def load(config: ConfigDict) -> Data:
    """Data of uint8 [N, size, size, channels]; names are the folders' names.

    Raises:
      InputError: nothing there, a classes.json that doesn't fit the folders, a class set that this
        set doesn't have, too many validation classes, a damaged image, a link out of the
        directory; names the file, class or field.
    """
    check_fields(config)
    for field in ('split_seed', 'val_seed'):
        if config[field] < 0:
            raise InputError(f'config.data.{field} = {config[field]}: need 0 or more')
    root = _find(config)
    listing = read_listing(root)
    if config.set not in (listing.name, root.name):  # a result says which set it is of
        raise InputError(
            f'config.data.set = {config.set!r}, but {root} holds the set '
            f'{short(listing.name)}: name that one with --config.data.set'
        )
    classes = listing.classes
    role = _roles({name: c['seen'] for name, c in classes.items()}, config)
    files = find_files(root, classes)
    warn_same({name: c.get('description') or '' for name, c in classes.items()})
    names = [name for r in ROLES for name in role if role[name] == r]
    seen = [name for name in names if role[name] != 'test']  # train's, then val's
    kept: dict[str, list[Path]] = {}
    if config.held_out:
        listed = {root / 'images' / file: file for file in listing.test_seen}
        kept = _held_out({name: files[name] for name in seen}, listed, config)
    keys = {(role[n], n): [f for f in files[n] if f not in kept.get(n, ())] for n in names}
    parts = {**keys, **{(TEST_SEEN, n): kept[n] for n in kept}}
    x, label = read_classes(root, parts, config, Notes())
    texts = [_text(name, classes[name]) for name in names]
    end = np.searchsorted(label, len(names))  # from there on they are test_seen's
    roles = ROLES if config.val else ('train', 'test')
    given = [role[n] for n in names]
    data = split_items(x[:end], label[:end], names, given, texts=texts, roles=roles)
    if not kept:
        return data
    said = tuple(texts[: len(seen)]) if any(texts) else ()
    held_out = from_arrays(x[end:], label[end:] - len(names), tuple(seen), texts=said)
    return dataclasses.replace(data, roles={**data.roles, TEST_SEEN: held_out})


def _find(config: ConfigDict) -> Path:
    """The directory of classes.json, which is the given one or in it."""
    if config.set in ('', '.', '..') or Path(config.set).name != config.set:
        raise InputError(f"config.data.set = {config.set!r}: need a folder's name, like 'MSD'")
    path = find_dir(config.dir, f'industrial/{config.set}', LAYOUT)
    for root in (path, path / config.set):
        if (root / 'classes.json').is_file():
            return root
    raise InputError(
        f'{path} holds no classes.json, and no {config.set}/classes.json either: expected {LAYOUT}'
    )


def _roles(seen: Mapping[str, bool], config: ConfigDict) -> dict[str, str]:
    """Class name -> role; `seen` says of every class, by sorted name, if it is in class set A."""
    known = ('A', *NOVEL, 'random')
    check_choices(config, {'classes': known}, 'config.data')
    names = list(seen)
    novel = [name for name in names if not seen[name]]
    if config.classes in NOVEL:
        if set(names) != set(MSD):
            raise InputError(
                f'config.data.classes = {config.classes!r} is a set of the 20 classes of MSD, '
                f"and {config.set!r} has others: take 'A' or 'random'"
            )
        novel = list(NOVEL[config.classes])
    elif not novel:
        raise InputError('classes.json has no class with seen = false, so none is novel')
    elif config.classes == 'random':
        novel = _drawn(names, len(novel), config.split_seed)
    rest = [name for name in names if name not in novel]
    if not 0 <= config.val < len(rest):
        raise InputError(
            f'config.data.val = {config.val}: of {len(rest)} seen classes none to '
            f'{len(rest) - 1} can validate, at least one must remain for training'
        )
    val = _drawn(rest, config.val, config.val_seed)
    return {n: 'test' if n in novel else 'val' if n in val else 'train' for n in names}


def _drawn(names: list[str], num: int, seed: int) -> list[str]:
    order = np.random.default_rng(seed).permutation(len(names))
    return [names[i] for i in order[:num]]


def _held_out(
    files: Mapping[str, list[Path]], listed: Mapping[Path, str], config: ConfigDict
) -> dict[str, list[Path]]:
    """Picks the files of each seen class to keep back, sorted; `listed` is for class set A."""
    if config.classes == 'A' and listed:
        strange = set(listed).difference(*files.values())
        if strange:
            raise InputError(
                f'classes.json keeps back {short(listed[min(strange)])} for {TEST_SEEN}, which is '
                'no file of a seen class'
            )
        kept = {name: [f for f in of_class if f in listed] for name, of_class in files.items()}
    else:
        kept = {name: _every_fifth(of_class) for name, of_class in files.items()}
    for name, of_class in files.items():
        if not 0 < len(kept[name]) < len(of_class):
            raise InputError(
                f'config.data.held_out=True would keep back {len(kept[name])} of the '
                f'{len(of_class)} images of class {name!r}: some of every seen class are '
                'needed, and some for training'
            )
    return kept


def _every_fifth(files: list[Path]) -> list[Path]:
    num = max(2, round(len(files) / 5))
    last = np.arange(1, num + 1) * len(files) // num - 1
    return [files[i] for i in np.unique(last)]


def _text(name: str, fields: Mapping) -> str:
    """'rolled-in scale: White, hole, ...', or what there is of it; '' if neither part is there."""
    long_name, description = ((fields.get(k) or '').strip() for k in ('long_name', 'description'))
    # Remarks are ' (steel; an inference)' and ', abbreviation not expanded in the source'.
    said = re.split(r'\s*\(|, abbreviation ', long_name)[0]
    if description and not said:
        said = name.removesuffix('-without-rotations').replace('_', ' ').replace('-', ' ')
    return f'{said}: {description}' if description else said
