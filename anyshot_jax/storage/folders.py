"""Folders of the user: where data sets lie, where caches are kept."""

import atexit
import errno
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

from absl import logging

from anyshot_jax.types import InputError


def user_path(text: str | os.PathLike) -> Path:
    """A path as a user writes it: ~ and ~NAME are home folders.

    Raises:
      InputError: there is no such user, or none has a home here; a name that no file can have.
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError as e:
        raise InputError(f'{os.fspath(text)}: {e}: write the whole path') from e
    try:
        os.lstat(path)
    except ValueError as e:  # a NUL
        raise InputError(f'{str(path)[:80]}: {e}: no file has such a name') from e
    except OSError as e:
        if e.errno == errno.ENAMETOOLONG:
            raise InputError(f'{str(path)[:80]}...: {e.strerror}') from e
    return path


def data_root() -> Path | None:
    """The folder that ANYSHOT_DATA_DIR names, if it does."""
    root = os.environ.get('ANYSHOT_DATA_DIR', '')
    try:
        return user_path(root) if root else None
    except InputError as e:
        raise InputError(f'the environment variable ANYSHOT_DATA_DIR={e}') from e


def cache_dir() -> Path:
    """$XDG_CACHE_HOME/anyshot_jax, else ~/.cache/anyshot_jax; may not exist yet.

    A user without a home directory has one until the process ends.

    Raises:
      InputError: XDG_CACHE_HOME is no absolute path.
    """
    if given := os.environ.get('XDG_CACHE_HOME'):
        if not os.path.isabs(given):  # else every folder that one works in gets a cache
            raise InputError(
                f'the environment variable XDG_CACHE_HOME={given} must be an absolute path'
            )
        return Path(given) / 'anyshot_jax'
    try:
        home = Path.home() / '.cache'
    except RuntimeError:
        home = _until_the_end()
    return home / 'anyshot_jax'


@cache
def _until_the_end() -> Path:
    """A new folder: one of a known name could hold what somebody else has put there."""
    folder = tempfile.mkdtemp(prefix='anyshot_jax-')
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    logging.warning(
        'this user has no home directory: nothing is kept for the next run (XDG_CACHE_HOME=FOLDER '
        'names one for it)'
    )
    return Path(folder)
