"""Results kept in the user's cache directory. Losing or damaging them costs time only."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from absl import logging

from anyshot_jax.data.npz import read_npz
from anyshot_jax.types import Array, InputError

MAX_BYTES = 8_000_000_000


def cache_dir() -> Path:
    """$XDG_CACHE_HOME/anyshot_jax, else ~/.cache/anyshot_jax; may not exist yet."""
    home = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(home) / 'anyshot_jax'


def cached(name: str, key: object, build: Callable[[], dict[str, Array]]) -> dict[str, Array]:
    """The arrays of `build()`, from <cache_dir>/<name>-<hash of key>.npz when they are there.

    A damaged file, or one that was written for another key, is reported and built again. Where the
    directory can't be written, that is reported too and the result is still returned.

    Args:
      key: anything JSON can write; everything that the result depends on.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = cache_dir() / f'{name}-{digest[:16]}.npz'
    if path.exists():
        try:
            arrays = read_npz(path, MAX_BYTES)
            if str(arrays.pop('key', None)) == digest:
                return arrays
            logging.warning('%s was written for something else: building it again', path)
        except InputError as e:
            logging.warning('damaged cache, building it again: %s', e)
    arrays = build()
    try:
        kept = {**arrays, 'key': np.array(digest)}
        write_whole(path, lambda f: np.savez(f, **kept))  # type: ignore[arg-type]
    except OSError as e:
        logging.warning('could not keep %s for the next run: %s', path, e)
    return arrays


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """A file whole or not at all: a temporary one in the same directory, renamed at the end.

    Args:
      write: puts the content into the open file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix='.', suffix='.tmp')
    try:
        with os.fdopen(handle, 'wb') as f:
            write(f)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
