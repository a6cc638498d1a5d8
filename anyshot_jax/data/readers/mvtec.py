"""The files of one product category: MVTec AD's layout, MVTec 3D AD's, and manifest.csv.

MVTec AD: `train/good/000.png`, `test/<type>/000.png`, `ground_truth/<type>/000_mask.png`.
MVTec 3D AD: `<split>/<type>/rgb/000.png` and `<split>/<type>/gt/000.png`.

A manifest.csv beside them may say which images to take and which belong together: columns path,
split, class, mask ('' : none) and one that names an item's group. Nothing is opened that it says:
its paths are only looked up among the files that lie in the category's folder.
"""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from absl import logging

from anyshot_jax.data.readers.folder_tree import find_classes
from anyshot_jax.data.readers.images import SUFFIXES
from anyshot_jax.types import InputError, nearest

LAYOUT = 'train/good/<image>, test/<type>/<image>, ground_truth/<type>/<image>_mask.png'
GOOD = 'good'
MAX_MANIFEST = 50_000_000  # bytes
COLUMNS = ('path', 'split', 'class', 'mask')


class Item(NamedTuple):
    """One image of the category."""

    path: Path
    split: str  # train | test
    kind: str  # good, or the type of its defect
    mask: Path | None
    group: str  # images of one group are near copies


def find_items(root: Path, group: str) -> list[Item]:
    """The images of a category in the order of their paths; nothing is opened but manifest.csv.

    Args:
      group: the manifest's column; '' or no manifest: every image is a group of its own.
    Raises:
      InputError: no train/good, no images, a link out of the folder, a defect without its mask
        where others have one, or a manifest that doesn't fit the files; names it.
    """
    items = _in_layout(root)
    if (root / 'manifest.csv').exists():
        items = _as_listed(root, items, group)
    if not any(item.split == 'train' for item in items):
        raise InputError(f'{root} has no image in train/good: expected {LAYOUT}')
    _check_masks(items)
    return items


def _in_layout(root: Path) -> list[Item]:
    if not (root / 'train' / GOOD).is_dir():
        raise InputError(f'{root} has no folder train/good: expected {LAYOUT}')
    masks = _images(root / 'ground_truth', root)
    items = []
    for split in ('train', 'test'):
        kinds = _images(root / split, root)
        for kind, files in kinds.items():
            if split == 'train' and kind != GOOD:
                raise InputError(f'{root / split / kind}: train may hold the folder good only')
            items += _of_kind(root, split, kind, files, masks.get(kind, []))
    if (root / 'validation').is_dir():
        logging.info('%s is passed over: train/good is learnt from', root / 'validation')
    return items


def _of_kind(root: Path, split: str, kind: str, files: list[Path], masks: list[Path]):
    """The items of one folder, which is of either layout."""
    folder, of_masks = root / split / kind, root / 'ground_truth' / kind
    of_3d = any(f.relative_to(folder).parts[0] == 'rgb' for f in files)
    if of_3d:
        masks = [f for f in files if f.is_relative_to(folder / 'gt')]
        files = [f for f in files if f.is_relative_to(folder / 'rgb')]
        folder, of_masks = folder / 'rgb', folder / 'gt'
    name = lambda file, folder: file.relative_to(folder).with_suffix('').as_posix()
    # MVTec 3D has masks of normal images, too, all black.
    by_name = {name(f, of_masks).removesuffix('_mask'): f for f in masks if kind != GOOD}
    for file in files:
        yield Item(file, split, kind, by_name.get(name(file, folder)), _posix(file, root))


def _check_masks(items: list[Item]) -> None:
    """Refuses (InputError) a defect without a mask where another has one; names it."""
    without = [item for item in items if item.kind != GOOD and not item.mask]
    if without and any(item.mask for item in items):
        raise InputError(
            f'{without[0].path} has no mask, but other defects have one: add it, all black where '
            f'nothing is to be seen ({len(without)} are missing)'
        )


def _images(folder: Path, root: Path) -> dict[str, list[Path]]:
    """Folder name -> images in it and below, sorted; {} where there is no such folder."""
    if not folder.is_dir():
        return {}
    if not folder.resolve().is_relative_to(root.resolve()):
        raise InputError(f'{folder} is a link out of the directory, to {folder.resolve()}')
    found = {
        kind: [f for f in files if f.suffix.lower() in SUFFIXES]
        for (_, kind), files in find_classes(folder).classes.items()
    }
    return {kind: files for kind, files in found.items() if files}


def _as_listed(root: Path, items: list[Item], group: str) -> list[Item]:
    """Items that manifest.csv lists, with its masks and groups."""
    path = root / 'manifest.csv'
    there = {_posix(item.path, root): item for item in items}
    files = [f for of_kind in _images(root / 'ground_truth', root).values() for f in of_kind]
    files += [item.mask for item in items if item.mask]
    masks = {_posix(f, root): f for f in files}
    found: dict[str, Item] = {}
    for number, row in enumerate(_rows(path, group), 2):
        where, name = f'{path}, line {number}', row['path']
        if name not in there:
            raise InputError(
                f'{where}: {_short(name)} is no image in {root}; expected one like {min(there)!r}'
            )
        item = there[name]
        for column, want in (('split', item.split), ('class', item.kind)):
            if row[column] != want:
                raise InputError(
                    f'{where}: {column} is {_short(row[column])}, but {name} lies in '
                    f'{item.split}/{item.kind}'
                )
        if row['mask'] and row['mask'] not in masks:
            raise InputError(f'{where}: {_short(row["mask"])} is no mask in {root}')
        if name in found:
            raise InputError(f'{where}: {name} is listed twice')
        own = masks[row['mask']] if row['mask'] else None
        found[name] = item._replace(mask=own, group=row[group] if group else item.group)
        if group and not row[group].strip():
            raise InputError(f'{where}: {group} is empty; give every image its group')
    if not found:
        raise InputError(f'{path} lists no image: add them, or remove the file')
    if len(found) < len(items):
        logging.warning('%s does not list %d images', path, len(items) - len(found))
    return [found[name] for name in there if name in found]


def _rows(path: Path, group: str) -> Iterable[dict[str, str]]:
    if not path.resolve().is_relative_to(path.parent.resolve()):
        raise InputError(f'{path} is a link out of the directory')
    if path.stat().st_size > MAX_MANIFEST:
        raise InputError(f'{path} is larger than {MAX_MANIFEST:,} bytes')
    try:
        reader = csv.DictReader(io.StringIO(path.read_text('utf-8-sig')), strict=True)
        rows, columns = list(reader), list(reader.fieldnames or ())
    except (OSError, ValueError, csv.Error) as e:
        raise InputError(f'{path} is not readable CSV in UTF-8: {e}') from e
    for column in (*COLUMNS, *([group] if group else [])):
        if column not in columns:
            hint = '; --config.data.group=COLUMN names the groups, "" has none'
            raise InputError(
                f'{path} has no column {column!r}{nearest(column, columns)}'
                f'{hint if column == group else ""}'
            )
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise InputError(f'{path}, line {number}: expected {len(columns)} values')
    return rows


def _posix(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix()


def _short(value: str) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f'{text[:77]}...'
