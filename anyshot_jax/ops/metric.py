"""Measures of retrieval, for ONE query: how its right answers stand in the ranked gallery.

Ties never help: a wrong item as similar as a right one counts as ranked before it, so a similarity
that can't tell items apart reaches the share of right answers and not 100 %.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

COMPARED = 96  # right answers up to which comparing each is faster than sorting the gallery


class Hits(NamedTuple):
    """The right answers of a query, the most similar first; entries from `total` on mean nothing.

    Of R places, the most that any query of the gallery can need.
    """

    right: jax.Array  # [R] int32: right answers at least as similar as this one, itself included
    wrong: jax.Array  # [R] int32: wrong items at least as similar as this one
    total: jax.Array  # [] int32: right answers there are

    @property
    def rank(self) -> jax.Array:
        """[R] int32: the place of each, from 1 on, wrong items before right ones where they tie."""
        return self.wrong + 1 + jnp.arange(self.wrong.shape[-1])

    @property
    def known(self) -> jax.Array:
        """[R] bool: which entries are answers."""
        return jnp.arange(self.wrong.shape[-1]) < self.total


def hits(right: jax.Array, wrong: jax.Array, count: jax.Array) -> Hits:
    """Counts instead of a ranking: the gallery need not be sorted.

    Args:
      right: [R] similarities of the right answers, -inf from `count` on after sorting.
      wrong: [G] similarities of all others, -inf where an item is no candidate.
      count: [] how many of `right` are answers, 0..R.
    """
    right = -jnp.sort(-right)
    if len(right) <= COMPARED:
        above = jnp.sum(wrong[None, :] >= right[:, None], -1, dtype=jnp.int32)
    else:
        above = len(wrong) - jnp.searchsorted(jnp.sort(wrong), right).astype(jnp.int32)
    tied = jnp.searchsorted(-right, -right, side='right').astype(jnp.int32)
    return Hits(tied, above, jnp.asarray(count, jnp.int32))


def average_precision(hits: Hits) -> jax.Array:
    """Mean precision at the right answers; tied items share one threshold, as in scikit-learn.

    Returns:
      [] in 0..1; 0 where there is no right answer (leave such queries out of a mean).
    """
    precision = hits.right / (hits.right + hits.wrong)
    return jnp.sum(jnp.where(hits.known, precision, 0)) / jnp.maximum(hits.total, 1)


def average_precision_at_r(hits: Hits) -> jax.Array:
    """Average precision of the first R places, R the number of right answers.

    Musgrave, Belongie, Lim, "A metric learning reality check", ECCV 2020, section 3.2.
    """
    rank = hits.rank
    precision = jnp.where(hits.known & (rank <= hits.total), rank - hits.wrong, 0) / rank
    return jnp.sum(precision) / jnp.maximum(hits.total, 1)


def r_precision(hits: Hits) -> jax.Array:
    """Share of right answers among the first R places, R the number of right answers."""
    return jnp.sum(hits.known & (hits.rank <= hits.total)) / jnp.maximum(hits.total, 1)


def precision_at(hits: Hits, k: int) -> jax.Array:
    """Share of right answers among the first k places."""
    return jnp.sum(hits.known & (hits.rank <= k)) / k


def recall_at(hits: Hits, k: int) -> jax.Array:
    """Indicator, 0 or 1, that one of the first k places is right (metric learning's recall@k)."""
    return jnp.any(hits.known & (hits.rank <= k)).astype(jnp.float32)


def precision_curve(hits: Hits, recalls: Any) -> jax.Array:
    """Interpolated precision: the best at this recall or a higher one (Manning et al., 2008, 8.4).

    Args:
      recalls: [K] in 0..1.
    Returns:
      [K] precisions.
    """
    place = 1 + jnp.arange(len(hits.wrong))
    precision = jnp.where(hits.known, place / hits.rank, 0)
    best = jax.lax.cummax(precision, reverse=True)
    first = jnp.ceil(recalls * hits.total - 1e-4).astype(jnp.int32) - 1
    return best[jnp.clip(first, 0, len(best) - 1)]


def harmonic_mean(a: jax.Array, b: jax.Array) -> jax.Array:
    """Harmonic mean of two accuracies [...] >= 0, of seen and unseen classes; 0 if both are 0.

    Xian, Schiele, Akata, "Zero-shot learning: the good, the bad and the ugly", CVPR 2017, eq. 4.
    """
    return 2 * a * b / jnp.maximum(a + b, 1e-12)
