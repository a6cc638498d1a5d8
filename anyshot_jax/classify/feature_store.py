"""Features of image files, kept in the cache directory by the hash of each file's bytes.

    store = FeatureStore(encoder.name, encoder.digest, encoder.dim, read, embed)
    for chunk in store.chunks(paths):
        chunk.features  # [n, D]

What is stored is not embedded again, wherever the file lies now and whatever it is called. Every
chunk becomes a file of its own (a shard) as soon as it is embedded, so that a run that was killed
goes on where it was, and at no time are more than a chunk's features in memory. The folder may be
deleted at any time: that costs time only.
"""

import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from anyshot_jax.classify.frozen import Frozen, frozen
from anyshot_jax.classify.picture_input import READING, square, thumbnail, together
from anyshot_jax.classify.shard import (
    HEAD,
    KEY,
    MAGIC,
    SMALL,
    Row,
    Shard,
    length,
    open_shard,
    read_odd,
)
from anyshot_jax.classify.trained import Trained
from anyshot_jax.data.readers import copies
from anyshot_jax.data.readers.file_size import check_size, most_bytes
from anyshot_jax.data.readers.images import (
    MAX_PIXELS,
    Reading,
)
from anyshot_jax.storage.files import replacing, write_bytes
from anyshot_jax.storage.folders import cache_dir
from anyshot_jax.types import Array, InputError

CHUNK = 128  # images of a shard: what a killed run loses at most
BATCH = 16  # images that are embedded at once
READ_BY = 4  # raised when images are brought to pixels in another way


class Chunk(NamedTuple):
    """Some of the images that were asked for, in their order."""

    paths: Sequence[Path]
    features: Array  # [n, D] float32; NaN in rows of `errors`
    errors: dict[int, InputError]  # row -> why the image has no features; names the file
    keys: list[bytes]  # of each file's bytes; b'' where they could not be read
    odd: dict[int, tuple[str, ...]]  # row -> what of the image is worth a word
    small: Array  # [n, 8, 9] uint8, by which images are compared; 0 in rows of `errors`


