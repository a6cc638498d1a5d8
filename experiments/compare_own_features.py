"""Measures what a support chooses for itself: python experiments/compare_own_features.py

All classes of a set at once (of emoji 60), 1, 2 and 5 examples a class drawn ten times, all other
images asked: AnyShotClassifier with its usual features and power, and with those that held-out
examples choose (`classify/choice.py`). Nothing is chosen here.
"""

from typing import Any

import jax
import numpy as np
from compare_classifiers import DRAWS, support
from shown_sets import OWN, shown
from tables import HERE, ROOT, machine, write_lines

from anyshot_jax.classify import choice, fitting, nearest_mean
from anyshot_jax.runtime.start import keep_compiled
from anyshot_jax.types import Array

RESULTS = ROOT / HERE / 'results' / 'own_features.jsonl'
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
    where, lines = machine(jax.devices()[0].device_kind, jax.local_device_count()), []
    for name, x, label in shown():
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
