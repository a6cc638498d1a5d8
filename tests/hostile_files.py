"""Reads mutations of good files of every kind, for so long: nothing but InputError may come of it.

    python tests/hostile_files.py --seconds=60 [--seed=0] [--kinds=npz,model]

Within a time and a memory that are stated here; else exit code 1, and the file that did it is kept.
"""

import argparse
import json
import re
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
from good_files import Kind, kinds
from mutations import mutated

from anyshot_jax.types import InputError

SECONDS = 10.0  # that one file may take, on a machine that is busy
MEGABYTES = 600  # that the process may grow by while it reads files of some kilobytes


def high_water() -> float:
    """The most megabytes that the process had, since `reset`."""
    text = Path('/proc/self/status').read_text()
    return int(re.search(r'VmHWM:\s+(\d+)', text)[1]) / 1000  # type: ignore[index]


def attack(seconds: float, seed: int, only: str = '') -> tuple[dict[str, int], float]:
    """Reads mutations of all kinds in turn for so long.

    Returns:
      How many of each were read, and by how many megabytes the process grew.
    Raises:
      AssertionError: with the traceback of what was raised instead of InputError, the file, or the
        seconds that one took.
    """
    counts: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        every = kinds(Path(name))
        chosen = {k: v for k, v in every.items() if not only or k in only.split(',')}
        for key, kind in chosen.items():
            check(key, kind, kind.good, Path(name) / 'good' / key, must_pass=True)
        Path('/proc/self/clear_refs').write_text('5')  # the high-water mark begins anew
        before, until, i = high_water(), time.monotonic() + seconds, 0
        while time.monotonic() < until:
            for number, (key, kind) in enumerate(chosen.items()):
                rng = np.random.default_rng([seed, i, number])
                check(key, kind, mutated(kind.good, rng), Path(name) / key)
                counts[key] = counts.get(key, 0) + 1
            i += 1
        return counts, high_water() - before


def check(key: str, kind: Kind, content: bytes, folder: Path, must_pass: bool = False) -> None:
    """One file: nothing but InputError comes of it, and soon."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / kind.name
    path.write_bytes(content)
    start, raised = time.monotonic(), ''
    try:
        kind.read(path)
    except InputError:
        raised = traceback.format_exc() if must_pass else ''
    except BaseException:
        raised = traceback.format_exc()
    taken = time.monotonic() - start
    if not raised and taken > SECONDS:
        raised = f'took {taken:.1f} s'
    if raised:
        kept = Path(tempfile.mkdtemp(prefix='hostile-')) / kind.name
        kept.write_bytes(content)
        raise AssertionError(f'{key}, {kept} ({len(content):,} bytes):\n{raised}')


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--seconds', type=float, default=60)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--kinds', default='', help='names, with commas between them')
    args = parser.parse_args()
    try:
        counts, grown = attack(args.seconds, args.seed, args.kinds)
    except AssertionError as e:
        sys.exit(str(e))
    print(json.dumps({'files': counts, 'megabytes': round(grown)}))
    if grown > MEGABYTES:
        sys.exit(f'the process grew by {grown:.0f} MB, more than {MEGABYTES}')


if __name__ == '__main__':
    main()
