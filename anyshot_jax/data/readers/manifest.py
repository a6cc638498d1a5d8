"""Classes by a list instead of folders: labels.csv, .tsv or .xlsx, or an export of COCO or YOLO.

A table has a column with the image's path and one with its label. Of COCO
(`_annotations.coco.json`, `annotations/*.json`) and YOLO (data.yaml or classes.txt, labels/*.txt
beside images/*) the classes of an image's boxes are its label where they are one and the same;
images without a box, or with several classes, are passed over and counted. Nothing is opened that
a list says: its paths are only looked up among the files below the folder.
"""

import unicodedata
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from anyshot_jax.data.readers import text_table
from anyshot_jax.data.readers.descriptions import read_json
from anyshot_jax.data.readers.folder_tree import Tree, check_level, find_classes, find_files
from anyshot_jax.data.readers.images import SUFFIXES
from anyshot_jax.data.readers.notes import Notes
from anyshot_jax.storage.files import read_whole
from anyshot_jax.types import InputError

TABLES = ('labels.csv', 'labels.tsv', 'labels.xlsx')
# What columns are called, the likeliest first.
PATHS = ('path', 'file', 'filename', 'file_name', 'image', 'image_path', 'filepath', 'img',
         'image_id', 'id', 'name')  # fmt: skip
LABELS = ('label', 'class', 'class_name', 'category', 'target', 'species', 'diagnosis', 'tag')
MAX_BYTES = 50_000_000  # of the boxes of an image
MAX_NAMES = 100_000  # bytes of YOLO's names
MAX_CLASS = 1_000_000  # and their numbers
MAX_SHEET = 25_000_000  # bytes of what an Excel file unpacks to,
MAX_ROWS = 1 << 20  # and Excel's own number of rows
NONE, SEVERAL = 'images without a class', 'images that show several classes'
Rows = Iterator[tuple[str, str, str]]  # where it stands, path, label


def find_tree(root: Path, follow_links: bool = False) -> Tree:
    """The classes of a folder by its list, if it has one, else by its class folders.

    Raises:
      InputError: a list that can't be read or names files that aren't there, or as
        `folder_tree.find_classes` and `check_level`.
    """
    found = _listed(root, follow_links) if root.is_dir() else None
    return found or check_level(root, find_classes(root, follow_links))


def _listed(root: Path, follow_links: bool) -> Tree | None:
    tables = [root / name for name in TABLES if (root / name).is_file()]
    coco = sorted([*root.glob('_annotations.coco.json'), *root.glob('*/_annotations.coco.json'),
                   *root.glob('annotations/*.json')])  # fmt: skip
    yolo = [p for p in (root / 'data.yaml', root / 'classes.txt') if p.is_file()]
    boxes = yolo and any((root / d).is_dir() for d in ('labels', 'train/labels', 'valid/labels'))
    if not (tables or coco or boxes):
        return None
    if len(tables) > 1:
        raise InputError(f'{root} has {" and ".join(p.name for p in tables)}: need one of them')
    files, notes = find_files(root, follow_links)
    files = [f for f in files if f.suffix.lower() in SUFFIXES]
    if tables:
        return _tree(root, _table(tables[0]), files, notes)
    pairs = _coco(coco, root, notes) if coco else _yolo(yolo[0], root, files, notes)
    return _tree(root, pairs, files, notes)


def _tree(
    root: Path, rows: Iterable[tuple[str, str, str]], files: list[Path], notes: Notes
) -> Tree:
    """The listed files by their labels."""
    places: dict[str, Path | None] = {}
    for file in files:
        inside = PurePosixPath(_normal(file.relative_to(root).as_posix()))
        for name in {str(inside), inside.name, inside.stem}:
            # A name that several files have is none of them; a whole path always is one.
            places[name] = file if name not in places or name == str(inside) else None
    classes: dict[tuple[str, str], list[Path]] = {}
    label_of: dict[Path, str] = {}
    for where, path, label in rows:
        found = places.get(_normal(path))
        if found is None:
            several = ' (several files are called so: give its folder, too)'
            more = several if _normal(path) in places else ''
            raise InputError(f'{where}: {path[:80]!r} is no image in {root}{more}')
        label = unicodedata.normalize('NFC', label.strip())
        if not label:
            notes.add(NONE, path)
            continue
        before = label_of.setdefault(found, label)
        if before != label:
            raise InputError(f'{where}: {path[:80]!r} has the label {label!r} and {before!r}')
        classes.setdefault(('', label), []).append(found)
    left = len(files) - len(label_of)
    if left:
        notes.add('images that the list does not name', '', left)
    ordered = {key: sorted(set(classes[key])) for key in sorted(classes)}
    return Tree(ordered, False, notes)


def _normal(path: str) -> str:
    return unicodedata.normalize('NFC', path.strip().replace('\\', '/').removeprefix('./'))


