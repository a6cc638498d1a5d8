"""Measures queries answered together: python experiments/compare_transduction.py

All classes of a set at once (of emoji 60), 1 and 5 examples a class drawn ten times, with the
features that these choose. The queries are others of the same classes, `QUERIES` a class on the
mean: 'even', as many of each, or 'uneven', in shares drawn from Dirichlet(1), so that some classes
have most and some none. Every line has the accuracy of single answers and of
AnyShotClassifier(method='refine') for the same queries. Nothing is chosen here.
"""

import argparse
from collections.abc import Iterator

import jax
import numpy as np
from compare_classifiers import DRAWS, ours, support
from compare_own_features import HOW
from shown_sets import OWN, shown
from tables import HERE, ROOT, machine, write_lines

from anyshot_jax.classify import choice
from anyshot_jax.runtime.start import keep_compiled
from anyshot_jax.types import Array

RESULTS = ROOT / HERE / 'results' / 'transduction.jsonl'
SHOTS = (1, 5)
QUERIES = 10


def queries(label: Array, rows: Array, kind: str, seed: int) -> Array:
    """Rows of queries, none of them a support row; a class gives what it has at most."""
    rng = np.random.default_rng(seed)
    names = np.unique(label)
    equal = np.ones(len(names))
    share = equal / len(names) if kind == 'even' else rng.dirichlet(equal)
    wanted = np.round(share * QUERIES * len(names)).astype(int)
    left = [np.setdiff1d(np.flatnonzero(label == c), rows) for c in names]
    return np.concatenate([rng.permutation(r)[:n] for r, n in zip(left, wanted, strict=True)])


def accuracies(x: Array, label: Array, shots: int) -> Iterator[tuple[str, float, float]]:
    """(kind of queries, single answers, together) of every draw."""
    for draw in range(DRAWS):
        rows = support(label, shots, draw)
        best = choice.choose(x[rows], label[rows], (OWN, x.shape[1]), choice.POWERS, **HOW)
        classifier = ours('refine').set_params(power=best.power)
        classifier.fit(x[rows, : best.width], label[rows])
        for kind in ('even', 'uneven'):
            asked = queries(label, rows, kind, draw)
            right = {}
            for method in ('prototypes', 'refine'):
                p = classifier.set_params(method=method).predict_proba(x[asked, : best.width])
                right[method] = float(np.mean(classifier.classes_[p.argmax(1)] == label[asked]))
            yield kind, right['prototypes'], right['refine']


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.parse_args()
    keep_compiled()
    where, lines = machine(jax.devices()[0].device_kind, jax.local_device_count()), []
    for name, x, label in shown():
        for shots in SHOTS:
            found = list(accuracies(x, label, shots))
            for kind in ('even', 'uneven'):
                line = {'set': name, 'classes': int(label.max()) + 1, 'shots': shots}
                single, together = zip(*(v for k, *v in found if k == kind), strict=True)
                line |= {'queries': kind, 'single': single, 'together': together}
                lines.append({**line, 'machine': where})
                print(line['set'], shots, kind, np.mean(single), np.mean(together), flush=True)
            write_lines(RESULTS, lines)


if __name__ == '__main__':
    main()
