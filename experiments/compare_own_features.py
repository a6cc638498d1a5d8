"""Measures what a support chooses for itself: python experiments/compare_own_features.py

All classes of a set at once (of emoji 60), 1, 2 and 5 examples a class drawn ten times, all other
images asked: AnyShotClassifier with its usual features and power, and with those that held-out
examples choose (`classify/choice.py`). Nothing is chosen here.
"""

from typing import Any

import jax
import numpy as np
from compare_classifiers import DRAWS, features, files, grocery, industrial, support
from tables import HERE, ROOT, machine, write_lines

from anyshot_jax.classify import choice, fitting, nearest_mean
from anyshot_jax.data.readers.images import SUFFIXES
from anyshot_jax.runtime.start import keep_compiled
from anyshot_jax.storage.folders import data_root
from anyshot_jax.storage.npz import read_npz
from anyshot_jax.types import Array, InputError

RESULTS = ROOT / HERE / 'results' / 'own_features.jsonl'
ENCODER, OWN = 'efficientnet_lite0+stride16', 1280
HOW: dict[str, Any] = {'normalise': True, 'shrink': nearest_mean.SHRINK}
SHOTS = (1, 2, 5)


def accuracy(x: Array, label: Array, x_q: Array, label_q: Array, width: int, power: float) -> float:
    """Share of right answers, the mean over classes. label: [N] in 0..C-1."""
    how = {**HOW, 'power': power}
    num = int(label.max()) + 1
    head, _ = fitting.head_of(x[:, :width], label, num, how=how, words=None, known=None)
    right = nearest_mean.scores(head, nearest_mean.place(head.space, x_q)).argmax(1) == label_q
    return float(np.mean([right[label_q == c].mean() for c in np.unique(label_q)]))


def main() -> None:
    keep_compiled()
    root = data_root()
    if root is None:
        raise InputError('ANYSHOT_DATA_DIR is not set')
    folder = lambda path: sorted(p for p in path.glob('*/*') if p.suffix.lower() in SUFFIXES)
    z = read_npz(root / 'emoji' / 'emoji64.npz', 1 << 30)
    few = int((z['label'] < 60).sum())  # labels ascend
    tiles = [p for p in folder(root / 'magnetic_tile' / 'test') if p.parent.name != 'good']
    textures = folder(root / 'dtd' / 'images')
    classes = lambda paths: np.array([p.parent.name for p in paths])
    sets = {
        'metal defects': industrial(root, 'MSD')[:2],
        'textures (KTD)': industrial(root, 'KTD')[:2],
        'textures (DTD)': (textures, classes(textures)),
        'magnetic tiles': (tiles, classes(tiles)),
        'Grocery Store': grocery(root)[:2],
        'emoji': (files(z['jpeg'], z['offset'][: few + 1]), z['label'][:few]),
    }
    where, lines = machine(jax.devices()[0].device_kind, jax.local_device_count()), []
    for name, (images, names) in sets.items():
        x, _ = features(name, images, ENCODER)
        label = np.unique(names, return_inverse=True)[1]
        for shots in SHOTS:
            usual, chosen, joined = [], [], 0
            for draw in range(DRAWS):
                rows = support(label, shots, draw)
                rest = np.setdiff1d(np.arange(len(x)), rows)
                data = x[rows], label[rows], x[rest], label[rest]
                found = choice.choose(*data[:2], (OWN, x.shape[1]), choice.POWERS, **HOW)
                usual.append(accuracy(*data, OWN, choice.POWERS[0]))
                chosen.append(accuracy(*data, found.width, found.power))
                joined += found.width > OWN
            line = {'set': name, 'classes': int(label.max()) + 1, 'shots': shots}
            lines.append(
                {**line, 'usual': usual, 'chosen': chosen, 'joined': joined, 'machine': where}
            )
            write_lines(RESULTS, lines)
            print(line, np.mean(usual).round(4), np.mean(chosen).round(4), joined, flush=True)


if __name__ == '__main__':
    main()
