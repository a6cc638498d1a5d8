"""Counts of files that were passed over or look odd, for a closing line."""

import threading
from collections.abc import Iterable

from anyshot_jax.data.readers.kinds import BY_SUFFIX

SHOWN = 3  # names beside a count
KEPT = 64
LONGEST = 80  # characters of a name


class Notes:
    """Counts by kind, and the first names of each in alphabetical order; for many threads."""

    def __init__(self) -> None:
        self.count: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}
        self._named: dict[str, int] = {}  # how many names a kind has had
        self._lock = threading.Lock()

    def add(self, kind: str, name: str = '', number: int = 1) -> None:
        """Counts `number` of a kind; name is the file's or folder's."""
        with self._lock:
            self.count[kind] = self.count.get(kind, 0) + number
            if name:
                name = _printable(name)
                names = self._names.setdefault(kind, [])
                names.append(name)
                self._named[kind] = self._named.get(kind, 0) + 1
                if len(names) > KEPT:
                    self._names[kind] = sorted(names)[:SHOWN]

    def add_all(self, kinds: Iterable[str], name: str) -> None:
        """One of each of the kinds."""
        for kind in kinds:
            self.add(kind, name)

    def add_from(self, other: 'Notes') -> None:
        """All that another has counted."""
        for kind, number in other.count.items():
            self.add(kind, '', number)
            self._names.setdefault(kind, []).extend(other._names.get(kind, []))
            self._named[kind] = self._named.get(kind, 0) + other._named.get(kind, 0)

    def names(self, kind: str) -> list[str]:
        """The first names of a kind."""
        return sorted(self._names.get(kind, []))[:SHOWN]

    def __bool__(self) -> bool:
        return bool(self.count)

    def __str__(self) -> str:
        """'4 .heic files (a.heic, b.heic, c.heic, ...); 2 images of one colour (d.png, e.png)'."""
        parts = []
        for kind in sorted(self.count):
            number, names = self.count[kind], self.names(kind)
            more = ', ...' if self._named.get(kind, 0) > len(names) else ''
            listed = f' ({", ".join(names)}{more})' if names else ''
            parts.append(f'{number:,} {kind}{listed}')
        return '; '.join(parts)


def _printable(name: str) -> str:
    """A name for a terminal: no control characters, and of a long one the end."""
    name = ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
    return name if len(name) <= LONGEST else f'...{name[3 - LONGEST :]}'


def of_suffix(name: str) -> str:
    """The kind of a file that is not read, by its suffix, and what to do with an image."""
    stem, dot, suffix = name.rpartition('.')
    kind = f'.{suffix.lower()}' if dot and stem and len(suffix) <= 10 else 'other'
    what = BY_SUFFIX.get(kind, '')
    return f'{kind} files not read' + (f', {what}' if what else '')
