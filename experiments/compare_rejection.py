"""Compares scores that tell items of unknown classes: python experiments/compare_rejection.py

Emoji of 20, 40 and 120 of its classes and textures (KTD), five examples a class (four of 20 emoji),
a quarter of the classes left out, six draws with fixed seeds; frozen EfficientNet-Lite0 features in
the space of AnyShotClassifier. The area under the ROC curve of known against left-out items, for
the best score alone, energies, distances to neighbours and to class means, what ImageNet's classes
say, and combinations fitted by leaving each class out. `ops.open_set.familiarity` is the best of
them on emoji; Grocery and metal defects are asked once, in compare_classifiers.py.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from compare_classifiers import features, files, industrial
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from tables import HERE, ROOT, machine, write_lines

from anyshot_jax.classify import fitting, nearest_mean
from anyshot_jax.classify.nearest_mean import Head, unit
from anyshot_jax.encoders.catalogue import last_layer
from anyshot_jax.ops import calibration
from anyshot_jax.runtime.start import keep_compiled
from anyshot_jax.storage.folders import data_root
from anyshot_jax.storage.npz import read_npz
from anyshot_jax.types import Array, InputError

RESULTS = ROOT / HERE / 'results' / 'rejection.jsonl'
DRAWS = 6
HOW = {'power': 0.5, 'normalise': True, 'shrink': nearest_mean.SHRINK}
NOW = 'familiarity (this package)'
TASKS = (('emoji', 20, 4), ('emoji', 40, 5), ('emoji', 120, 5), ('KTD', 10, 5))
FITTED = {  # logistic regressions of these, on held-out items with and without their class
    'regression: best, next five': ('best cosine', 'best less next five'),
    'regression: the same and neighbours': (
        'best cosine',
        'best less next five',
        'nearest example, as encoded',
    ),
    'regression: the same and ImageNet': (
        'best cosine',
        'best less next five',
        "nearest example by ImageNet's logits",
        'less what ImageNet has like it',
    ),
}


class Support(NamedTuple):
    """Known classes, and the head that was fitted on them."""

    head: Head
    x: Array  # [N, D]
    label: Array  # [N]


def scores(s: Support, x: Array, imagenet: Array, own: Array | None = None) -> dict[str, Array]:
    """Every score [Q] of features x [Q, D], large for known.

    Args:
      imagenet: [1000, D] weights of ImageNet's classes. own: [Q] a class that is hidden from each.
    """
    own = np.full(len(x), -1) if own is None else own
    hidden_mean, hidden = own[:, None] == np.arange(len(s.head.means)), own[:, None] == s.label
    space = s.head.space
    z, placed = nearest_mean.place(space, x), nearest_mean.place(space, s.x)
    like = np.where(hidden_mean, -1.0, nearest_mean.scores(s.head, z).astype(np.float64))
    ordered = -np.sort(-like, axis=1)
    near = lambda a, b, k: -np.sort(-np.where(hidden, -9, unit(a) @ unit(b).T), 1)[:, :k].mean(1)
    root = lambda a: np.sign(a) * np.abs(a) ** HOW['power']
    # Mahalanobis' distance, with and without that to all classes at once.
    stretched = lambda a: nearest_mean.turn(space, unit(root(a) - space.shift))
    t, means = stretched(x), nearest_mean.class_means(stretched(s.x), s.label, len(s.head.means))
    apart = np.where(hidden_mean, 9, np.square(t[:, None] - means[None]).sum(-1)).min(1)
    backdrop = unit(nearest_mean.turn(space, unit(imagenet)))
    excess = z @ backdrop.T - (unit(s.head.means) @ backdrop.T)[like.argmax(1)]
    return {
        'best cosine': ordered[:, 0],
        'best less second': ordered[:, 0] - ordered[:, 1],
        'best less next five': ordered[:, 0] - ordered[:, 1:6].mean(1),
        'energy, temperature 0.05': 0.05 * logsumexp(like / 0.05, axis=1),
        'nearest example': near(z, placed, 1),
        'three nearest examples': near(z, placed, 3),
        'nearest example, as encoded': near(x, s.x, 1),
        'nearest example, unstretched': near(root(x), root(s.x), 1),
        'Mahalanobis': -apart,
        'relative Mahalanobis': np.square(t - means.mean(0)).sum(1) - apart,
        "nearest example by ImageNet's logits": near(x @ imagenet.T, s.x @ imagenet.T, 1),
        'energy of ImageNet': logsumexp(x @ imagenet.T, axis=1),
        'less what ImageNet has like it': -np.sort(excess, 1)[:, -5:].mean(1),
    }


def areas(s: Support, x: Array, new: Array, imagenet: Array) -> dict[str, float]:
    """Area under the ROC curve of each score. x: [Q, D]. new: [Q] bool, of no known class."""
    found = scores(s, x, imagenet)
    held: dict[str, list] = {name: [] for name in found}
    is_known = []
    for rows in calibration.held_out(s.label):
        kept = np.setdiff1d(np.arange(len(s.x)), rows)
        part = Support(head_of(s.x[kept], s.label[kept]), s.x[kept], s.label[kept])
        for own in (None, s.label[rows]):
            for name, value in scores(part, s.x[rows], imagenet, own).items():
                held[name].append(value)
            is_known.append(np.full(len(rows), own is None))
    known = np.concatenate(is_known)
    for name, parts in FITTED.items():
        train = np.stack([np.concatenate(held[p]) for p in parts], 1)
        centre, spread = train.mean(0), train.std(0) + 1e-9
        model = LogisticRegression(C=0.3).fit((train - centre) / spread, known)
        asked = np.stack([found[p] for p in parts], 1)
        found[name] = model.decision_function((asked - centre) / spread)
    of_classes = nearest_mean.scores(s.head, nearest_mean.place(s.head.space, x))
    found[NOW] = nearest_mean.familiarity(s.head, of_classes)
    return {name: float(roc_auc_score(~new, value)) for name, value in found.items()}


def head_of(x: Array, label: Array) -> Head:
    return fitting.head_of(x, label, label.max() + 1, how=HOW, words=None, known=None)[0]


def draws(x: Array, label: Array, classes: int, shots: int) -> Iterator[tuple]:
    """(Support, queries [Q, D], [Q] whether their class was left out)."""
    for draw in range(DRAWS):
        rng = np.random.default_rng(200 + draw)
        names = rng.choice(np.unique(label), classes, False)
        new = rng.choice(names, classes // 4, False)
        known = np.setdiff1d(names, new)
        pick = lambda c, rng=rng: rng.choice(np.flatnonzero(label == c), shots, False)
        rows = np.concatenate([pick(c) for c in known])
        rest = np.setdiff1d(np.flatnonzero(np.isin(label, names)), rows)
        y = np.searchsorted(known, label[rows])
        head, _ = fitting.fit(x[rows], y, len(known), how=HOW)
        yield Support(head, x[rows], y), x[rest], np.isin(label[rest], new)


def main() -> None:
    keep_compiled()
    root = data_root()
    if root is None:
        raise InputError('ANYSHOT_DATA_DIR is not set')
    z = read_npz(root / 'emoji' / 'emoji64.npz', 1 << 30)
    few = z['label'] < 240  # of a thousand; more than any task asks for
    emoji = files(z['jpeg'], z['offset'][: few.sum() + 1])  # labels ascend
    textures, label, *_ = industrial(root, 'KTD')
    sets = {
        'emoji': (features('emoji', emoji)[0], z['label'][few]),
        'KTD': (features('KTD', textures)[0], label),
    }
    imagenet = last_layer('efficientnet_lite0')
    assert imagenet is not None
    imagenet = imagenet - imagenet.mean(0)
    where, lines = machine(jax.devices()[0].device_kind, jax.local_device_count()), []
    for name, classes, shots in TASKS:
        found = [areas(s, x, new, imagenet) for s, x, new in draws(*sets[name], classes, shots)]
        auroc = {score: [one[score] for one in found] for score in found[0]}
        task = {'set': name, 'classes': classes, 'shots': shots}
        lines.append({**task, 'auroc': auroc, 'machine': where})
        write_lines(RESULTS, lines)
        print(name, classes, {k: round(100 * float(np.mean(v)), 1) for k, v in auroc.items()})


if __name__ == '__main__':
    main()
