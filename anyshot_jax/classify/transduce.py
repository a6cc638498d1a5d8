"""All queries of a call answered together (transductive): they move means and say what is common.

A mixture of the classes, fitted by expectation and maximisation: each query belongs to every class
by its likelihood there times the class's share, and both means and shares follow. Where queries are
spread unevenly that is what they say; a prior keeps the shares of few queries near each other.

Reference:
  Dempster, Laird, Rubin, "Maximum likelihood from incomplete data via the EM algorithm", 1977; for
  few examples: Boudiaf et al., "Transductive information maximization for few-shot learning",
  NeurIPS 2020, and Veilleux et al., "Realistic evaluation of transductive few-shot learning",
  NeurIPS 2021 (queries spread unevenly).
"""

import numpy as np

from anyshot_jax.classify import nearest_mean
from anyshot_jax.classify.nearest_mean import Head
from anyshot_jax.types import Array

# Chosen on emoji (20 to 60 classes, 1 and 3 shots, queries spread evenly and by Dirichlet(1)).
ROUNDS = 10
SHARPER = 0.35  # of the head's temperature, by which queries are given to classes
QUERIES = 10.0  # that every class is taken to have had before


def transduced(head: Head, count: Array, z: Array) -> Array:
    """[Q, C] probabilities of queries that are taken for a mixture of the classes.

    A class without examples counts as if its mean were one.

    Args:
      count: [C] examples of the classes. z: [Q, D] in the head's space.
    """
    count = np.maximum(count, 1)
    total = head.means * count[:, None]
    share = np.full(len(count), 1 / len(count))
    temperature = SHARPER * float(head.temperature)
    for _ in range(ROUNDS):
        p = nearest_mean.probabilities(logits(head, share, z), temperature)
        share = (p.sum(0) + QUERIES) / (len(z) + QUERIES * len(count))
        means = (total + p.T @ z) / (count + p.sum(0))[:, None]
        head = head._replace(means=means.astype(np.float32))
    # As sure as the head is of single queries.
    return nearest_mean.probabilities(logits(head, share, z), float(head.temperature))


def logits(head: Head, share: Array, z: Array) -> Array:
    """[Q, C] scores, and the log of the shares as `SHARPER` weighs it."""
    temperature = SHARPER * float(head.temperature)
    score = nearest_mean.scores(head, z).astype(np.float64)
    return score + temperature * np.log(share)
