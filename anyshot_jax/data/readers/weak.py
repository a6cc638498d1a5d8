"""Base, web and test images: folders, or the official lists of four data sets.

The splits are those of the SimTrans paper: Chen, Niu, Liu, Zhang, "Weak-shot fine-grained
classification via similarity transfer", NeurIPS 2021. None of these sets was at hand: the readers
are tested on synthetic files in their published formats.
"""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from anyshot_jax.data.readers.folder_tree import find_roles
from anyshot_jax.data.readers.notes import Notes
from anyshot_jax.data.readers.webvision import find_webvision
from anyshot_jax.storage.files import read_whole
from anyshot_jax.types import InputError

MAX_BYTES = 50_000_000  # of a list
Files = dict[tuple[str, str], list[Path]]  # (base, web or test; class) -> its files

# Official numbers of CUB-200-2011's novel classes: the test classes of Xian et al.'s split.
CUB_NOVEL = frozenset((
    4, 12, 23, 26, 28, 31, 33, 43, 45, 49, 52, 55, 70, 72, 77, 84, 87, 91, 94, 97, 98, 103, 104,
    111, 113, 119, 123, 124, 127, 130, 132, 136, 138, 139, 143, 148, 156, 157, 161, 163, 164, 165,
    168, 169, 173, 180, 188, 190, 191, 200,
))  # fmt: skip
AIRCRAFT_NOVEL = frozenset((
    '737-200', '757-300', 'A321', 'ATR-72', 'An-12', 'C-130', 'CRJ-900', 'Cessna 172',
    'Cessna 208', 'Cessna 525', 'DHC-1', 'DHC-6', 'DR-400', 'Eurofighter Typhoon', 'F/A-18',
    'Fokker 70', 'Gulfstream IV', 'Gulfstream V', 'Model B200', 'PA-28', 'SR-20', 'Saab 2000',
    'Saab 340', 'Spitfire', 'Tu-154',
))  # fmt: skip


def find(root: Path, layout: str, most: int = 0) -> tuple[Files, Notes]:
    """The files of every role and class, and what was passed over.

    Args:
      layout: `folders` (base/<class>/*, web/<class>/*, test/<class>/*), or `cub`, `car` or
        `aircraft`: the official release in `root`, and web/<novel class>/* beside it; or
        `webvision`, see `webvision.py`. most: images of a class for base and for web; 0: all.
    Raises:
      InputError: a file or folder that isn't there or doesn't fit (named).
    """
    if layout == 'folders':
        tree = find_roles(root, ('base', 'web', 'test'))
        files, notes = tree.classes, tree.notes
    elif layout == 'webvision':
        files, notes = find_webvision(root, most), Notes()
    else:
        rows, novel = {'cub': _cub, 'car': _car, 'aircraft': _aircraft}[layout](root)
        files = {}
        for path, name, train in rows:
            if name in novel and train:
                continue  # the novel classes have no clean training image
            files.setdefault(('base' if train else 'test', name), []).append(path)
        tree = find_roles(root, ('web',))
        # A folder can't be called F-16A/B: there / is written as _.
        names = {name.replace('/', '_'): name for name in novel}
        files |= {(r, names.get(c, c)): f for (r, c), f in tree.classes.items()}
        notes = tree.notes
    # The lists of webvision are too long to be kept whole: there `most` counts while they are read.
    return {k: f if k[0] == 'test' or not most else f[:most] for k, f in files.items()}, notes


def check(files: Files, root: Path) -> None:
    """Refuses what can't be learnt from.

    Raises:
      InputError: an empty role, a class both base and web, or a web class without test images.
    """
    of = {r: {c for role, c in files if role == r} for r in ('base', 'web', 'test')}
    for role, names in of.items():
        if not names:
            raise InputError(f'{root} has no class with files in {role}')
    if both := sorted(of['base'] & of['web']):
        raise InputError(
            f'class {both[0]!r} stands in base and in web ({len(both)} do): a base class is clean, '
            'a novel one has web images only; move one of the folders'
        )
    spelt = {_spelling(name): name for name in of['base']}
    for name in sorted(of['web']):
        if other := spelt.get(_spelling(name)):
            raise InputError(
                f'web class {name!r} is base class {other!r} in another spelling: a base class is '
                'clean, a novel one has web images only; move or rename one of the folders'
            )
    if lost := sorted(of['web'] - of['test']):
        raise InputError(f'web class {lost[0]!r} has no folder in test: nothing would judge it')
    if lost := sorted(of['test'] - of['web'] - of['base']):
        raise InputError(f'test class {lost[0]!r} stands neither in base nor in web')


def _spelling(name: str) -> str:
    """A name without case and what separates its words; other signs tell names apart (C, C++)."""
    return re.sub(r"[\s_.,'/-]+", '', unicodedata.normalize('NFKC', name).casefold()) or name


def _cub(root: Path) -> tuple[Iterable[tuple[Path, str, bool]], set[str]]:
    names, path, of_class, train = (
        {row[0]: row[1] for row in _columns(root / f'{part}.txt', 2)}
        for part in ('classes', 'images', 'image_class_labels', 'train_test_split')
    )
    try:
        rows = [(root / 'images' / path[i], names[of_class[i]], train[i] == '1') for i in path]
    except KeyError as e:
        raise InputError(f"{root}: the lists of images and classes don't agree at {e}") from e
    return rows, {name for number, name in names.items() if int(number) in CUB_NOVEL}


def _car(root: Path) -> tuple[Iterable[tuple[Path, str, bool]], set[str]]:
    """CompCars' classification task: lines make/model/year/image.jpg."""
    rows = []
    for part in ('train', 'test'):
        for (line,) in _columns(root / 'train_test_split' / 'classification' / f'{part}.txt', 1):
            pieces = line.split('/')
            if len(pieces) != 4:
                raise InputError(f'{root}: {line!r} is not make/model/year/image in {part}.txt')
            rows.append((root / 'image' / line, pieces[1], part == 'train'))
    models = sorted({name for _, name, _ in rows})
    return rows, set(models[::4])


def _aircraft(root: Path) -> tuple[Iterable[tuple[Path, str, bool]], set[str]]:
    rows = []
    for part in ('trainval', 'test'):
        for number, name in _columns(root / f'images_variant_{part}.txt', 2):
            rows.append((root / 'images' / f'{number}.jpg', name, part == 'trainval'))
    return rows, set(AIRCRAFT_NOVEL)


def _columns(path: Path, number: int) -> list[tuple[str, ...]]:
    """The lines of a list; the last column may hold spaces."""
    try:
        lines = read_whole(path, MAX_BYTES).decode().splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f'{path} cannot be read: {e}') from e
    rows = []
    for i, line in enumerate(lines, 1):
        if not line.strip():
            continue
        pieces = tuple(line.strip().split(None, number - 1))
        if len(pieces) != number:
            raise InputError(f'{path}:{i} has {len(pieces)} columns, expected {number}')
        rows.append(pieces)
    return rows
