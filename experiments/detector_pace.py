"""AnomalyDetector's memory and pace: python experiments/detector_pace.py [PART ...]

Parts: many (5,000 images of 256 pixels fitted, and single predictions), wide (images of 8000 x 2000
pixels in tiles, with a spot to be found in one). Each in a process of its own, whose peak counts.
Times are of the processor, not of a clock: other programs may run beside it. Lines of
results/anomaly_detector.jsonl.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import jax
import numpy as np
from absl import logging
from compare_detector import RESULTS
from PIL import Image
from tables import machine, read_lines, write_lines

from anyshot_jax.detect.detector import AnomalyDetector
from anyshot_jax.detect.heat import heat
from anyshot_jax.runtime.start import keep_compiled
from anyshot_jax.storage.folders import data_root

PARTS = ('many', 'wide')
TILES, MANY = 64, 5000
WIDE, SPOT, AT = (2000, 8000), 14, (1300, 6000)  # pixels: rows and columns
TILE, MEMORY = 512, 2000


def shifted(x: list[np.ndarray], num: int, folder: Path) -> list[Path]:
    """Files of `num` images, those of x shifted: images in memory would count as the detector's."""
    paths = [folder / f'{i:05}.jpg' for i in range(num)]
    for i, path in enumerate(paths):
        Image.fromarray(np.roll(x[i % len(x)], i // len(x), axis=1)).save(path, quality=95)
    return paths


def many(tiles: list[Image.Image]) -> dict:
    """Memory over that of the encoder, images a second, and one prediction with its heat map."""
    of = [np.asarray(x.resize((256, 256))) for x in tiles]
    AnomalyDetector().fit(of[:8]).judge([of[0]])  # compiles
    with tempfile.TemporaryDirectory() as folder:
        images = shifted(of, MANY, Path(folder))
        encoder_mb = peak()
        found = AnomalyDetector()
        seconds = spent(lambda: found.fit(images))
        fit_mb = peak() - encoder_mb
    eye, squares = found._eye(), np.stack(of[:4])
    pace = median(lambda: jax.block_until_ready(eye.see(eye.params, squares)), 10) / 4
    one = median(lambda: found.heat_map(of[0]), 30)
    return {
        'part': 'many', 'images': MANY, 'fit_mb': round(fit_mb), 'encoder_mb': round(encoder_mb),
        'ms': round(1000 * seconds / MANY, 1), 'encoder_ms': round(1000 * pace, 1),
        'looks': MANY + len(next(iter(found.normal_.values())).held_out.number),
        'heat_map_ms': round(1000 * one, 1), 'machine': machine('cpu', 1),
    }  # fmt: skip


def wide(tiles: list[Image.Image]) -> dict:
    """Peak of a fit of two images and a verdict, and whether its worst place is the spot."""
    rng = np.random.default_rng(0)
    times = -(-WIDE[0] // 256), -(-WIDE[1] // 256), 1
    plain = np.tile(np.asarray(tiles[0].resize((256, 256))), times)[: WIDE[0], : WIDE[1]]
    (row, column), found = AT, AnomalyDetector(size=0, tile=TILE, memory=MEMORY)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ('a.jpg', 'b.jpg', 'spot.jpg')]
        for path in paths:
            x = np.roll(plain, rng.integers(0, 256, 2), (0, 1))
            if path.stem == 'spot':
                x[row : row + SPOT, column : column + SPOT] = 255
            Image.fromarray(x).save(path, quality=95)
        seconds = spent(lambda: found.fit(paths[:2]))
        start = time.process_time()
        ((_, said, told),) = found.each(paths[2:])
        shape = heat(told, found._looks().view, found._eye().cells).shape
        judging = time.process_time() - start
    left, top, right, bottom = said.place
    return {
        'part': 'wide', 'size': WIDE[::-1], 'tile': TILE, 'memory': MEMORY,
        'peak_mb': round(peak()), 'fit_s': round(seconds, 1), 'judge_s': round(judging, 1),
        'map': shape, 'spot': SPOT, 'defect': said.defect,
        'found': left < column + SPOT and column < right and top < row + SPOT and row < bottom,
    }  # fmt: skip


def peak() -> float:
    """Megabytes that the process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def spent(function: Callable) -> float:
    """Seconds of the processor that a call takes, of all its threads."""
    start = time.process_time()
    function()
    return time.process_time() - start


def median(function: Callable, times: int) -> float:
    function()
    return float(np.median([spent(function) for _ in range(times)]))


def of_part(name: str) -> dict:
    logging.set_verbosity(logging.ERROR)
    keep_compiled()
    root = data_root()
    if root is None:
        raise SystemExit('set ANYSHOT_DATA_DIR to a folder that has magnetic_tile')
    paths = sorted((root / 'magnetic_tile' / 'train' / 'good').iterdir())[:TILES]
    return globals()[name]([Image.open(path).convert('RGB') for path in paths])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('parts', nargs='*', default=PARTS, help=', '.join(PARTS))
    for name in parser.parse_args().parts:
        with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as alone:
            line = alone.submit(of_part, name).result()
        print(json.dumps(line), flush=True)
        write_lines(RESULTS, [*(x for x in read_lines(RESULTS) if x['part'] != name), line])


if __name__ == '__main__':
    main()
