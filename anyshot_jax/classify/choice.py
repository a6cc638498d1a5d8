"""Settings that a support chooses for itself, by its examples while they are held out.

Which features (the encoder's own, or with an earlier map of the net joined, which is better for
surfaces and worse for few examples of objects) and to which power they are raised. Compared by the
log likelihood of held-out examples, each setting with its own temperature: accuracy counts few
examples in steps too large to choose by. The usual setting stays unless another is better by more
than chance (as the one-standard-error rule of Breiman, Friedman, Olshen, Stone, "Classification
and regression trees", 1984, has it).
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax

from anyshot_jax.classify import nearest_mean
from anyshot_jax.ops import calibration
from anyshot_jax.types import Array

POWERS = (0.5, 1.0)  # of ReLU features; the first where nothing can be held out
SURE = 1.5  # standard errors of the examples' mean gain that a setting has to be better by
MOST = 400  # examples that are asked, two of a class at least: more take minutes for nothing


class Choice(NamedTuple):
    """Setting of a support's features."""

    width: int  # leading features that count
    power: float
    asked: int  # held-out examples that it was chosen by; 0: none, so it is the usual one
    gain: float  # of their mean log likelihood over the usual setting, in nats
    error: float  # standard error of that gain


def told(found: Choice | None, widths: Sequence[int]) -> str:
    """A sentence on what was chosen and how sure that is; '' where there was nothing to choose.

    Args:
      widths: as `choose` had them.
    """
    if found is None or not found.asked:
        return ''
    joined = 'with the map +stride16' if found.width > widths[0] else 'without the map +stride16'
    joined = f' {joined},' if len(widths) > 1 else ''
    sure = f'its log likelihood {found.gain:.2f} ± {found.error:.2f} over that of the usual ones'
    return (
        f'Features{joined} to the power {found.power:g}: chosen by {found.asked:,} examples, '
        f'each held out in turn ({sure if found.gain else "no others are surely better"}).'
    )


def choose(
    x: Array, label: Array, widths: Sequence[int], powers: Sequence[float], *, normalise: bool,
    shrink: float,
) -> Choice:  # fmt: skip
    """The setting that is most surely likelier than the usual one, or that.

    Args:
      x: [N, D] features. label: [N]. widths: numbers of leading features to try, the usual first.
      powers: to try, the usual first. normalise, shrink: of `nearest_mean.fit_space`.
    """
    rows = _some(label)
    x, label = x[rows], np.unique(label[rows], return_inverse=True)[1]
    folds = calibration.held_out(label) if len(x) and label.max() > 0 else []
    usual = Choice(widths[0], powers[0], sum(map(len, folds)), 0.0, 0.0)
    tried = list(product(widths, powers))
    if not folds or len(tried) == 1:
        return usual
    how = [{'power': p, 'normalise': normalise, 'shrink': shrink} for _, p in tried]
    found = [_likelihood(x[:, :w], label, folds, h) for (w, _), h in zip(tried, how, strict=True)]
    gain = np.array(found) - found[0]
    error = gain.std(1) / np.sqrt(max(gain.shape[1] - 1, 1))
    best = int(np.argmax(gain.mean(1) - SURE * error))  # 0 of the usual one
    width, power = tried[best]
    return Choice(width, power, usual.asked, float(gain[best].mean()), float(error[best]))


def _some(label: Array) -> Array:
    """Rows of the first examples of every class, as many as `MOST` allows, in order."""
    place = np.zeros(len(label), int)
    for c in np.unique(label):
        own = np.flatnonzero(label == c)
        place[own] = np.arange(len(own))
    most = max(2, MOST // max(len(np.unique(label)), 1))
    return np.flatnonzero(place < most)


def _likelihood(x: Array, label: Array, folds: list[Array], how: dict) -> Array:
    """Log likelihoods of the examples in `folds`, which the others classify."""
    num, scores = label.max() + 1, []
    for rows in folds:
        kept = np.setdiff1d(np.arange(len(x)), rows)
        space = nearest_mean.fit_space(x[kept], label[kept], num, **how)
        means = nearest_mean.class_means(nearest_mean.place(space, x[kept]), label[kept], num)
        head = nearest_mean.plain_head(space, means)
        scores.append(nearest_mean.scores(head, nearest_mean.place(space, x[rows])))
    score, y = np.concatenate(scores).astype(np.float64), label[np.concatenate(folds)]
    logp = log_softmax(score / calibration.fit_temperature(score, y), axis=1)
    return logp[np.arange(len(y)), y]
