"""Calibration of scores by held-out examples: temperature and rejection threshold."""

import numpy as np
from scipy.optimize import minimize_scalar

from anyshot_jax.types import Array

FOLDS = 10  # of the examples held out in turn, at most


def held_out(label: Array) -> list[Array]:
    """Rows of the support to leave out in turn, such that every class keeps one item at least.

    The i-th item of a class is in fold i modulo `FOLDS` or, if it is smaller, the largest class's
    number of items; a class of one item is in no fold.
    """
    count = np.bincount(label)
    folds = min(FOLDS, int(count.max(initial=0)))
    place_in_class = np.zeros(len(label), int)
    for c in np.flatnonzero(count):
        rows = np.flatnonzero(label == c)
        place_in_class[rows] = np.arange(len(rows)) % folds if len(rows) > 1 else -1
    found = [np.flatnonzero(place_in_class == i) for i in range(folds)]
    return [rows for rows in found if len(rows)]


def fit_temperature(score: Array, label: Array) -> float:
    """The temperature by which held-out items' probabilities are most likely.

    As if one more item had been of any class (Laplace), so that a few right answers don't make the
    next one certain.

    Args:
      score: [N, C] of items that took no part in the means. label: [N].
    Reference:
      Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML 2017.
    """
    num = len(score)
    share = 1 / (num + 1)
    spread = max(float(np.abs(score - score.max(1, keepdims=True)).mean()), 1e-12)
    top = score.max(1, keepdims=True)

    def loss(log_temperature):
        logits = (score - top) / np.exp(log_temperature)
        logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        of_label = logp[np.arange(num), label]
        return -np.mean((1 - share) * of_label + share * logp.mean(1))

    middle = np.log(spread)
    result = minimize_scalar(loss, bounds=(middle - 7, middle + 5), method='bounded')
    return float(np.exp(result.x))


def fit_threshold(best: Array, false_alarm: float) -> tuple[float, float]:
    """A best score that known classes' items fall short of at the rate `false_alarm`.

    Args:
      best: [N] the best scores of held-out items of known classes, N >= 1.
    Returns:
      The threshold, and the rate to expect: (held-out items below it + 1) / (N + 1). It is above
      `false_alarm` where N is too small to promise less; the threshold is the lowest score then.
    Reference:
      The quantile of conformal prediction: Vovk, Gammerman, Shafer, "Algorithmic learning in a
      random world", 2005.
    """
    ordered = np.sort(best)
    below = max(int(np.floor(false_alarm * (len(best) + 1))) - 1, 0)
    return float(ordered[below]), (below + 1) / (len(best) + 1)
