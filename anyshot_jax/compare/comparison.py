"""Encoders and heads compared on labelled images, all held out in turn, and over numbers of shots.

found = compare(paths, labels, encoders=['efficientnet_lite0', 'dinov2_vits14'])
print(found.table()); print(found.advice())
"""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from anyshot_jax.classify.feature_store import store_of
from anyshot_jax.classify.frozen import Frozen, frozen
from anyshot_jax.compare.heads import HEADS
from anyshot_jax.encoders import efficientnet_lite
from anyshot_jax.types import Array, InputError

DEFAULT = 'efficientnet_lite0'
FOLDS, DRAWS = 5, 10
SHOTS = (1, 2, 3, 5, 8, 12, 20, 30, 50, 80)
TIMED = 15  # calls with one image


class Row(NamedTuple):
    """One encoder with one head."""

    encoder: str
    head: str
    accuracy: float  # of all images that could be held out, each once
    low: float  # Wilson's interval of 95 %, of the images
    high: float
    right: Array  # [N] bool
    line: str  # of Python that builds it


class Curve(NamedTuple):
    """One encoder over images a class, head LDA: means over draws and half intervals of 95 %."""

    encoder: str
    shots: list[int]
    mean: list[float]
    half: list[float]


class Comparison(NamedTuple):
    """Measured accuracies, by encoder, head and shots."""

    rows: list[Row]  # the best first
    curves: list[Curve]
    seconds: dict[str, float]  # of an encoder for one image
    source: dict[str, str]  # of an encoder: what its weights hash to
    images: int
    classes: int
    typical: int  # images a class, the median
    alone: int  # classes with one image, which nothing asks for
    missing: dict[str, str]  # encoders that can't be had, and why

    def best(self) -> Row:
        return self.rows[0]

    def table(self) -> str:
        """For a terminal."""
        wide = max(len(r.encoder) for r in self.rows)
        lines = [f'{"encoder":{wide}}  {"head":19}  held out          ms/image']
        for r in self.rows:
            half = f'{r.low * 100:5.1f} to {r.high * 100:5.1f}'
            ms = self.seconds[r.encoder] * 1e3
            held = f'{r.accuracy * 100:5.1f} ({half})'
            lines.append(f'{r.encoder:{wide}}  {r.head:19}  {held}  {ms:.0f}')
        return '\n'.join(lines)

    def advice(self) -> str:
        """Advice on what to take, in sentences."""
        return ' '.join([self._which(), self.one_more()])

    def _which(self) -> str:
        best = self.best()
        usual = [r for r in self.rows if r.encoder == DEFAULT]
        first = f'{best.encoder} with {best.head} is right for {best.accuracy * 100:.1f} %'
        if not usual or best.encoder == DEFAULT:
            return f'{first} of the images held out.'
        gain, half = paired(best.right, usual[0].right)
        text = f'{first} of the images held out, {DEFAULT} for {usual[0].accuracy * 100:.1f} %'
        if gain - half > 0:
            return f'{text}: {gain * 100:.1f} ± {half * 100:.1f} points better, so take it.'
        return f'{text}: no difference that these images could show ({gain * 100:+.1f} ± ' \
               f'{half * 100:.1f} points), so keep {DEFAULT}.'  # fmt: skip

    def one_more(self) -> str:
        """Gain expected of more images, by the curve of the best row's encoder."""
        curve = next((c for c in self.curves if c.encoder == self.best().encoder), None)
        if curve is None or len(curve.shots) < 2:
            return 'Too few images a class to say what one more would bring.'
        now = self.typical
        gain = extrapolated(curve, now + 1) - extrapolated(curve, now)
        double = extrapolated(curve, 2 * now) - extrapolated(curve, now)
        return (
            f'With {now} images a class (the median), one more image a class would help by about '
            f'{gain * 100:.1f} points, twice as many by about {double * 100:.1f} (errors fall as a '
            'power of the number; an extrapolation).'
        )


def compare(
    images: Sequence[Any],
    labels: Sequence[Any],
    encoders: Sequence[str] = (),
    *,
    seed: int = 0,
    seen: Callable[[str], object] = lambda what: None,
) -> Comparison:
    """Held-out accuracy of every encoder with every head of HEADS, and curves over shots.

    Every image is held out once, in one of five parts that are spread over each class. Features of
    files are kept in the cache directory, so that a second comparison embeds nothing again.

    Args:
      images: as AnyShotClassifier takes them. labels: of each; a class with one image is in the
        support only. encoders: as AnyShotClassifier takes them; (): those that install offline.
      seed: of the draws for the curves. seen: called with each encoder before its work.
    Raises:
      InputError: fewer than two classes, no class of two images, an encoder that can't be had or
        reads texts, an image that can't be read; says which.
    """
    classes = np.asarray(labels)
    if classes.shape != (len(images),):
        raise InputError(f'{len(images)} images, but labels of shape {classes.shape}')
    names, y = np.unique(classes, return_inverse=True)
    count = np.bincount(y)
    if len(names) < 2 or count.max() < 2:
        raise InputError(
            f'{len(names)} classes, the largest of {count.max(initial=0)} images: a comparison '
            'needs two classes, one of them with two images'
        )
    nets, missing = _loaded(encoders)
    parts = folds(y)
    asked = np.sort(np.concatenate(parts))
    rows, curves, seconds = [], [], {}
    for which, net in nets.items():
        seen(which)
        x = embedded(net, images)
        seconds[which] = _seconds(net)
        for name, head in HEADS.items():
            answer = np.full(len(y), -1)
            for part in parts:
                kept = np.setdiff1d(np.arange(len(y)), part)
                answer[part] = head.answer(x[kept], y[kept], x[part])
            right = (answer == y)[asked]
            low, high = wilson(int(right.sum()), len(right))
            line = head.line.format(encoder=which)
            rows.append(Row(which, name, float(right.mean()), low, high, right, line))
        curves.append(learning_curve(which, x, y, seed))
    rows.sort(key=lambda r: -r.accuracy)  # stable: of equals, the first that was asked for
    return Comparison(
        rows, curves, seconds, {w: n.encoder.digest for w, n in nets.items()}, len(y), len(names),
        int(np.median(count)), int((count == 1).sum()), missing,
    )  # fmt: skip


