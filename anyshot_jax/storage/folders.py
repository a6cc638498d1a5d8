"""Folders of the user: where data sets lie, where caches are kept."""

import os
from pathlib import Path

from anyshot_jax.types import InputError


def user_path(text: str | os.PathLike) -> Path:
    """A path as a user writes it: ~ and ~NAME are home folders.

    Raises:
      InputError: there is no such user, or none has a home here.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as e:
        raise InputError(f'{os.fspath(text)}: {e}: write the whole path') from e


def data_root() -> Path | None:
    """The folder that ANYSHOT_DATA_DIR names, if it does."""
    root = os.environ.get('ANYSHOT_DATA_DIR', '')
    try:
        return user_path(root) if root else None
    except InputError as e:
        raise InputError(f'the environment variable ANYSHOT_DATA_DIR={e}') from e


def cache_dir() -> Path:
    """$XDG_CACHE_HOME/anyshot_jax, else ~/.cache/anyshot_jax; may not exist yet."""
    try:
        home = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    except RuntimeError as e:
        raise InputError(f'{e}: set the environment variable HOME or XDG_CACHE_HOME') from e
    return Path(home) / 'anyshot_jax'
