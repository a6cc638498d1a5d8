"""Heads on frozen features: what is fitted to the support, and the line that builds the same."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from anyshot_jax.classify import nearest_mean
from anyshot_jax.types import Array

POWER = 0.5  # as AnyShotClassifier for images
INVERSE_PENALTY = 10.0  # of the logistic regression, on vectors whose mean squared length is 1


class Head(NamedTuple):
    """A way to classify features."""

    answer: Callable[[Array, Array, Array], Array]  # (x_s [N, D], y [N], x_q [Q, D]) -> [Q] of y
    line: str  # of Python, with {encoder!r}


def nearest(x_s: Array, y: Array, x_q: Array, shrink: float) -> Array:
    """The nearest class mean; shrink 1 leaves the space as it is, less whitens it (LDA)."""
    num = int(y.max()) + 1
    space = nearest_mean.fit_space(x_s, y, num, power=POWER, normalise=True, shrink=shrink)
    means = nearest_mean.class_means(nearest_mean.place(space, x_s), y, num)
    there = np.bincount(y, minlength=num) > 0
    like = nearest_mean.place(space, x_q) @ nearest_mean.unit(means).T
    return np.where(there[None], like, -np.inf).argmax(1)


def logistic(x_s: Array, y: Array, x_q: Array) -> Array:
    """Multinomial logistic regression on centred square roots of length 1."""
    from sklearn.linear_model import LogisticRegression

    num = int(y.max()) + 1
    space = nearest_mean.fit_space(x_s, y, num, power=POWER, normalise=True, shrink=1.0)
    z_s, z_q = (nearest_mean.place(space, x) for x in (x_s, x_q))
    if len(np.unique(y)) < 2:
        return np.full(len(z_q), y[0])
    return LogisticRegression(C=INVERSE_PENALTY, max_iter=300).fit(z_s, y).predict(z_q)


HEADS = {
    'LDA': Head(
        lambda x_s, y, x_q: nearest(x_s, y, x_q, nearest_mean.SHRINK),
        'AnyShotClassifier({encoder!r}).fit(images, labels)',
    ),
    'nearest mean': Head(
        lambda x_s, y, x_q: nearest(x_s, y, x_q, 1.0),
        'AnyShotClassifier({encoder!r}, shrink=1.0).fit(images, labels)',
    ),
    'logistic regression': Head(
        logistic,
        'LogisticRegression(C=10).fit(AnyShotClassifier({encoder!r}).fit(images, labels)'
        '.embed(images), labels)',
    ),
}
