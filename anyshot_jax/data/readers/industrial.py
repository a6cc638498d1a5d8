"""The layout of the industrial sets: classes.json and images/<class>/<image>.

{"name": "MSD", "classes": [{"name": "Rs", "seen": false, "long_name": "rolled-in scale",
"description": "White, hole, ...", "folder": "images/Rs", "files": ["Rs/1.jpg", ...]}, ...],
"splits": {"files_by_convention": {"test_seen": ["Am/13.jpg", ...]}}}, of which every class must
have name and seen; without files these are all images in its folder. Nothing is opened that
classes.json says: it is only looked up among the files that lie below images.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from absl import logging

from anyshot_jax.data.readers.descriptions import read_json
from anyshot_jax.data.readers.folder_tree import find_classes
from anyshot_jax.data.readers.images import SUFFIXES
from anyshot_jax.types import TEST_SEEN, InputError

LAYOUT = 'classes.json and images/<class>/<image>'
KINDS = {  # of a class's fields; null and absent are the same
    'name': (str, 'text'),
    'seen': (bool, 'true or false'),
    'description': (str | None, 'text'),
    'long_name': (str | None, 'text'),
    'folder': (str | None, 'text'),
    'files': (list | None, 'a list of texts'),
}


class Listing(NamedTuple):
    """Contents of classes.json."""

    name: str  # of the set; the folder's name if it says none
    classes: dict[str, dict[str, Any]]  # by name, sorted; fields as in KINDS
    test_seen: tuple[str, ...]  # files of seen classes to keep back, if it names any


def read_listing(root: Path) -> Listing:
    """root/classes.json, with fields of known kinds; InputError names the class and field."""
    path = root / 'classes.json'
    content = read_json(path)
    listed = content.get('classes') if isinstance(content, dict) else None
    if not isinstance(listed, list) or not listed:
        raise InputError(f'{path}: expected {{"classes": [{{"name": "...", "seen": true}}, ...]}}')
    found: dict[str, dict[str, Any]] = {}
    for number, fields in enumerate(listed):
        where = f'{path}, class number {number}'
        if not isinstance(fields, dict):
            raise InputError(f'{where}: expected an object with name and seen')
        for field, (kind, what) in KINDS.items():
            if not isinstance(fields.get(field), kind):
                raise InputError(f'{where}: {field} is {short(fields.get(field))}, expected {what}')
            where += f' ({short(fields["name"])})' if field == 'name' else ''
        name = fields['name']
        if name in found:
            raise InputError(f'{where}: that name was there before')
        if fields.get('folder') not in (None, f'images/{name}'):
            raise InputError(
                f"{where}: folder is {short(fields['folder'])}, expected 'images/' and its name"
            )
        found[name] = fields
    named = content.get('name')
    return Listing(
        name=named if isinstance(named, str) else root.name,
        classes={name: found[name] for name in sorted(found)},
        test_seen=_test_seen(content, root),
    )


def _test_seen(content: Any, root: Path) -> tuple[str, ...]:
    for key in ('splits', 'files_by_convention', TEST_SEEN):
        content = content.get(key) if isinstance(content, dict) else None
    if content is None:
        return ()
    if not isinstance(content, list) or not all(isinstance(file, str) for file in content):
        raise InputError(
            f'{root}/classes.json: splits.files_by_convention.{TEST_SEEN} is {short(content)}, '
            'expected a list of files'
        )
    return tuple(content)


def find_files(root: Path, classes: Mapping[str, dict[str, Any]]) -> dict[str, list[Path]]:
    """The images of every class, sorted.

    Raises:
      InputError: a class without folder or images, a file that isn't there, or a link out of the
        directory; names it.
    """
    images = root / 'images'
    if not images.is_dir():
        raise InputError(f'{root} holds classes.json, but no folder images: expected {LAYOUT}')
    if not images.resolve().is_relative_to(root.resolve()):
        raise InputError(f'{images} is a link out of the directory, to {images.resolve()}')
    tree = find_classes(images).classes
    there = {name: files for (role, name), files in tree.items() if not role}
    for name in classes:
        if name not in there:
            raise InputError(
                f'{root}/classes.json has class {short(name)}, but there is no such folder in '
                f'{images}: make it, or take the class out of the file'
            )
    others = sorted(set(there) - set(classes))
    if others:
        logging.warning('%s: classes.json has no class %s', images, ', '.join(map(repr, others)))
    return {
        name: _listed(name, fields.get('files'), there[name], images)
        for name, fields in classes.items()
    }


def _listed(name: str, files: list | None, there: Iterable[Path], folder: Path) -> list[Path]:
    """Files in a class's folder that classes.json lists."""
    images = {f.relative_to(folder).as_posix(): f for f in there if f.suffix.lower() in SUFFIXES}
    if not images or files == []:
        raise InputError(f'class {name!r} has no image in {folder / name}, or lists none')
    if files is None:
        return sorted(images.values())
    for file in files:
        if not isinstance(file, str) or file not in images:
            raise InputError(
                f'classes.json lists {short(file)} for class {name!r}, which is no image in '
                f'{folder / name}; expected one like {min(images)!r}'
            )
    found = sorted({images[file] for file in files})
    if len(found) < len(files):
        raise InputError(f'classes.json lists a file of class {name!r} twice')
    if len(found) < len(images):
        num = len(images) - len(found)
        logging.warning('%s: %d images that classes.json does not list', folder / name, num)
    return found


def short(value: Any) -> str:
    """Short form, for a message, of something that may be large."""
    text = repr(value)
    return text if len(text) <= 80 else f'{text[:77]}...'
