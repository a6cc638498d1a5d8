"""The forms in which Omniglot comes, each read into the same rows of packed bits."""

import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from anyshot_jax.config import check_choices
from anyshot_jax.data.readers.images import open_image
from anyshot_jax.runtime.bars import bar
from anyshot_jax.storage.cache import cached
from anyshot_jax.storage.files import read_whole
from anyshot_jax.storage.npz import read_npz
from anyshot_jax.types import Array, InputError

SIDE = 105
NPZ_KEYS = ('images', 'alphabet_names', 'char_alphabet', 'char_number')
MEMBER = re.compile(r'(?:^|/)([^/]+)/(character\d\d)/\d+_(\d+)\.png$')
MAX_PNG_BYTES = 100_000  # the largest original has a few hundred
MAX_BYTES = 2_000_000_000
# RuntimeError: encrypted; NotImplementedError: unknown compression.


class Drawings(NamedTuple):
    """Source of drawings: `key` identifies its content, `read` does the work."""

    key: object  # JSON; part of the name of the cached result
    read: Callable[[], tuple[Array, list[str], list[int]]]  # bits [N, 1379], class, drawer [N]


def resized(drawings: Drawings, size: int, resample: str) -> tuple[Array, Array, tuple[str, ...]]:
    """x [N, size, size, 1] uint8 with ink = 255, label [N], class names; sorted by name, drawer.

    The result is kept in the cache directory.
    """
    how = resampling(resample)

    def build() -> dict[str, Array]:
        bits, classes, drawers = drawings.read()
        if not len(bits):
            raise InputError('no drawing found: expected Alphabet/characterNN/NNNN_DD.png')
        order = np.lexsort([np.asarray(drawers), np.asarray(classes)])
        names, label = np.unique(np.asarray(classes), return_inverse=True)
        bits = bits[order]
        x = bits if size == SIDE else shrink(bits, size, how)
        return {'x': x, 'label': label[order].astype(np.int32), 'names': names}

    key = {'version': 1, 'source': drawings.key, 'size': size, 'resample': resample}
    found = cached('omniglot', key, build)
    x = 255 * unpack(found['x']) if size == SIDE else found['x']
    return x[..., None], found['label'], tuple(str(n) for n in found['names'])


def resampling(name: str) -> Image.Resampling:
    """config.data.resample, else InputError."""
    filters = [f.name.lower() for f in Image.Resampling]
    check_choices({'resample': name}, {'resample': filters}, 'config.data')
    return Image.Resampling[name.upper()]


def unpack(bits: Array) -> Array:
    """[..., 1379] packed bits -> [..., 105, 105] of 0 and 1."""
    return np.unpackbits(bits, axis=-1)[..., : SIDE * SIDE].reshape(*bits.shape[:-1], SIDE, SIDE)


def shrink(bits: Array, size: int, resample: Image.Resampling) -> Array:
    """[N, 1379] packed bits -> [N, size, size] uint8, ink = 255."""
    x = np.empty((len(bits), size, size), np.uint8)
    for i in bar(range(len(bits)), 'resize Omniglot'):
        image = Image.fromarray(255 * unpack(bits[i]))
        x[i] = np.asarray(image.resize((size, size), resample))
    return x


def _identity(path: Path) -> list:
    stat = path.stat()
    return [str(path.resolve()), stat.st_size, stat.st_mtime_ns]