def _table(path: Path) -> Rows:
    """The rows of a table with a header."""
    mark = '\t' if path.suffix == '.tsv' else ''
    lines = _sheet(path) if path.suffix == '.xlsx' else text_table.rows(path, mark)
    try:
        header = [c.strip().casefold() for c in next(lines)]
    except StopIteration:
        raise InputError(f'{path} is empty: need a header with path and label') from None
    columns = [next((header.index(n) for n in names if n in header), -1)
               for names in (PATHS, LABELS)]  # fmt: skip
    if -1 in columns:
        raise InputError(
            f'{path} has the columns {", ".join(header)[:200]}: need one called path and one '
            'called label'
        )
    for number, row in enumerate(lines, 2):
        if any(cell.strip() for cell in row):
            cells = [row[c] if c < len(row) else '' for c in columns]
            yield f'{path}, line {number}', cells[0], cells[1]


def _sheet(path: Path) -> Iterator[list[str]]:
    """The rows of an Excel file's first sheet."""
    try:
        import openpyxl
    except ImportError as e:
        raise InputError(f"{path} needs more: pip install 'anyshot-jax[excel]'") from e
    try:
        with zipfile.ZipFile(path) as z:
            if sum(info.file_size for info in z.infolist()) > MAX_SHEET:
                raise InputError(f'{path} unpacks to more than {MAX_SHEET:,} bytes: save it as csv')
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        for row in book.worksheets[0].iter_rows(values_only=True, max_row=MAX_ROWS, max_col=100):
            empty = row.count(None) == len(row)  # a cell may lie a million rows below the others
            yield [] if empty else ['' if cell is None else str(cell) for cell in row]
    except InputError:
        raise
    except Exception as e:  # whatever hostile bytes lead to, the file is the reason
        raise InputError(f'{path} is damaged or no Excel file: {type(e).__name__}: {e}') from e


def _coco(paths: list[Path], root: Path, notes: Notes) -> Rows:
    for path in paths:
        said = read_json(path)
        try:
            names = {_id(c['id']): str(c['name']) for c in said['categories']}
            images = {_id(i['id']): str(i['file_name']) for i in said['images']}
            of_image: dict[str, set[str]] = {i: set() for i in images}
            for box in said['annotations']:
                of_image[_id(box['image_id'])].add(names[_id(box['category_id'])])
        except (KeyError, TypeError, RecursionError) as e:
            raise InputError(f'{path} is no COCO file: {type(e).__name__}: {e}') from e
        folder = path.parent.relative_to(root).as_posix()
        beside = '' if folder in ('.', 'annotations') else f'{folder}/'
        for i, name in images.items():
            yield from _one(f'{path}, image {i:.40}', beside + name, of_image[i], notes)


def _id(value: Any) -> str:
    """A number or a name as text: numbers can be chosen so that a dict finds none of them soon."""
    if not isinstance(value, (int, str)):
        raise TypeError(f'an id that is a {type(value).__name__}')
    return str(value)


def _yolo(listing: Path, root: Path, files: list[Path], notes: Notes) -> Rows:
    names = _yolo_names(listing)
    for file in files:
        inside = file.relative_to(root)
        if 'images' not in inside.parts:
            continue
        at = len(inside.parts) - 1 - inside.parts[::-1].index('images')
        parts = [*inside.parts[:at], 'labels', *inside.parts[at + 1 :]]
        label = (root / Path(*parts)).with_suffix('.txt')
        found = set()
        try:
            lines = read_whole(label, MAX_BYTES).decode().splitlines() if label.exists() else ()
            for line in lines:
                if line.strip():
                    found.add(names[int(line.split()[0])])
        except InputError:
            raise
        except (OSError, ValueError, KeyError) as e:
            raise InputError(f'{label} has a line that names no class of {listing}: {e}') from e
        yield from _one(str(label), inside.as_posix(), found, notes)


def _yolo_names(path: Path) -> dict[int, str]:
    try:
        text = read_whole(path, MAX_NAMES).decode('utf-8-sig')
        if path.suffix == '.txt':
            return dict(enumerate(line.strip() for line in text.splitlines() if line.strip()))
        names = yaml.load(text, _Plain)['names']
        pairs = names.items() if isinstance(names, dict) else enumerate(names)
        found = {int(i): str(name)[:1000] for i, name in pairs}
        if wrong := [i for i in found if not 0 <= i < MAX_CLASS]:
            raise ValueError(f'a class has the number {wrong[0]}')
        return found
    except InputError:
        raise
    except Exception as e:  # of YAML from anywhere
        raise InputError(f'{path} names no classes: {type(e).__name__}: {e}'[:300]) from e


class _Plain(yaml.BaseLoader):
    """Loads texts, lists and mappings: no numbers are made, and a part is never there twice."""

    def compose_node(self, parent, index):
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, 'tag', None):
            raise ValueError(f'a reference or a kind ({getattr(event, "tag", None) or "*name"})')
        return super().compose_node(parent, index)


def _one(where: str, path: str, labels: set[str], notes: Notes) -> Rows:
    """The row of an image that shows one class."""
    if len(labels) == 1:
        yield where, path, next(iter(labels))
    else:
        notes.add(SEVERAL if labels else NONE, path)
