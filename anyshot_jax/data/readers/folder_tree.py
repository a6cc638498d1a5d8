"""The files of every class below a directory, without being led astray by links."""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from anyshot_jax.data.readers.images import SUFFIXES
from anyshot_jax.data.readers.notes import Notes
from anyshot_jax.data.splits import ROLES
from anyshot_jax.types import InputError

# What folders of a role are called, in any case.
ROLE_OF = {
    **dict.fromkeys(('train', 'training'), 'train'),
    **dict.fromkeys(('val', 'valid', 'validation', 'dev'), 'val'),
    **dict.fromkeys(('test', 'testing'), 'test'),
}
SYSTEM_FILES = frozenset(('thumbs.db', 'desktop.ini', 'classes.json'))
SYSTEM_FOLDERS = frozenset(
    (
        '__macosx', '@eadir', '@recycle', '#recycle', '#snapshot', '@tmp', '$recycle.bin',
        'lost+found', 'system volume information', 'recycler', 'found.000', '__pycache__',
        'network trash folder', 'temporary items',
    )
)  # fmt: skip
DEPTH = 64  # folders below one another: more are no images' folders
MAX_AGAIN = 10_000  # entries of folders that links of several classes lead to
SYSTEM = 'system folders'


class Tree(NamedTuple):
    """Folders and files below a directory."""

    classes: dict[tuple[str, str], list[Path]]  # (role or '', class) -> files, sorted
    has_roles: bool  # train, val and test folders
    notes: Notes  # what was passed over


def find_classes(root: Path, follow_links: bool = False) -> Tree:
    """The classes and their files; nothing is opened. Names of classes are in Unicode's form NFC.

    Args:
      follow_links: takes files and folders outside of the directory that links lead to.
    Raises:
      InputError: not a directory, unreadable, train without val or test, a link to the outside, or
        one file in two classes.
    """
    if not root.is_dir():
        raise InputError(f'{root} is not a directory')
    walk = _Walk(root, follow_links)
    top = walk.folders(root)
    roles = {p: ROLE_OF.get(p.name.casefold(), '') for p in top}
    has_roles = sorted(roles.values()) == sorted(ROLES)
    if not has_roles and sum(map(bool, roles.values())) > 1:
        raise InputError(
            f'{root} holds the folders {", ".join(sorted(p.name for p in top))}: these are roles '
            f'and no classes. To train, have exactly train, val and test, or class folders only '
            f'(then config.data.split divides them); to predict, give one of them, such as '
            f'{next(p for p in top if roles[p])}'
        )
    found: dict[tuple[str, str], list[Path]] = {}
    for role, folder in [(roles[r], p) for r in top for p in walk.folders(r)] if has_roles else [
        ('', p) for p in top
    ]:  # fmt: skip
        key = role, unicodedata.normalize('NFC', folder.name)
        found[key] = sorted(found.get(key, []) + walk.files(folder))
    return Tree(found, has_roles, walk.notes)


def check_level(root: Path, tree: Tree) -> Tree:
    """Itself; InputError where there is one folder too many, as unzipping leaves it.

    One class whose files all lie in folders of their own is none.
    """
    names = {name for _, name in tree.classes}
    if tree.has_roles or len(names) != 1:
        return tree
    (files,) = tree.classes.values()
    parts = [file.relative_to(root).parts for file in files]
    if not parts or min(map(len, parts)) < 3:
        return tree
    same = os.path.commonpath([Path(*p[:-2]) for p in parts])
    raise InputError(
        f'{root} holds one folder, {names.pop()!r}, whose files all lie in folders of their own: '
        f'give {root / same} if those are the classes'
    )


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
        {
            (r, unicodedata.normalize('NFC', p.name)): walk.files(p)
            for r in roles
            for p in walk.folders(root / r)
        },
        True,
        walk.notes,
    )


