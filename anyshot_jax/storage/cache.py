"""Results kept in the user's cache directory. Losing or damaging them costs time only."""

import hashlib
import json
from collections.abc import Callable

import numpy as np
from absl import logging

from anyshot_jax.storage.files import replacing
from anyshot_jax.storage.folders import cache_dir
from anyshot_jax.storage.npz import read_npz
from anyshot_jax.types import Array, InputError

MAX_BYTES = 8_000_000_000


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
        with replacing(path) as f:
            np.savez(f, **kept)  # type: ignore[arg-type]
    except InputError as e:
        logging.warning('not kept for the next run: %s', e)
    return arrays
