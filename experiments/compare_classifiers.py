"""AnyShotClassifier beside scikit-learn's classifiers: python experiments/compare_classifiers.py

On the Grocery Store photos (81 products) and metal surface defects (MSD, 20 types), features of a
frozen EfficientNet-Lite0, all classes at once: supports of 1 and 5 images a class drawn ten
times, all other images asked; Grocery's icons as the only example; descriptions only; and of both
a quarter of the classes known by words only. Nothing is chosen here. Every result is a line of
results/classify_images.jsonl; tables.py makes the README's table of them.
"""

import argparse
import io
import json
import time
from itertools import pairwise
from pathlib import Path

import jax
import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestCentroid
from tables import HERE, ROOT, machine, write_lines

from anyshot_jax.classify import nearest_mean
from anyshot_jax.classify.classifier import AnyShotClassifier
from anyshot_jax.classify.frozen import frozen
from anyshot_jax.data.readers.descriptions import descriptions
from anyshot_jax.runtime.start import keep_compiled
from anyshot_jax.storage.cache import cached
from anyshot_jax.storage.folders import data_root
from anyshot_jax.storage.npz import read_npz

RESULTS = ROOT / HERE / 'results' / 'classify_images.jsonl'
DRAWS = 10
EXAMPLES = {'grocery': 8, 'MSD': 20, 'KTD': 20}  # of a class at most, with wrong labels among them
PLANTED, PLANTINGS = 0.05, 10  # share of wrong labels; draws


def ours(method='prototypes'):
    # What it does with images, given their features.
    return AnyShotClassifier(method=method, power=0.5, normalise=True)


JOINED = "AnyShotClassifier('efficientnet_lite0+stride16')"
TOGETHER = 'AnyShotClassifier, all together (transductive)'
CLASSIFIERS = {
    'AnyShotClassifier': ours,
    JOINED: ours,
    TOGETHER: lambda: ours('refine'),
    'logistic regression': lambda: LogisticRegression(max_iter=1000),
    'nearest centroid': NearestCentroid,
}


def grocery(root: Path):
    """Images, labels, names, descriptions, icons."""
    z = read_npz(root / 'grocery' / 'grocery112.npz', 1 << 30)
    names = [str(n) for n in z['name']]
    images = files(z['jpeg'], z['offset'])
    icons = files(z['icon_jpeg'], z['icon_offset'])
    said = dict(zip(names, map(str, z['description']), strict=True))
    return images, np.array(names)[z['label']], said, icons


def files(data, offset):
    return [Image.open(io.BytesIO(data[a:b].tobytes())) for a, b in pairwise(offset)]


def msd(root: Path):
    return industrial(root, 'MSD')


def industrial(root: Path, name: str):
    folder = root / 'industrial' / name
    paths = sorted((folder / 'images').glob('*/*'))
    return paths, np.array([p.parent.name for p in paths]), descriptions(folder), None


def features(name, images, encoder='efficientnet_lite0'):
    """[N, D], kept in the cache, and the seconds of one."""
    net = frozen(encoder)
    net.features(images[:16])  # compiled
    start = time.perf_counter()
    net.features(images[:64])
    each = (time.perf_counter() - start) / 64
    key = ['classify_images', net.encoder.digest, name, len(images)]
    return cached(f'asked-{name}', key, lambda: {'x': net.features(images)})['x'], each


def by_class(right, label):
    return [float(right[label == c].mean()) for c in np.unique(label)]


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--results', type=Path, default=RESULTS)
    parser.add_argument(
        '--only',
        choices=('unknown', 'wrong labels', TOGETHER),
        help='measure those anew, keep others',
    )
    args = parser.parse_args()
    keep_compiled()
    root, lines = data_root(), []
    if args.only:
        told = [json.loads(line) for line in args.results.read_text().splitlines()]
        lines = [line for line in told if args.only not in (line['what'], line.get('method'))]
    where = machine(jax.devices()[0].device_kind, jax.local_device_count())

    def put(**line):
        lines.append({**line, 'machine': where})
        write_lines(args.results, lines)
        print(
            {k: np.round(np.mean(v), 4) if k == 'accuracy' else v for k, v in line.items()},
            flush=True,
        )

    for name, load in (('grocery', grocery), ('MSD', msd)):
        images, label, said, icons = load(root)
        x, each = features(name, images)
        if args.only in ('unknown', 'wrong labels'):
            {'unknown': unknown, 'wrong labels': wrong_labels}[args.only](name, x, label, put)
            continue
        deep, _ = features(name, images, 'efficientnet_lite0+stride16')
        chosen = {k: v for k, v in CLASSIFIERS.items() if args.only in (None, k)}
        for shots in (1, 5):
            for method, make in chosen.items():
                of = deep if method == JOINED else x
                accuracy, fit, ask = [], [], []
                for draw in range(DRAWS):
                    rows = support(label, shots, draw)
                    rest = np.setdiff1d(np.arange(len(x)), rows)
                    a, b, c = asked(make(), of[rows], label[rows], of[rest], label[rest])
                    accuracy.append(np.mean(a)), fit.append(b), ask.append(c)
                put(set=name, what=f'{shots} a class', method=method, accuracy=accuracy,
                    fit_seconds=np.median(fit), ask_seconds=np.median(ask))  # fmt: skip
        if icons:
            small, _ = features('icons', icons)
            deep_small, _ = features('icons', icons, 'efficientnet_lite0+stride16')
            for method, make in chosen.items():
                given = (deep_small, deep) if method == JOINED else (small, x)
                a, b, c = asked(make(), given[0], np.array(list(said)), given[1], label)
                put(
                    set=name,
                    what='icons only',
                    method=method,
                    classes=a,
                    fit_seconds=b,
                    ask_seconds=c,
                )
        if args.only:
            continue
        put(set=name, what='embedding of an image among many', seconds=each)
        model = AnyShotClassifier().fit(None, None, said)
        put(set=name, what='descriptions only', method='AnyShotClassifier',
            classes=by_class(model.predict(x) == label, label))  # fmt: skip
        words_for_some(name, x, label, said, put)
        unknown(name, x, label, put)
        wrong_labels(name, x, label, put)
        calibration(name, x, label, put)
        latency(name, images, label, put)
    if args.only in (None, 'wrong labels'):
        textures, label, *_ = industrial(root, 'KTD')
        wrong_labels('KTD', features('KTD', textures)[0], label, put)


