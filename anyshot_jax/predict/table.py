"""The files of `predict`: the table of predictions, and which files are its own to replace."""

import csv
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

from anyshot_jax.predict.answers import Answer
from anyshot_jax.storage import files
from anyshot_jax.storage.lock import Lock, beside
from anyshot_jax.types import InputError, printable

COLUMNS = (
    'path', 'prediction', 'probability', 'unknown', 'second', 'second_probability', 'nearest',
    'similarity', 'label', 'error',
)  # fmt: skip
FORMULA = '=+-@\t\r\n|%\uff1d\uff0b\uff0d\uff20'  # what a cell of a spreadsheet runs by


def write_head(file: TextIO) -> None:
    """The names of the columns."""
    _writer(file).writerow(COLUMNS)


def write_rows(file: TextIO, found: Sequence[Answer], support: Sequence[str]) -> None:
    """A row for each answer. Texts are quoted, and none begins like a formula.

    A label gets an apostrophe before it, a path ./ so that it still is one. Control characters
    are written out, as \\x1b.

    Args:
      support: what the images of the support are called.
    """
    for a in found:
        path, label = harmless(a.path, './'), harmless(a.label or '')
        if a.error:
            _writer(file).writerow([path, *[''] * 7, label, harmless(a.error)])
            continue
        near = a.nearest >= 0
        _writer(file).writerow(
            [
                path,
                harmless(a.prediction),
                round(a.probability, 4),
                'yes' if a.unknown else 'no',
                harmless(a.second),
                round(a.second_probability, 4) if a.second else '',
                harmless(support[a.nearest], './') if near else '',
                round(a.similarity, 4) if near else '',
                label,
                '',
            ]
        )


def _writer(file: TextIO) -> Any:
    return csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator='\n')


def harmless(text: str, before: str = "'") -> str:
    first = text.lstrip(' ')[:1]
    text = printable(text)
    return before + text if first and first in FORMULA else text


# Which files may be replaced.

RECORD = 'predictions.json'
MADE_BY = 'anyshot_jax.predict'
MAX_RECORD = 10_000_000
UNFINISHED = '.unfinished-'  # how the names of folders begin in which files are written


class Outputs:
    """Files that a call writes into a folder, next to a record of what they are.

    A file is replaced only if the record knows it as it is, from a call with the same settings:
    neither another's file, nor one that was edited, nor the answers to another question. From its
    making until it is closed the folder is locked.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], overwrite: bool):
        """Makes the folder.

        Args:
          settings: what is asked, as JSON has it. overwrite: replace whatever is there.
        Raises:
          InputError: another call writes there, it can't be written, or has another's files.
        """
        self.folder, self.settings, self.overwrite = folder, dict(settings), overwrite
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise InputError(f'--out={folder} cannot be a folder: {e}') from e
        self._lock = Lock(
            folder / '.lock', f'another call is writing into {folder}: give another --out'
        )
        self._known: dict[str, list[str]] = {}
        self._record = folder / RECORD
        try:
            self._read()
        except BaseException:
            self._lock.release()
            raise
        for left in folder.glob(f'{UNFINISHED}*'):  # of calls that were killed
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)

    def _read(self) -> None:
        if not os.path.lexists(self._record) or self.overwrite:
            return
        before = _read_record(self._record)
        if before is None:
            raise InputError(f'{self._record} was made by something else: {_ELSE}')
        changed = [
            f'{k} was {before["settings"].get(k)!r}, is {v!r}'
            for k, v in self.settings.items()
            if before['settings'].get(k) != v
        ]
        if changed:
            raise InputError(
                f'{self.folder} holds other predictions ({"; ".join(changed)}): {_ELSE}'
            )
        self._known = before['files']

    def __enter__(self) -> 'Outputs':
        return self

    def __exit__(self, *_) -> None:
        self._lock.release()

    def check(self, path: Path) -> None:
        """Refuses (InputError) a file that is there and isn't known."""
        if os.path.lexists(path) and not (self.overwrite or self._own(path)):
            raise InputError(f'{path} was made or changed by something else: {_ELSE}')

    def _own(self, path: Path) -> bool:
        return path.is_file() and _digest(path) in self._known.get(str(path.resolve()), ())

    @contextmanager
    def replacing(self, **paths: Path) -> Iterator[dict[str, Path]]:
        """Hands out a fresh path for each one; they take their places together at the end.

        A fresh path is in a new folder beside its place, where nothing can lie in wait. The record
        comes first and knows old files and new ones, so that a call that is killed in between
        leaves nothing that the next one would refuse.
        """
        for path in paths.values():
            self.check(path)
        with ExitStack() as held:
            try:
                fresh = {}
                for k, path in paths.items():
                    if path.parent != self.folder:
                        held.enter_context(
                            Lock(beside(path), f'another call is writing {path}: give another file')
                        )
                    folder = tempfile.mkdtemp(prefix=UNFINISHED, dir=path.parent)
                    held.callback(shutil.rmtree, folder, ignore_errors=True)
                    fresh[k] = Path(folder) / path.name
                yield fresh
                for k, path in paths.items():
                    files.sync(fresh[k])
                    before = [_digest(path)] if os.path.lexists(path) and self._own(path) else []
                    self._known[str(path.resolve())] = [*before, _digest(fresh[k])]
                said = {'made_by': MADE_BY, 'settings': self.settings, 'files': self._known}
                files.write_text(self._record, json.dumps(said, indent=1) + '\n')
                for k, path in paths.items():
                    files.move(fresh[k], path)
            except OSError as e:
                places = e.filename or ' or '.join(map(str, paths.values()))
                raise InputError(f'{places} cannot be written: {e.strerror or e}') from e
            except InputError as e:  # people know the place of a fresh file
                message = str(e)
                for k, path in fresh.items():
                    message = message.replace(str(path), str(paths[k]))
                if message == str(e):
                    raise
                raise InputError(message) from e


def check_save(path: Path) -> None:
    """Refuses (InputError) a --save that can't be written, before any work."""
    if path.suffix != '.safetensors':
        raise InputError(f'--save={path}: a model is a .safetensors file')
    if path.is_dir():
        raise InputError(f'--save={path} is a folder: name a file')
    folder = next(p for p in path.absolute().parents if os.path.lexists(p))
    if not folder.is_dir():
        raise InputError(f'--save={path}: {folder} is a file and no folder')
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f'--save={path}: {folder} may not be written to')


_ELSE = 'choose another --out, or give --overwrite to replace it'


def _read_record(path: Path) -> dict[str, Any] | None:
    """The record, or None if it isn't one."""
    try:
        said = json.loads(files.read_whole(path, MAX_RECORD))
    except (OSError, ValueError, RecursionError):
        return None
    own = isinstance(said, dict) and said.get('made_by') == MADE_BY
    if not own or not all(isinstance(said.get(k), dict) for k in ('settings', 'files')):
        return None
    digests = {k: v for k, v in said['files'].items() if isinstance(v, list)}
    return {**said, 'files': digests}


def _digest(path: Path) -> str:
    with path.open('rb') as f:
        return hashlib.file_digest(f, 'blake2b').hexdigest()
