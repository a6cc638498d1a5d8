"""The files of one product category: MVTec AD's layout, MVTec 3D AD's, and manifest.csv.

MVTec AD: `train/good/000.png`, `test/<type>/000.png`, `ground_truth/<type>/000_mask.png`; other
names of masks, and folders of several (MVTec LOCO AD), as `masks.py` says.
MVTec 3D AD: `<split>/<type>/rgb/000.png` and `<split>/<type>/gt/000.png`.
Without splits (anomalib's folders): `good/000.png`, `<type>/000.png`, `mask/<type>/000.png`.

A manifest.csv beside them may say which images to take and which belong together: columns path,
split, class, mask ('' : none) and one that names an item's group. Nothing is opened that it says:
its paths are only looked up among the files that lie in the category's folder.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from absl import logging

from anyshot_jax.data.readers import masks, text_table
from anyshot_jax.data.readers.folder_tree import find_classes
from anyshot_jax.data.readers.images import SUFFIXES
from anyshot_jax.types import InputError, nearest

LAYOUT = 'train/good/<image>, test/<type>/<image>, ground_truth/<type>/<image>_mask.png'
GOOD = 'good'
NORMAL = ('good', 'normal', 'ok', 'normal_dir')  # its names where there are no splits
COLUMNS = ('path', 'split', 'class', 'mask')


class Item(NamedTuple):
    """One image of the category."""

    path: Path
    split: str  # train | test
    kind: str  # good, or the type of its defect
    mask: tuple[Path, ...]  # of its defect; one that has several types may have several
    group: str  # images of one group are near copies


def find_items(root: Path, group: str) -> list[Item]:
    """The images of a category in the order of their paths; nothing is opened but manifest.csv.

    Args:
      group: the manifest's column; '' or no manifest: every image is a group of its own.
    Raises:
      InputError: no train/good, no images, a link out of the folder, a defect without its mask
        where others have one, or a manifest that doesn't fit the files; names it.
    """
    listed = (root / 'manifest.csv').exists()
    items = _in_layout(root, listed)
    if listed:
        items = _as_listed(root, items, group)
    if not any(item.split == 'train' for item in items):
        raise InputError(f'{root} has no image in train/good: expected {LAYOUT}')
    _check_masks(items)
    return items


def _in_layout(root: Path, listed: bool) -> list[Item]:
    """The items by folders; listed: manifest.csv says which mask belongs to which image."""
    flat = not (root / 'train').is_dir() and _normal_folder(root)
    if not flat and not (root / 'train' / GOOD).is_dir():
        raise InputError(f'{root} has no folder train/good: expected {LAYOUT}')
    of_type = _masks(root)
    items: list[Item] = []
    for split in ('train', 'test'):
        for folder, files in _folders(root, split, flat or ''):
            kind = GOOD if folder.name == flat else folder.name
            if split == 'train' and kind != GOOD:
                raise InputError(f'{folder}: train may hold the folder good only')
            given = of_type.pop(kind, []) if split == 'test' else []
            items += _of_kind(root, split, folder, kind, files, given, listed)
    if of_type and not listed:
        kind = min(of_type)
        bare = [item.path for item in items if item.kind != GOOD and not item.mask]
        raise InputError(
            f'{of_type[kind][0]} is a mask of a type {kind!r} that {root / "test"} does not have'
            + (f', and {bare[0]} has no mask' if bare else '')
            + nearest(kind, {item.kind for item in items})
        )
    if (root / 'validation').is_dir():
        logging.info('%s is passed over: train/good is learnt from', root / 'validation')
    return items


def _normal_folder(root: Path) -> str:
    """The name of the folder of normal images where there are no splits; '' if there is none.

    The folder of one split of a category is no category, though it looks like one.
    """
    if (root.parent / 'train' / GOOD).is_dir():
        return ''
    names = {p.name.casefold(): p.name for p in root.iterdir() if p.is_dir()}
    return next((names[name] for name in NORMAL if name in names), '')


def _folders(root: Path, split: str, flat: str) -> Iterator[tuple[Path, list[Path]]]:
    """Folders of a split with their images. flat: that of normal images, without splits."""
    if not flat:
        for kind, files in _images(root / split, root).items():
            yield root / split / kind, files
        return
    for kind, files in _images(root, root).items():
        if kind.casefold() not in masks.FOLDERS and (kind == flat) == (split == 'train'):
            yield root / kind, files


def _masks(root: Path) -> dict[str, list[Path]]:
    """Type of defect -> files in the folder of masks."""
    folders = [p for p in root.iterdir() if p.name.casefold() in masks.FOLDERS and p.is_dir()]
    if len(folders) > 1:
        listed = ', '.join(sorted(p.name for p in folders))
        raise InputError(f'{root} has several folders of masks ({listed}): need one, ground_truth')
    if not folders:
        return {}
    kinds = (*SUFFIXES, masks.SUFFIX)
    loose = sorted(p for p in folders[0].iterdir() if p.is_file() and p.suffix.lower() in kinds)
    if loose:
        raise InputError(f'the mask {loose[0]} lies in no folder of a type: expected {LAYOUT}')
    return _images(folders[0], root, kinds)


def _of_kind(
    root: Path,
    split: str,
    folder: Path,
    kind: str,
    files: list[Path],
    found: list[Path],
    listed: bool,
) -> Iterator[Item]:
    """The items of one folder, which is of either layout."""
    of_masks = found[0].relative_to(root).parts[0] if found else ''
    masks_in = root / of_masks / kind
    of_3d = any(f.relative_to(folder).parts[0] == 'rgb' for f in files)
    if of_3d:
        found = [f for f in files if f.is_relative_to(folder / 'gt')]
        files = [f for f in files if f.is_relative_to(folder / 'rgb')]
        folder, masks_in = folder / 'rgb', folder / 'gt'
    name = lambda file, folder: file.relative_to(folder).with_suffix('').as_posix()
    by_name = {name(f, masks_in): f for f in found}
    of_image, lost = masks.match([name(f, folder) for f in files], by_name)
    if lost and not listed:
        raise InputError(
            f'the mask {by_name[lost[0]]} belongs to no image in {folder}: name it as one, '
            f'like {name(files[0], folder)}_mask.png ({len(lost)} belong to none)'
        )
    for file in files:
        # MVTec 3D has masks of normal images, too, all black.
        own = [by_name[m] for m in of_image.get(name(file, folder), [])] if kind != GOOD else []
        yield Item(file, split, kind, tuple(own), _posix(file, root))


def _check_masks(items: list[Item]) -> None:
    """Refuses (InputError) a defect without a mask where another has one; names it."""
    without = [item for item in items if item.kind != GOOD and not item.mask]
    if without and any(item.mask for item in items):
        raise InputError(
            f'{without[0].path} has no mask, but other defects have one: add it, all black where '
            f'nothing is to be seen ({len(without)} are missing)'
        )


def _images(
    folder: Path, root: Path, suffixes: tuple[str, ...] = SUFFIXES
) -> dict[str, list[Path]]:
    """Folder name -> images in it and below, sorted; {} where there is no such folder."""
    if not folder.is_dir():
        return {}
    if not folder.resolve().is_relative_to(root.resolve()):
        raise InputError(f'{folder} is a link out of the directory, to {folder.resolve()}')
    found = {
        kind: [f for f in files if f.suffix.lower() in suffixes]
        for (_, kind), files in find_classes(folder).classes.items()
    }
    return {kind: files for kind, files in found.items() if files}


def _as_listed(root: Path, items: list[Item], group: str) -> list[Item]:
    """Items that manifest.csv lists, with its masks and groups."""
    path = root / 'manifest.csv'
    there = {_posix(item.path, root): item for item in items}
    files = [f for of_kind in _masks(root).values() for f in of_kind]
    files += [f for item in items for f in item.mask]
    there_are = {_posix(f, root): f for f in files}
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
        if row['mask'] and row['mask'] not in there_are:
            raise InputError(f'{where}: {_short(row["mask"])} is no mask in {root}')
        if name in found:
            raise InputError(f'{where}: {name} is listed twice')
        own = (there_are[row['mask']],) if row['mask'] else ()
        found[name] = item._replace(mask=own, group=row[group] if group else item.group)
        if group and not row[group].strip():
            raise InputError(f'{where}: {group} is empty; give every image its group')
    if not found:
        raise InputError(f'{path} lists no image: add them, or remove the file')
    if len(found) < len(items):
        logging.warning('%s does not list %d images', path, len(items) - len(found))
    return [found[name] for name in there if name in found]


def _rows(path: Path, group: str) -> Iterator[dict[str, str]]:
    if not path.resolve().is_relative_to(path.parent.resolve()):
        raise InputError(f'{path} is a link out of the directory')
    lines = text_table.rows(path, ',')
    columns = next(lines, [])
    for column in (*COLUMNS, *([group] if group else [])):
        if column not in columns:
            hint = '; --config.data.group=COLUMN names the groups, "" has none'
            raise InputError(
                f'{path} has no column {column!r}{nearest(column, columns)}'
                f'{hint if column == group else ""}'
            )
    for number, row in enumerate(filter(None, lines), 2):
        if len(row) != len(columns):
            raise InputError(f'{path}, line {number}: expected {len(columns)} values')
        yield dict(zip(columns, row, strict=True))


def _posix(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix()


def _short(value: str) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f'{text[:77]}...'
