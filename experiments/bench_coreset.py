"""A memory bank and its scores beside the plain greedy loop: python experiments/bench_coreset.py

752 images of 28x28 patches of 1024 numbers (589,568 patches, 2.4 GB; of low rank, and noise): a
coreset of 1 % on a random projection to 128, then the distance of every patch of 592 images to
its nearest in the bank. Ours is `memory_bank.fit`, without its cache, and `anomaly_maps`, on as
many CPU devices as there are cores. The other is as published: a loop that takes one norm over all
projected vectors a choice (in NumPy), and a search of the bank in blocks by one matrix product each
with NumPy's BLAS on all cores. The loop's time is --steps choices from the start and as many at the
end (checked to be ours), times all choices; of both searches every image is timed, or
--peer_images of the other's, times all. Prints one line of JSON:

  coreset_s, score_s   ours; peer_*_s the other's, both of wall time; ratio: of the sums
  peak_ratio           our process's peak memory after both, over the bytes of the bank's input,
  peak_above_mb        and above what it took before (the input among it)
  same_choices         share of the choices tried that are the plain loop's
  difference           largest, of a distance, relative
"""

import json
import os
import resource
import time

import jax
import numpy as np
from absl import app, flags

from anyshot_jax.defects import memory_bank
from anyshot_jax.ops.coreset import random_projection
from anyshot_jax.runtime.start import MAX_CPU_DEVICES, cores

_IMAGES = flags.DEFINE_integer('images', 752, 'To remember.')
_TEST = flags.DEFINE_integer('test', 592, 'Images to score.')
_DIM = flags.DEFINE_integer('dim', 1024, 'Numbers a patch.')
_RATIO = flags.DEFINE_float('ratio', 0.01, 'Share of the patches in the coreset.')
_STEPS = flags.DEFINE_integer('steps', 20, "Choices of the plain loop's start, and of its end.")
_PEER_IMAGES = flags.DEFINE_integer('peer_images', 64, 'Images that the other scores.')
SIDE, RANK, DISTINCT = 28, 32, 32


class Repeated:
    """Some images, over and over: as many as there are asked for, in little memory."""

    def __init__(self, x: np.ndarray, num: int):
        self.x, self.num = x, num

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.x[np.asarray(rows) % len(self.x)]


def patches(num: int, seed: int) -> np.ndarray:
    """[num, SIDE, SIDE, D] float32, made image by image."""
    basis = np.random.default_rng(0).normal(size=(RANK, _DIM.value)).astype(np.float32)
    rng, x = np.random.default_rng(seed), np.empty((num, SIDE, SIDE, _DIM.value), np.float32)
    for image in x:
        cause = rng.standard_normal((SIDE, SIDE, RANK), np.float32)
        image[:] = cause @ basis + rng.standard_normal(image.shape, np.float32)
    return x


def plain_loop(x: np.ndarray, score: np.ndarray, steps: int) -> tuple[list[int], float]:
    """The next choices on the projected x [N, d], and seconds each; score [N] so far."""
    chosen, start = [], time.perf_counter()
    for _ in range(steps):
        chosen.append(int(np.argmax(score)))
        score = np.minimum(score, np.linalg.norm(x - x[chosen[-1]], axis=1))
    return chosen, (time.perf_counter() - start) / steps


def plain_search(x: np.ndarray, bank: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Distances [M] of x [M, D] to the nearest of the bank."""
    dist = (x * x).sum(1)[:, None] + length - 2 * x @ bank.T
    return np.sqrt(np.maximum(dist.min(1), 0))


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def seconds(call):
    start = time.perf_counter()
    value = call()
    return value, time.perf_counter() - start


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f'unexpected arguments: {argv[1:]}')
    jax.config.update('jax_num_cpu_devices', min(cores(), MAX_CPU_DEVICES))
    x = patches(_IMAGES.value, 1)
    test = Repeated(patches(min(DISTINCT, _TEST.value), 2), _TEST.value)
    patcher = memory_bank.Patcher(lambda params, x: x, (), (SIDE, SIDE, _DIM.value), 'as they are')
    jax.block_until_ready(jax.numpy.zeros(1))
    before = peak()

    choose = lambda: memory_bank.choose(patcher, x, _RATIO.value, 128, 0)
    (bank, chosen), coreset_s = seconds(choose)
    maps, score_s = seconds(lambda: memory_bank.anomaly_maps(patcher, bank, test))
    after = peak()

    # The other, on the same projection and from the same start.
    rows = x.reshape(-1, _DIM.value)
    key_projection, key_start = jax.random.split(jax.random.key(0))
    small = rows @ np.asarray(random_projection(key_projection, _DIM.value, 128))
    starts = np.asarray(jax.random.choice(key_start, len(small), (10,), replace=False))
    steps = min(_STEPS.value, len(chosen) // 2)
    score = np.mean([np.linalg.norm(small - small[s], axis=1) for s in starts], axis=0)
    first, first_s = plain_loop(small, score, steps)
    early = small[chosen[:-steps]]
    length = (early * early).sum(1)
    for i in range(0, len(small), 4096):
        block = slice(i, i + 4096)
        score[block] = np.minimum(score[block], plain_search(small[block], early, length))
    last, last_s = plain_loop(small, score, steps)
    same = np.mean(np.array(first + last) == np.append(chosen[:steps], chosen[-steps:]))

    tried, found, peer_score_s = min(_PEER_IMAGES.value, _TEST.value), [], 0.0
    length = (bank * bank).sum(1)
    for i in range(tried):
        one = test[np.array([i])].reshape(-1, _DIM.value)
        dist, s = seconds(lambda one=one: plain_search(one, bank, length))
        found.append(dist.reshape(SIDE, SIDE))
        peer_score_s += s * _TEST.value / tried
    peer_coreset_s = (first_s + last_s) / 2 * len(chosen)
    ours_s, peer_s = coreset_s + score_s, peer_coreset_s + peer_score_s
    record = {
        'coreset_s': round(coreset_s, 1),
        'score_s': round(score_s, 1),
        'peer_coreset_s': round(peer_coreset_s),
        'peer_score_s': round(peer_score_s, 1),
        'ratio': round(peer_s / ours_s, 1),
        'ratio_coreset': round(peer_coreset_s / coreset_s, 1),
        'ratio_score': round(peer_score_s / score_s, 2),
        'peak_ratio': round(after / x.nbytes, 2),
        'peak_above_mb': round((after - before) / 2**20),
        'same_choices': float(same),
        'difference': float(np.max(np.abs(maps[:tried] / np.stack(found) - 1))),
        'choices': len(chosen),
        'patches': len(rows),
        'test_images': _TEST.value,
        'timed_steps': 2 * steps,
        'timed_peer_images': tried,
        'num_devices': jax.local_device_count(),
        'device': jax.local_devices()[0].device_kind,
        'jax': jax.__version__,
        'numpy': np.__version__,
        'load': round(os.getloadavg()[0], 1),
    }
    print(json.dumps(record))


if __name__ == '__main__':
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    app.run(main)