def find_files(root: Path, follow_links: bool = False) -> tuple[list[Path], Notes]:
    """All files below a directory, each real one once, sorted; and what was passed over.

    Raises:
      InputError: not a directory, unreadable, or a link to the outside.
    """
    if not root.is_dir():
        raise InputError(f'{root} is not a directory')
    walk = _Walk(root, follow_links)
    return walk.files(root), walk.notes


class _Walk:
    """One way through a directory; every real folder and file is met once."""

    def __init__(self, root: Path, follow_links: bool = False):
        self.root, self.real_root = root, _real(root)
        self.follow_links = follow_links
        self.notes = Notes()
        self.owner: dict[Path, Path] = {}  # real file -> class folder that has it
        self.read: dict[Path, int] = {}  # real folder -> its entries
        self.again = 0  # entries that were read more than once

    def folders(self, folder: Path) -> list[Path]:
        folders, files = self._entries(folder)
        around = (self.real_root, _real(folder))  # a link back to these is no class
        kept = [f for f in folders if _real(f) not in around]
        if files:
            self.notes.add('files beside the class folders', self._inside(files[0]), len(files))
        if len(folders) > len(kept):
            self.notes.add('links to a folder above', '', len(folders) - len(kept))
        return kept

    def files(self, owner: Path) -> list[Path]:
        """The files of a folder and all below, each real file once, sorted.

        Of a class folder: links to the folders above it are passed over.
        """
        above = set() if owner == self.root else {self.real_root, _real(owner.parent)}
        found: list[Path] = []
        entered: set[Path] = set()
        left = [(owner, 0)]
        while left:
            folder, depth = left.pop()
            real = _real(folder)
            if real in entered or real in above:
                self.notes.add('links to a folder that was read already', self._inside(folder))
                continue
            if depth > DEPTH:
                raise InputError(f'{self._inside(folder)} lies more than {DEPTH} folders deep')
            entered.add(real)
            self.again += self.read.get(real, 0)
            if self.again > MAX_AGAIN:
                raise InputError(
                    f'links lead from several classes to {self._inside(folder)}: remove them'
                )
            folders, files = self._entries(folder)
            for file in files:
                first = self.owner.setdefault(_real(file), owner)
                if first != owner:
                    raise InputError(
                        f'{file} is also in {first}: an image in two classes would leak from one '
                        'into the other'
                    )
                found.append(file)
            left += [(sub, depth + 1) for sub in reversed(folders)]
        return sorted(self._once(found))

    def _once(self, found: list[Path]) -> Iterator[Path]:
        """The files, of several names of one file the first."""
        seen: set[Path] = set()
        for file in found:
            real = _real(file)
            if real not in seen:
                seen.add(real)
                yield file

    def _entries(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """Folders and files in `folder`, sorted by name; the rest is counted in `notes`."""
        try:
            with os.scandir(folder) as it:
                entries = sorted(it, key=lambda e: e.name)
        except OSError as e:
            raise InputError(f'{folder} is unreadable: {e}') from e
        self.read[_real(folder)] = len(entries) + 1
        folders, files = [], []
        for entry in entries:
            path, name = Path(entry.path), entry.name.lower()
            hidden = name.startswith('.') or name in SYSTEM_FILES or name in SYSTEM_FOLDERS
            if entry.is_symlink() and not hidden:
                self._check_link(path)
            broken = entry.is_symlink() and not path.exists()  # told when it is read, if an image
            if not hidden and path.is_dir():
                folders.append(path)
            elif not hidden and (path.is_file() or (broken and path.suffix.lower() in SUFFIXES)):
                files.append(path)
            elif name in SYSTEM_FOLDERS:
                self.notes.add(SYSTEM, self._inside(path))
            elif name != 'classes.json':
                self.notes.add('hidden, system or special files')
        return folders, files

    def _check_link(self, path: Path) -> None:
        if not self.follow_links and not _real(path).is_relative_to(self.real_root):
            raise InputError(
                f'{path} is a link out of the directory, to {_real(path)}: copy the files into '
                f'{self.root}, start from a directory that holds both, or set follow_links'
            )

    def _inside(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # unlike resolve() it never raises
