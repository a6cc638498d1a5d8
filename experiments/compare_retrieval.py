"""Retrieval beside pytorch-metric-learning's calculator: python experiments/compare_retrieval.py

Random unit vectors of CLASSES classes, every one a query among all others; both give mAP@R,
R-precision and precision at 1. Prints one line of JSON: seconds of both in turns, the largest
difference between their means, and our process's peak memory. The peer (and faiss, which it
searches with) is optional: without it only ours is measured.
"""

import json
import resource
import time

import jax
import numpy as np
from absl import app, flags

from anyshot_jax.episodes import retrieval
from anyshot_jax.ops import metric
from anyshot_jax.runtime.start import cores

_ITEMS = flags.DEFINE_integer('items', 100_000, 'Embeddings.')
_DIM = flags.DEFINE_integer('dim', 512, 'Numbers an embedding.')
_PER_CLASS = flags.DEFINE_integer('per_class', 20, 'Items a class.')
_PEER = flags.DEFINE_bool('peer', True, 'Measure pytorch-metric-learning too.')


def similarity(params, a, b):
    return a @ b.T


def measure(hits: metric.Hits) -> dict:
    return {
        'mean_average_precision_at_r': metric.average_precision_at_r(hits),
        'r_precision': metric.r_precision(hits),
        'precision_at_1': metric.precision_at(hits, 1),
    }


def ours(z: np.ndarray, label: np.ndarray) -> dict[str, float]:
    items = retrieval.Items(z, label, np.arange(len(label)))
    devices = tuple(jax.local_devices())
    values = retrieval.evaluate(items, items, similarity, measure=measure, devices=devices)
    return {name: float(v.mean()) for name, v in values.items()}


def theirs(z: np.ndarray, label: np.ndarray) -> dict[str, float]:
    import faiss
    import torch
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import FaissKNN

    torch.set_num_threads(jax.local_device_count())
    names = ('mean_average_precision_at_r', 'r_precision', 'precision_at_1')
    knn = FaissKNN(index_init_fn=faiss.IndexFlatIP)
    calculator = AccuracyCalculator(include=names, k='max_bin_count', knn_func=knn)
    return calculator.get_accuracy(torch.tensor(z), torch.tensor(label))


def main(argv):
    del argv
    jax.config.update('jax_num_cpu_devices', cores())
    rng = np.random.default_rng(0)
    label = np.arange(_ITEMS.value) // _PER_CLASS.value
    centre = rng.normal(size=(label.max() + 1, _DIM.value)).astype(np.float32)
    z = centre[label] + 2.5 * rng.normal(size=(len(label), _DIM.value)).astype(np.float32)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    order = rng.permutation(len(label))
    z, label = z[order], label[order]
    line = {'items': len(label), 'dim': _DIM.value, 'devices': jax.local_device_count()}
    start = time.perf_counter()
    mine = ours(z, label)
    line |= {'ours_s': round(time.perf_counter() - start, 2), **mine}
    line['ours_peak_mb'] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
    if _PEER.value:
        try:
            start = time.perf_counter()
            peer = theirs(z, label)
            line['peer_s'] = round(time.perf_counter() - start, 2)
            line['difference'] = max(abs(mine[n] - peer[n]) for n in mine)
        except ImportError as e:
            print(f'no peer: {e}; pip install pytorch-metric-learning faiss-cpu')
    print(json.dumps(line))


if __name__ == '__main__':
    app.run(main)
