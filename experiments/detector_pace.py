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
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor

import jax
import numpy as np
from absl import logging
from compare_detector import RESULTS, Tiles
from tables import machine, read_lines, write_lines

from anyshot_jax.detect.detector import AnomalyDetector
from anyshot_jax.runtime.start import keep_compiled
from anyshot_jax.storage.folders import data_root

PARTS = ('many', 'wide')
MANY = 5000
WIDE, SPOT, AT = (2000, 8000), 14, (1300, 6000)  # pixels: rows and columns
TILE = 512


class Shifted:
    """Images of 256 pixels that need no memory: tiles', shifted."""

    def __init__(self, x: list[np.ndarray], num: int):
        self.x, self.num = x, num

    def __len__(self):
        return self.num

    def __getitem__(self, i):
        if not 0 <= i < self.num:
            raise IndexError(i)
        return np.roll(self.x[i % len(self.x)], i // len(self.x), axis=1)


Sequence.register(Shifted)


def many(data: Tiles) -> dict:
    """Memory over that of the encoder, images a second, and one prediction with its heat map."""
    of = [np.asarray(data.x[i].resize((256, 256))) for i in data.train[:64]]
    images = Shifted(of, MANY)
    AnomalyDetector().fit(of[:8]).judge([of[0]])  # compiles
    encoder_mb = peak()
    found = AnomalyDetector()
    seconds = spent(lambda: found.fit(images))
    fit_mb = peak() - encoder_mb
    eye, squares = found._eye(), np.stack(of[:4])
    pace = median(lambda: jax.block_until_ready(eye.see(eye.params, squares)), 10) / 4
    heat = median(lambda: found.heat_map(of[0]), 30)
    return {
        'part': 'many', 'images': MANY, 'fit_mb': round(fit_mb), 'encoder_mb': round(encoder_mb),
        'ms': round(1000 * seconds / MANY, 1), 'encoder_ms': round(1000 * pace, 1),
        'looks': MANY + len(next(iter(found.normal_.values())).held_out.number),
        'heat_map_ms': round(1000 * heat, 1), 'machine': machine('cpu', 1),
    }  # fmt: skip


def wide(data: Tiles) -> dict:
    """Peak of a fit of four images and a prediction, and whether its worst place is the spot."""
    rng = np.random.default_rng(0)
    texture = np.asarray(data.x[data.train[0]].resize((256, 256)))
    times = -(-WIDE[0] // 256), -(-WIDE[1] // 256), 1
    plain = np.tile(texture, times)[: WIDE[0], : WIDE[1]]
    normal = [np.roll(plain, rng.integers(0, 256, 2), (0, 1)) for _ in range(4)]
    image, (row, column) = normal[0].copy(), AT
    image[row : row + SPOT, column : column + SPOT] = 255
    found = AnomalyDetector(size=0, tile=TILE)
    seconds = spent(lambda: found.fit(normal))
    judging = spent(lambda: found.judge([image]))
    left, top, right, bottom = found.judge([image])[0].place
    shape = found.heat_map(image).shape
    return {
        'part': 'wide', 'size': WIDE[::-1], 'tile': TILE, 'peak_mb': round(peak()),
        'fit_s': round(seconds, 1), 'judge_s': round(judging, 1), 'map': shape, 'spot': SPOT,
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
    return globals()[name](Tiles(root / 'magnetic_tile'))


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