def support(label, shots, draw):
    rng = np.random.default_rng(draw)
    return np.concatenate([
        rng.choice(np.flatnonzero(label == c), shots, False) for c in np.unique(label)
    ])  # fmt: skip


def asked(model, x, y, x_q, y_q):
    start = time.perf_counter()
    model.fit(x, y)
    fitted = time.perf_counter()
    right = model.predict(x_q) == y_q
    return by_class(right, y_q), fitted - start, time.perf_counter() - fitted


def with_new_classes(label, first):
    """Ten times: five rows a class of three quarters of the classes, the others, who is new."""
    names = np.unique(label)
    for draw in range(DRAWS):
        new = np.random.default_rng(first + draw).choice(names, len(names) // 4, False)
        rows = support(label, 5, draw)
        rest = np.setdiff1d(np.arange(len(label)), rows)
        yield rows[~np.isin(label[rows], new)], rest, np.isin(label[rest], new)


def words_for_some(name, x, label, said, put):
    """Five images of three quarters of the classes, words of the others: all are answers."""
    seen, unseen = [], []
    for rows, rest, new in with_new_classes(label, 100):
        model = ours().fit(x[rows], label[rows], said)
        right = model.predict(x[rest]) == label[rest]
        seen.append(np.mean(by_class(right[~new], label[rest][~new])))
        unseen.append(np.mean(by_class(right[new], label[rest][new])))
    put(set=name, what='5 a class, words of a quarter', method='AnyShotClassifier', accuracy=unseen,
        seen=seen)  # fmt: skip


def unknown(name, x, label, put):
    """A quarter of the classes is left out: how many of their images are called unknown."""
    alarm, found, area, expected = [], [], [], []
    for rows, rest, new in with_new_classes(label, 200):
        model = ours().fit(x[rows], label[rows])
        called, z = model.is_unknown(x[rest]), nearest_mean.place(model.head_.space, x[rest])
        likeness = nearest_mean.familiarity(model.head_, nearest_mean.scores(model.head_, z))
        alarm.append(float(called[~new].mean())), found.append(float(called[new].mean()))
        area.append(float(roc_auc_score(new, -likeness))), expected.append(model.false_alarm_)
    put(set=name, what='unknown', method='AnyShotClassifier', false_alarm=alarm, found=found,
        auroc=area, promised=expected)  # fmt: skip


def wrong_labels(name, x, label, put):
    """Up to EXAMPLES a class, one in twenty under another class's name: which are accused.

    PLANTINGS draws; also with right labels only, which accuse somebody by mistake.
    """
    precision, recall, by_mistake = [], [], []
    names = np.unique(label)
    for draw in range(PLANTINGS):
        rng = np.random.default_rng(draw)
        shuffled = rng.permutation(len(label))
        rows = np.concatenate([shuffled[label[shuffled] == c][: EXAMPLES[name]] for c in names])
        given = label[rows].copy()
        planted = rng.random(len(rows)) < PLANTED
        given[planted] = [rng.choice(names[names != y]) for y in given[planted]]
        accused = ours().fit(x[rows], given).label_errors().wrong > 0.5
        precision.append(float(planted[accused].mean()) if accused.any() else 1.0)
        recall.append(float(accused[planted].mean()))
        clean = ours().fit(x[rows], label[rows]).label_errors().wrong > 0.5
        by_mistake.append(float(clean.mean()))
    put(set=name, what='wrong labels', method='AnyShotClassifier', examples=len(rows),
        precision=precision, recall=recall, by_mistake=by_mistake)  # fmt: skip


def calibration(name, x, label, put):
    """Expected calibration error in ten bins: probability of the answer against accuracy."""
    for shots in (1, 5):
        errors = []
        for draw in range(DRAWS):
            rows = support(label, shots, draw)
            rest = np.setdiff1d(np.arange(len(x)), rows)
            model = ours().fit(x[rows], label[rows])
            p = model.predict_proba(x[rest])
            sure, right = p.max(1), model.classes_[p.argmax(1)] == label[rest]
            bins = np.minimum((10 * sure).astype(int), 9)
            gaps = [abs((right - sure)[bins == b].sum()) for b in range(10)]
            errors.append(float(np.sum(gaps) / len(sure)))
        put(set=name, what='calibration', method='AnyShotClassifier', shots=shots, error=errors)


def latency(name, images, label, put):
    """Seconds of one image, encoder included, after warm-up: median and slowest of 100."""
    rows = support(label, 5, 0)
    model = AnyShotClassifier().fit([images[i] for i in rows], label[rows])
    took = []
    for i in range(101):
        start = time.perf_counter()
        model.predict_proba([images[i]])
        took.append(time.perf_counter() - start)
    found = {'median': float(np.median(took[1:])), 'slowest': max(took[1:])}
    put(set=name, what='one image', classes=len(model.classes_), **found)


if __name__ == '__main__':
    main()
