"""Chances that labels are right, from similarities, learnt where wrong labels were planted.

Two numbers speak for a label: how much more an item is like its namesakes than like the items of
the name that comes next, and than a high quantile of its namesakes is. Both are in the unit of the
similarities, which is why what was fitted on planted errors among some classes holds for others.
How many labels are wrong may differ: that share is estimated anew (`right_chance`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

from anyshot_jax.ops.weighting import vote_weights, votes
from anyshot_jax.types import Array

ROUNDS = 4  # of votes before those that count
HIGH = 0.8  # the quantile of its namesakes that an item is compared with
FLOOR = 1e-12
PENALTY = 1e-4  # on slopes, of evidence in units of its deviation: finite if errors stand apart
LEAST = 1e-3  # share of right or wrong labels


def vote_evidence(
    sim: jax.Array, label: jax.Array, num_classes: int, temperature: float
) -> jax.Array:
    """Support that the other items give to each label, in two numbers.

    With the soft maximum v[i, c] = t log mean_j exp(s[i, j] / t) over the items under name c that
    count by `vote_weights`: v[i, y] - max_{c != y} v[i, c], and v[i, y] - the quantile `HIGH` of
    v[j, y] over the items j of the name y.

    Args:
      sim: [N, N] <= 1. label: [N] integers 0..C-1. num_classes: C >= 2. temperature: t > 0; small,
        the nearest namesakes decide, large, the mean does.
    Returns:
      [N, 2]; 0 for an item that is the only one of its name.
    """
    near = jnp.exp((sim - 1) / temperature)
    weight = vote_weights(near, label, num_classes, ROUNDS)
    soft = temperature * jnp.log(jnp.maximum(votes(near, label, weight, num_classes), FLOOR))
    own = jnp.take_along_axis(soft, label[:, None], 1)[:, 0]
    is_label = label[:, None] == jnp.arange(num_classes)[None, :]
    other = jnp.where(is_label, -jnp.inf, soft).max(1)
    high = jnp.nanquantile(jnp.where(is_label, own[:, None], jnp.nan), HIGH, axis=0)[label]
    alone = is_label.sum(0)[label] < 2
    return jnp.where(alone[:, None], 0.0, jnp.stack([own - other, own - high], 1))


class RightLabel(NamedTuple):
    """Log odds, slope @ evidence + intercept, of right labels, where `share` of all are right."""

    slope: Array  # [2] >= 0
    intercept: float
    share: float


def fit_right_label(evidence: Array, right: Array) -> RightLabel:
    """Logistic regression of whether a label is right, by evidence that never speaks against it.

    Args:
      evidence: [N, 2]. right: [N] bool, of both kinds.
    """
    scale = np.maximum(evidence.std(0), FLOOR)
    x = np.concatenate([evidence / scale, np.ones((len(evidence), 1))], 1)
    sign = np.where(right, 1.0, -1.0)

    def loss(b):
        log_odds = sign * (x @ b)
        slope = -(x * (sign * _sigmoid(-log_odds))[:, None]).mean(0)
        value = np.logaddexp(0, -log_odds).mean() + PENALTY * (b[:-1] ** 2).sum()
        return value, slope + 2 * PENALTY * np.append(b[:-1], 0)

    bounds = [(0, None), (0, None), (None, None)]
    b = minimize(loss, np.zeros(3), jac=True, method='L-BFGS-B', bounds=bounds).x
    return RightLabel(b[:-1] / scale, float(b[-1]), float(np.mean(right)))


def log_odds(fitted: RightLabel, evidence: Array) -> Array:
    """[N] of a right label, where as many are right as in what was fitted on."""
    return np.asarray(evidence, np.float64) @ fitted.slope + fitted.intercept


def right_chance(fitted: RightLabel, evidence: Array, steps: int = 200) -> tuple[float, Array]:
    """The share of wrong labels here, and the chance [N] of each label to be right given that.

    Reference:
      Saerens, Latinne, Decaestecker, "Adjusting the outputs of a classifier to new a priori
      probabilities: a simple procedure", Neural Computation 2002 (the EM steps).
    """
    given = log_odds(fitted, evidence) - _logit(fitted.share)
    share = fitted.share
    for _ in range(steps):
        share = np.clip(_sigmoid(given + _logit(share)).mean(), LEAST, 1 - LEAST)
    return float(1 - share), _sigmoid(given + _logit(share))


def _logit(p: float) -> float:
    return float(np.log(p) - np.log1p(-p))


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))