def from_npz(path: Path) -> Drawings:
    """The packed file: images [N, 1379] packed bits, row = character * 20 + drawer."""
    if not path.is_file():
        raise InputError(f'no file {path}')

    def read() -> tuple[Array, list[str], list[int]]:
        z = read_npz(path, MAX_BYTES, NPZ_KEYS)
        missing = [k for k in NPZ_KEYS if k not in z]
        if missing:
            raise InputError(f'{path} has no array {", ".join(missing)}')
        bits, num = z['images'], len(z['char_number'])
        packed = -(-SIDE * SIDE // 8)
        if bits.dtype != np.uint8 or bits.shape != (num * 20, packed):
            raise InputError(
                f'{path}: images are {bits.dtype} {bits.shape}, expected uint8 {(num * 20, packed)}'
            )
        pairs = zip(z['char_alphabet'], z['char_number'], strict=True)
        names = [f'{z["alphabet_names"][a]}/character{n:02d}' for a, n in pairs]
        return bits, [n for n in names for _ in range(20)], [*range(20)] * num

    return Drawings(_identity(path), read)


def png_sources(path: Path) -> list[Path]:
    """The folder, else the zip, of each official half that lies in directory `path`."""
    found = []
    for half in ('images_background', 'images_evaluation'):
        for p in (path / half, path / f'{half}.zip'):
            if p.exists():
                found.append(p)
                break
    if not found:
        raise InputError(
            f'{path} holds none of omniglot.npz, images_background, images_evaluation '
            '(folders or .zip)'
        )
    return found


def from_png(sources: list[Path]) -> Drawings:
    """The official images below folders and in zips."""
    files = {p: sorted(p.rglob('*.png')) for p in sources if p.is_dir()}
    key = [
        [str(p.resolve()), [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in files[p]]]
        if p in files
        else _identity(p)
        for p in sources
    ]

    def read() -> tuple[Array, list[str], list[int]]:
        bits, classes, drawers = [], [], []
        seen = set()
        for source in sources:
            images = _from_folder(files[source]) if source in files else _from_zip(source)
            for name, match, content in images:
                character, drawer = f'{match[1]}/{match[2]}', int(match[3])
                if (character, drawer) in seen:
                    raise InputError(f'{source}: drawer {drawer} of {character} is there twice')
                seen.add((character, drawer))
                bits.append(pack(content, f'{source}: {name}'))
                classes.append(character)
                drawers.append(drawer)
        return np.asarray(bits), classes, drawers

    return Drawings(key, read)


Images = Iterator[tuple[str, re.Match[str], bytes]]


def _match(name: str) -> re.Match[str] | None:
    return None if '__MACOSX' in name else MEMBER.search(name)


def _from_folder(files: list[Path]) -> Images:
    for f in bar(files, 'read Omniglot'):
        if match := _match(f.as_posix()):
            try:
                content = read_whole(f, MAX_PNG_BYTES)
            except OSError as e:
                raise InputError(f'{f} is unreadable: {e}') from e
            yield str(f), match, content


def _from_zip(path: Path) -> Images:
    try:
        with zipfile.ZipFile(path) as z:
            for info in bar(z.infolist(), f'read {path.name}'):
                if match := _match(info.filename):
                    if info.file_size > MAX_PNG_BYTES:
                        raise InputError(
                            f'{path}: {info.filename} unpacks to {info.file_size:,} bytes'
                        )
                    yield info.filename, match, z.read(info)
    except InputError:
        raise
    except Exception as e:  # zipfile raises a dozen kinds for what is no zip
        raise InputError(f'{path} is not a whole zip file: {e}') from e


def pack(content: bytes, name: str) -> Array:
    """A drawing's file -> [1379] packed bits, 1 = ink.

    Raises:
      InputError: no image, or one of another size.
    """
    image = open_image(content, SIDE * SIDE, name)
    if image.size != (SIDE, SIDE):
        raise InputError(f'{name} has {image.size} pixels, expected {(SIDE, SIDE)}')
    return np.packbits(np.asarray(image.convert('L')) < 128)


def from_tfds(data_dir: str) -> Drawings:
    """tensorflow-datasets 'omniglot', prepared in data_dir ('' means its default directory)."""
    from anyshot_jax.data.tfds import open_builder, read_split

    builder = open_builder('omniglot', data_dir)

    def read() -> tuple[Array, list[str], list[int]]:
        labels = builder.info.features['label'].names
        bits, classes, drawers = [], [], []
        for split in ('train', 'test'):
            for i, item in enumerate(read_split(builder, split)):
                alphabet, number = labels[int(item['label'])].rsplit('_', 1)
                bits.append(np.packbits(np.asarray(item['image'])[..., 0] < 128))
                classes.append(f'{alphabet}/character{int(number) + 1:02d}')
                drawers.append(i)
        return np.asarray(bits), classes, drawers

    return Drawings(['tfds', str(builder.data_path)], read)
