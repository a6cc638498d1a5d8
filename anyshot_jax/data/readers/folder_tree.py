"""The files of every class below a directory, without being led astray by links."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from anyshot_jax.data.readers.images import SUFFIXES
from anyshot_jax.data.splits import ROLES
from anyshot_jax.types import InputError

ROLE_LIKE = frozenset((*ROLES, 'valid', 'validation', 'dev', 'training', 'testing'))
SYSTEM_FILES = frozenset(('thumbs.db', 'desktop.ini', '__macosx', 'classes.json'))


class Tree(NamedTuple):
    """Folders and files below a directory."""

    classes: dict[tuple[str, str], list[Path]]  # (role or '', class) -> files, sorted
    has_roles: bool  # train, val and test folders
    ignored: int  # hidden, system and special files passed over


def find_classes(root: Path) -> Tree:
    """The classes and their files; nothing is opened.

    Raises:
      InputError: not a directory, unreadable, train without val or test, a link to the outside, or
        one file in two classes.
    """
    if not root.is_dir():
        raise InputError(f'{root} is not a directory')
    walk = _Walk(root)
    top = walk.folders(root)
    names = {p.name for p in top}
    has_roles = names == set(ROLES)
    if not has_roles and len(names & ROLE_LIKE) > 1:
        raise InputError(
            f'{root} holds the folders {", ".join(sorted(names))}: need either exactly '
            'train, val and test, or class folders only (then config.data.split divides them)'
        )
    if has_roles:
        found = {(r.name, p.name): walk.files(p) for r in top for p in walk.folders(r)}
    else:
        found = {('', p.name): walk.files(p) for p in top}
    return Tree(found, has_roles, walk.ignored)


def find_roles(root: Path, roles: Sequence[str]) -> Tree:
    """The classes in <root>/<role>/<class>; nothing is opened.

    Raises:
      InputError: a role's folder isn't there (named), or what `find_classes` refuses.
    """
    walk = _Walk(root)
    for role in roles:
        if not (root / role).is_dir():
            raise InputError(
                f'{root} has no folder {role!r}; expected there: {", ".join(roles)}, each with a '
                'folder for every class'
            )
    return Tree(
        {(r, p.name): walk.files(p) for r in roles for p in walk.folders(root / r)},
        True,
        walk.ignored,
    )


def find_files(root: Path) -> tuple[list[Path], int]:
    """All files below a directory, each real one once, sorted; and how many were passed over.

    Raises:
      InputError: not a directory, unreadable, or a link to the outside.
    """
    if not root.is_dir():
        raise InputError(f'{root} is not a directory')
    walk = _Walk(root)
    return walk.all_files(), walk.ignored


class _Walk:
    def __init__(self, root: Path):
        self.root, self.real_root = root, _real(root)
        self.ignored = 0
        self.owner: dict[Path, Path] = {}  # real file -> class folder that has it

    def folders(self, folder: Path) -> list[Path]:
        folders, files = self._entries(folder)
        around = (self.real_root, _real(folder))  # a link back to these is no class
        kept = [f for f in folders if _real(f) not in around]
        self.ignored += len(files) + len(folders) - len(kept)
        return kept

    def files(self, folder: Path) -> list[Path]:
        """The files of a class folder and all folders below, each real file once."""
        found: list[Path] = []
        self._collect(folder, folder, frozenset((self.real_root, _real(folder.parent))), found)
        return sorted(found)

    def all_files(self) -> list[Path]:
        """The files of the root and all folders below."""
        found: list[Path] = []
        self._collect(self.root, self.root, frozenset(), found)
        return sorted(found)

    def _collect(self, folder: Path, owner: Path, above: frozenset[Path], found: list) -> None:
        real = _real(folder)
        if real in above:  # a link to a folder that it lies in
            self.ignored += 1
            return
        folders, files = self._entries(folder)
        for file in files:
            first = self.owner.get(_real(file))
            if first is None:
                self.owner[_real(file)] = owner
                found.append(file)
            elif first != owner:
                raise InputError(
                    f'{file} is also in {first}: an image in two classes would leak from one '
                    'into the other'
                )
        for sub in folders:
            self._collect(sub, owner, above | {real}, found)

    def _entries(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """Folders and files in `folder`, sorted by name; the rest is counted in `ignored`."""
        try:
            with os.scandir(folder) as it:
                entries = sorted(it, key=lambda e: e.name)
        except OSError as e:
            raise InputError(f'{folder} is unreadable: {e}') from e
        folders, files = [], []
        for entry in entries:
            path = Path(entry.path)
            hidden = entry.name.startswith('.') or entry.name.lower() in SYSTEM_FILES
            if entry.is_symlink() and not hidden:
                self._check_link(path)
            broken = entry.is_symlink() and not path.exists()  # told when it is read, if an image
            if not hidden and path.is_dir():
                folders.append(path)
            elif not hidden and (path.is_file() or (broken and path.suffix.lower() in SUFFIXES)):
                files.append(path)
            else:
                self.ignored += 1
        return folders, files

    def _check_link(self, path: Path) -> None:
        if not _real(path).is_relative_to(self.real_root):
            raise InputError(
                f'{path} is a link out of the directory, to {_real(path)}: copy the files into '
                f'{self.root}, or start from a directory that holds both'
            )


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # unlike resolve() it never raises
