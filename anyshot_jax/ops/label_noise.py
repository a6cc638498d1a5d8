"""Finds wrong labels by scores of items that were held out.

A label is that of the item's class or, with a small probability, any other one; scores give the
class by a softmax. The probability and the temperature are fitted together (maximum likelihood),
so that a classifier that is often wrong by itself accuses nobody: only where it is sure, and would
have to be sure for nothing, is a wrong label the likelier reason.

Reference:
  Larsen, Andersen, Hintz-Madsen, Hansen, "Design of robust neural network classifiers", ICASSP
  1998 (outlier probability of labels beside a softmax).
"""

from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax

from anyshot_jax.types import Array

SHARES = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3)  # that are tried
# Of twice the gain in log likelihood, chi-square with one degree of freedom on the boundary at 1 %.
SIGNIFICANT = 5.41


class LabelNoise(NamedTuple):
    """A fitted mixture of right labels and wrong ones."""

    share: float  # of wrong labels; 0 where nothing speaks for any
    wrong: Array  # [N] probability that an item's label is wrong


def fit_label_noise(score: Array, label: Array) -> LabelNoise:
    """The share of wrong labels, and how likely each is one.

    Args:
      score: [N, C] of items that took no part in what scores them, C >= 2; up to a factor and to
        an offset of each row. label: [N] in 0..C-1.
    """
    num, classes = score.shape
    none = LabelNoise(0.0, np.zeros(num))
    if num < 2 or classes < 2:
        return none
    score = score.astype(np.float64)
    score = score - score.max(1, keepdims=True)
    spread = max(float(np.abs(score).mean()), 1e-12)
    best, found, plain = -np.inf, none, -np.inf
    for temperature in spread * np.exp(np.linspace(-5, 1, 25)):
        right = np.exp(log_softmax(score / temperature, axis=1)[np.arange(num), label])
        plain = max(plain, float(np.log(np.maximum(right, 1e-300)).sum()))
        for share in SHARES:
            by_error = share * (1 - right) / (classes - 1)
            both = (1 - share) * right + by_error
            likelihood = float(np.log(both).sum())
            if likelihood > best:
                best, found = likelihood, LabelNoise(share, by_error / both)
    return found if 2 * (best - plain) > SIGNIFICANT else none
