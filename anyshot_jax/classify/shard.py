"""A file of some images' features, and a file beside it of what of them is worth a word.

MAGIC, number of rows, D; the keys; checksums; the rows: D float32 and `copies.small`.
"""

import json
import os
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anyshot_jax.data.readers.images import FEW_LEVELS, ONE_COLOUR, PAGES
from anyshot_jax.types import Array

MAGIC, HEAD, KEY = b'anyshot2', struct.Struct('<8sQQ'), 16
SMALL = (8, 9)  # `copies.small` of an image's thumbnail, kept after its features
KINDS, MAX_ODD = (ONE_COLOUR, FEW_LEVELS, PAGES), 1_000_000


class Row(NamedTuple):
    """An image as it is kept."""

    features: Array  # [D] float32
    small: Array  # [8, 9] uint8


class Shard(NamedTuple):
    """A file that is there."""

    path: Path
    checks: Array  # [n] uint32, crc32 of a row and its key


def length(dim: int) -> int:
    """Bytes of a row."""
    return 4 * dim + SMALL[0] * SMALL[1]


def open_shard(path: Path, dim: int) -> tuple[Shard, list[bytes]]:
    """A shard's rows; ValueError if it isn't whole."""
    with path.open('rb') as f:
        head = f.read(HEAD.size)
        magic, num, width = HEAD.unpack(head) if len(head) == HEAD.size else (b'', 0, 0)
        size = HEAD.size + num * (KEY + 4 + length(dim))
        if magic != MAGIC or width != dim or os.fstat(f.fileno()).st_size != size:
            raise ValueError('not a whole file of features')
        keys = f.read(num * KEY)
        checks = np.frombuffer(f.read(num * 4), '<u4')
    return Shard(path, checks), [keys[i : i + KEY] for i in range(0, len(keys), KEY)]


def read_odd(path: Path) -> dict[bytes, tuple[str, ...]]:
    """Notes on a shard's images; none where they are damaged or missing."""
    beside = path.with_suffix('.odd')
    try:
        if not beside.exists() or beside.stat().st_size > MAX_ODD:
            return {}
        said = json.loads(beside.read_bytes())
        return {
            bytes.fromhex(key): tuple(k for k in kinds if k in KINDS) for key, kinds in said.items()
        }
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return {}