def _loaded(encoders: Sequence[str]) -> tuple[dict[str, Frozen], dict[str, str]]:
    """All before the first is used; of the default ones, those that are installed."""
    if encoders:
        twice = [e for i, e in enumerate(encoders) if e in encoders[:i]]
        if twice:
            raise InputError(f'encoder {twice[0]!r} is named twice')
        return {which: frozen(which) for which in encoders}, {}
    nets, missing = {}, {}
    for name in (*efficientnet_lite.NETS, f'{DEFAULT}+stride16'):
        try:
            nets[name] = frozen(name)
        except InputError as e:
            missing[name] = str(e)
    if not nets:
        raise InputError(f'no encoder is installed: {missing[DEFAULT]}')
    return nets, missing


def embedded(net: Frozen, images: Sequence[Any]) -> Array:
    """[N, D] float32; those of files come from the cache, or go there."""
    if not all(isinstance(item, (str, Path)) for item in images):
        return net.features(images)
    chunks = []
    for chunk in store_of(net).chunks([Path(item) for item in images]):
        for error in chunk.errors.values():
            raise error
        chunks.append(chunk.features)
    return np.concatenate(chunks)


def folds(y: Array) -> list[Array]:
    """Rows to hold out in turn, every image of a class with two and more in one part."""
    place = np.full(len(y), -1)
    for c, number in enumerate(np.bincount(y)):
        if number > 1:
            place[y == c] = np.arange(number) % FOLDS
    return [rows for rows in (np.flatnonzero(place == i) for i in range(FOLDS)) if len(rows)]


def learning_curve(which: str, x: Array, y: Array, seed: int) -> Curve:
    """Accuracy from s images of every class that has more, all others of those classes asked."""
    count = np.bincount(y)
    curve = Curve(which, [], [], [])
    for shots in SHOTS:
        classes = np.flatnonzero(count > shots)
        if len(classes) < max(2, len(count) / 2):
            break  # of other classes than the points before
        found = []
        for draw in range(DRAWS):
            rng = np.random.default_rng((seed, shots, draw))
            rows = np.concatenate([
                rng.choice(np.flatnonzero(y == c), shots, False) for c in classes
            ])  # fmt: skip
            rest = np.setdiff1d(np.flatnonzero(np.isin(y, classes)), rows)
            answer = HEADS['LDA'].answer(x[rows], y[rows], x[rest])
            found.append(float(np.mean(answer == y[rest])))
        half = stats.t.ppf(0.975, DRAWS - 1) * statistics.stdev(found) / DRAWS**0.5
        curve.shots.append(shots)
        curve.mean.append(statistics.mean(found))
        curve.half.append(float(half))
    return curve


def extrapolated(curve: Curve, shots: float) -> float:
    """Accuracy at a number of images a class: the error is b shots^-c, by least squares of logs.

    Never above 1, never falling. Hestness et al., "Deep learning scaling is predictable,
    empirically", 2017, for the form.
    """
    error = np.log(np.maximum(1 - np.asarray(curve.mean), 1e-4))
    slope, start = np.polyfit(np.log(curve.shots), error, 1)
    return float(1 - np.exp(start + min(slope, 0.0) * np.log(shots)))


def wilson(right: int, number: int) -> tuple[float, float]:
    """The 95 % interval of a share. Wilson, "Probable inference", 1927."""
    interval = stats.binomtest(right, number).proportion_ci(0.95, method='wilson')
    return float(interval.low), float(interval.high)


def paired(a: Array, b: Array) -> tuple[float, float]:
    """Difference in accuracy of a and b on the same images, and half the 95 % interval."""
    difference = a.astype(float) - b
    half = 1.96 * difference.std(ddof=1) / len(difference) ** 0.5 if len(difference) > 1 else 1.0
    return float(difference.mean()), float(half)


def _seconds(net: Frozen) -> float:
    """Seconds an image takes without reading it; the first call compiles and is not counted."""
    image = np.zeros((1, net.size, net.size, 3), np.uint8)
    net.of_squares(image)
    found = []
    for _ in range(TIMED):
        start = time.perf_counter()
        net.of_squares(image)
        found.append(time.perf_counter() - start)
    return statistics.median(found)
