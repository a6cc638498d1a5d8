"""The one-shot runs of Lake et al.: 20 characters of one alphabet, a drawing of each, 20 to name.

Lake, Salakhutdinov, Tenenbaum, "Human-level concept learning through probabilistic program
induction", Science 2015. A run is a folder runNN with class_labels.txt, whose lines name a test
drawing and the training drawing of the same character; in `all_runs.zip` (read without extracting)
or in a folder.
"""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np

from anyshot_jax.data.readers.omniglot import (
    MAX_PNG_BYTES,
    SIDE,
    pack,
    resampling,
    shrink,
    unpack,
)
from anyshot_jax.types import Array, Episode, InputError

LABELS = re.compile(r'(?:^|/)(run\d+)/class_labels\.txt$')


def load_runs(path: Path, size: int, resample: str) -> Episode:
    """Every run as an episode of 20 ways and 1 shot, stacked: x_s [R, 20, size, size, 1] uint8.

    Raises:
      InputError: no run there, a damaged file, or labels that don't fit the drawings; names it.
    """
    how = resampling(resample)
    if path.is_dir():
        files = {f.relative_to(path).as_posix(): f for f in sorted(path.rglob('*')) if f.is_file()}
        sizes = {name: f.stat().st_size for name, f in files.items()}
        return _episodes(path, sizes, lambda name: files[name].read_bytes(), size, how)
    try:
        with zipfile.ZipFile(path) as z:
            sizes = {i.filename: i.file_size for i in z.infolist() if '__MACOSX' not in i.filename}
            return _episodes(path, sizes, z.read, size, how)
    except InputError:
        raise
    except Exception as e:  # zipfile raises a dozen kinds for what is no zip
        raise InputError(f'{path} is not a whole zip file: {e}') from e


def _episodes(
    path: Path, sizes: dict[str, int], content: Callable[[str], bytes], size: int, how
) -> Episode:
    def read(name: str) -> bytes:
        if sizes[name] > MAX_PNG_BYTES:
            raise InputError(f'{path}: {name} unpacks to {sizes[name]:,} bytes')
        return content(name)

    runs = []
    for name in sorted(sizes):
        if not LABELS.search(name):
            continue
        root = PurePosixPath(name).parent.parent  # lines start at the run's own folder
        try:
            lines = [line.split() for line in read(name).decode().splitlines() if line.strip()]
        except UnicodeDecodeError as e:
            raise InputError(f'{path}: {name} is no text: {e}') from e
        if not lines or any(len(line) != 2 for line in lines):
            raise InputError(f'{path}: every line of {name} must name two drawings')
        pairs = [[str(root / p) for p in line] for line in lines]
        missing = [p for pair in pairs for p in pair if p not in sizes]
        if missing:
            raise InputError(f'{path}: {name} names {missing[0]}, which is not there')
        training = sorted({p for _, p in pairs})
        label = np.array([training.index(p) for _, p in pairs], np.int32)
        order = np.argsort(label, kind='stable')  # an episode stands class by class
        if (np.bincount(label) != len(pairs) // len(training)).any():
            raise InputError(f'{path}: {name} has characters with more test drawings than others')
        test = [pairs[i][0] for i in order]
        bits = np.stack([pack(read(p), f'{path}: {p}') for p in (*training, *test)])
        runs.append((_images(bits, size, how), label[order], len(training)))
    if not runs:
        raise InputError(f'{path} holds no runNN/class_labels.txt')
    if len({(x.shape, ways) for x, _, ways in runs}) > 1:
        raise InputError(f'{path}: the runs have different numbers of drawings')
    ways = runs[0][2]
    x, y_q = np.stack([x for x, _, _ in runs]), np.stack([y for _, y, _ in runs])
    relative = np.tile(np.arange(ways, dtype=np.int32), (len(runs), 1))
    return Episode(x[:, :ways], relative, x[:, ways:], y_q, relative)


def _images(bits: Array, size: int, how) -> Array:
    x = 255 * unpack(bits) if size == SIDE else shrink(bits, size, how)
    return x[..., None]