class FeatureStore:
    """The features of one encoder."""

    def __init__(
        self,
        name: str,
        digest: str,
        dim: int,
        read: Callable[[bytes, str, list[str]], Array],
        embed: Callable[[Any], Array],
        max_pixels: int = MAX_PIXELS,
    ):
        """Reads which images are stored (16 bytes of each), not their features.

        Args:
          name: of the encoder, for people. digest: hex digits of all that features depend on
            besides the image: weights, preprocessing, how images are brought to size.
          dim: D. read: (a file's bytes, its name for messages, a list that takes what is worth a
            word) -> an image [...]; InputError where it can't. embed: n <= BATCH
            images, as `together` puts them -> [n, D]. max_pixels: of an image; larger files are
            refused before they are read.
        """
        self.folder = cache_dir() / 'images' / re.sub(r'[^\w.-]', '_', f'{name}-{digest}')
        self.dim, self.read, self.embed = dim, read, embed
        self.max_pixels = max_pixels
        self.embedded = 0  # images that this object had to embed
        self._places: dict[bytes, tuple[Shard, int]] = {}
        self._odd: dict[bytes, tuple[str, ...]] = {}
        self._keeps = True
        for path in sorted(p for p in self.folder.glob('*.shard') if p.is_file()):
            try:
                self._add(*open_shard(path, dim))
                self._odd |= read_odd(path)
            except PermissionError as e:
                logging.warning('features of another user are not read: %s', e)
            except (OSError, ValueError) as e:
                _remove(path, e)

    def __len__(self) -> int:
        return len(self._places)

    def chunks(self, paths: Sequence[Path]) -> Iterator[Chunk]:
        """The features of files, a few at a time, in order.

        What can't be read is in `errors` of its chunk.
        """
        for start in range(0, len(paths), CHUNK):
            # Its own threads for every chunk: whoever stops early leaves none behind.
            with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
                yield self._chunk(paths[start : start + CHUNK], pool)

    def _chunk(self, paths: Sequence[Path], pool: ThreadPoolExecutor) -> Chunk:
        hashed = list(pool.map(self._key, paths))
        errors = {i: key for i, key in enumerate(hashed) if isinstance(key, InputError)}
        keys = [b'' if isinstance(key, InputError) else key for key in hashed]
        found = self._stored(set(keys))
        features = np.full((len(paths), self.dim), np.nan, np.float32)
        small = np.zeros((len(paths), *SMALL), np.uint8)
        fresh: dict[bytes, Row] = {}
        left = [i for i, key in enumerate(keys) if i not in errors and key not in found]
        while left:  # again only for copies of an image that failed: each is named
            first = {keys[i]: i for i in reversed(left)}
            for i, key, z in self._embedded(sorted(first.values()), paths, pool):
                if isinstance(z, InputError):
                    errors[i] = z
                else:
                    found[keys[i]] = fresh[key] = z
            left = [i for i in left if i not in errors and keys[i] not in found]
        if fresh:
            self._write(fresh)
        for i, key in enumerate(keys):
            if i not in errors:
                features[i], small[i] = found[key]
        odd = {i: self._odd[k] for i, k in enumerate(keys) if i not in errors and k in self._odd}
        return Chunk(paths, features, errors, keys, odd, small)

    def _embedded(
        self, rows: Sequence[int], paths: Sequence[Path], pool: ThreadPoolExecutor
    ) -> Iterator[tuple[int, bytes, Row | InputError]]:
        """(row, key of the bytes that were read, what is kept of it or error)."""
        for start in range(0, len(rows), BATCH):
            some = rows[start : start + BATCH]
            whole = []
            for i, read in zip(some, pool.map(self._read, (paths[i] for i in some)), strict=True):
                if isinstance(read, InputError):
                    yield i, b'', read
                else:
                    key, x, odd = read
                    if odd:
                        self._odd[key] = tuple(odd)
                    whole.append((i, key, x))
            if not whole:
                continue
            z = np.asarray(self.embed(together([x for *_, x in whole])), np.float32)
            self.embedded += len(whole)
            for (i, key, x), row in zip(whole, z, strict=True):
                if np.isfinite(row).all():
                    yield i, key, Row(row, copies.small(thumbnail(x)))
                else:
                    yield i, key, InputError(f'{paths[i]} has features that are not finite')

    def _key(self, path: Path) -> bytes | InputError:
        """Digest of a file's bytes, read in pieces: it may be something huge that is no image."""
        try:
            with path.open('rb') as f:
                check_size(path, os.fstat(f.fileno()).st_size, self.max_pixels)
                return hashlib.file_digest(f, lambda: hashlib.blake2b(digest_size=KEY)).digest()  # type: ignore[arg-type, return-value]
        except InputError as e:
            return e
        except OSError as e:
            return _unreadable(path, e)

    def _read(self, path: Path) -> tuple[bytes, Array, list[str]] | InputError:
        """The key and the image of the same bytes: the file may have changed since."""
        try:
            with path.open('rb') as f:
                content = f.read(most_bytes(self.max_pixels))
            odd: list[str] = []
            return _digest(content), self.read(content, str(path), odd), odd
        except InputError as e:
            return e
        except OSError as e:
            return _unreadable(path, e)

    def _stored(self, keys: set[bytes]) -> dict[bytes, Row]:
        """The rows of those that are stored and whole."""
        wanted: dict[Path, list[bytes]] = {}
        for key in keys & self._places.keys():
            wanted.setdefault(self._places[key][0].path, []).append(key)
        found: dict[bytes, Row] = {}
        size = length(self.dim)
        for path, inside in wanted.items():
            try:
                with path.open('rb') as f:
                    for key in inside:
                        shard, row = self._places[key]
                        start = HEAD.size + len(shard.checks) * (KEY + 4)
                        f.seek(start + row * size)
                        content = f.read(size)
                        if zlib.crc32(key + content) != shard.checks[row]:
                            raise ValueError(f'wrong checksum of row {row}')
                        x = np.frombuffer(content, '<f4', self.dim)
                        small = np.frombuffer(content, np.uint8, offset=4 * self.dim)
                        found[key] = Row(x, small.reshape(SMALL))
            except (OSError, ValueError) as e:
                _remove(path, e)
                for key in inside:
                    found.pop(key, None)  # so that they are written again
                self._places = {k: p for k, p in self._places.items() if p[0].path != path}
        return found

    def _write(self, rows: dict[bytes, Row]) -> None:
        keys = sorted(rows)
        z = [rows[k].features.astype('<f4').tobytes() + rows[k].small.tobytes() for k in keys]
        checks = np.array([zlib.crc32(k + v) for k, v in zip(keys, z, strict=True)], '<u4')
        head = HEAD.pack(MAGIC, len(keys), self.dim)
        path = self.folder / f'{_digest(b"".join(keys)).hex()}.shard'
        odd = {key.hex(): self._odd[key] for key in keys if key in self._odd}
        try:
            if odd:
                write_bytes(path.with_suffix('.odd'), json.dumps(odd).encode())
            with replacing(path) as f:
                f.writelines([head, *keys, checks.tobytes(), *z])
        except InputError as e:
            if self._keeps:
                logging.warning('could not keep features for the next run: %s', e)
            self._keeps = False
            return
        self._add(Shard(path, checks), keys)

    def _add(self, shard: Shard, keys: Sequence[bytes]) -> None:
        for row, key in enumerate(keys):
            self._places[key] = (shard, row)


def _remove(path: Path, why: Exception) -> None:
    logging.warning('damaged features, embedding their images again: %s: %s', path, why)
    try:
        path.unlink(missing_ok=True)
    except OSError as e:
        logging.warning('could not remove %s: %s', path, e)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=KEY).digest()


def _unreadable(path: Path, why: OSError) -> InputError:
    return InputError(f'{path} is damaged or unreadable: {type(why).__name__}: {why}')


def store_of(net: Frozen | Trained, how: Reading = READING) -> FeatureStore:
    """Store of the features that a classifier takes, of images read with these settings."""
    if isinstance(net, Trained):
        how = net.reading(how)
    if isinstance(net, Trained) and net.encoder:
        net = frozen(net.encoder)
    if isinstance(net, Trained):
        size, name = net.shape[0], 'pixels'
        digest = 'x'.join(map(str, net.shape)) + ('-inverted' if net.invert else '')
    else:
        size, name = net.size, net.encoder.name
        digest = f'{net.encoder.digest}-{net.size}'
    digest += f'-{READ_BY}{how.crop}' + ''.join(f'-{v:g}' for v in how.span)

    def read(content: bytes, path: str, odd: list[str]) -> np.ndarray:
        return square(content, size, path, how, odd)

    return FeatureStore(name, digest, net.dim, read, net.of_squares, how.max_pixels)
