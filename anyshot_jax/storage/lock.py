"""Exclusive locks on folders and files, which end with the process however that ends."""

import contextlib
import os
import stat
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from anyshot_jax.types import InputError


class Lock:
    """An exclusive lock, held from its making until `release` or the end of the process.

    It is an empty file that is never opened through a link and never written to; `release` removes
    it. A file that a kill leaves behind locks nothing.
    """

    def __init__(self, file: Path, refusal: str, *, wait: bool = False):
        """Takes the lock, and makes the folder that it is in.

        Args:
          file: the lock's own: FOLDER/.lock for a folder, `beside(FILE)` for a file.
          refusal: what to say where another process holds it. wait: wait for that one instead.
        Raises:
          InputError: another process holds it, or no lock can be made there.
        """
        self._file = file
        self._lock: BaseFileLock = FileLock(file, timeout=-1 if wait else 0)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            _check(file)
            self._lock.acquire()
        except Timeout as e:
            raise InputError(refusal) from e
        except (OSError, NotImplementedError) as e:
            why = e.strerror if isinstance(e, OSError) and e.strerror else e
            raise InputError(f'{file.parent} cannot be written: {file.name}: {why}') from e

    def __enter__(self) -> 'Lock':
        return self

    def __exit__(self, *_) -> None:
        self.release()

    def release(self) -> None:
        """Ends the lock; does nothing after that."""
        if self._lock.is_locked:
            if os.name == 'posix':  # whoever waits sees that the file is gone, and makes another
                with contextlib.suppress(OSError):
                    self._file.unlink()
            self._lock.release()


def is_held(file: Path) -> bool:
    """True if another process holds this lock."""
    if not file.exists():
        return False
    try:
        Lock(file, '').release()
    except InputError:
        return True
    return False


def beside(path: Path) -> Path:
    """The lock of a file."""
    return path.with_name(f'.{path.name}.lock')


def _check(file: Path) -> None:
    """Refuses a link to another file, of either kind, and whatever is no lock."""
    try:
        there = file.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(there.st_mode) or there.st_size or there.st_nlink != 1:
        raise InputError(f'{file} is no lock, but a link or a file of something else: remove it')
