"""Weights of images with noisy labels, from their similarity to the others.

Chen, Niu, Liu, Zhang, "Weak-shot fine-grained classification via similarity transfer", NeurIPS
2021, section 3.3, and variants; `vote_weights` is not from there.
"""

import jax
import jax.numpy as jnp

from anyshot_jax.ops.product import product


def mean_similarity(
    sim: jax.Array,
    *,
    columns: bool = True,
    share: float = 1.0,
    valid: jax.Array | None = None,
    diagonal: bool = True,
) -> jax.Array:
    """The mean similarity of each of the items of one class to all of them.

    Of an ideal 0/1 similarity with a fraction f of right labels: f for these, 1/N for others.

    Args:
      sim: [N, N], how like item i (in the first place) is to item j; needn't be symmetric.
      columns: the mean of the row's and the column's mean; else the row's only.
      share: only the largest max(1, floor(share * N)) entries count (0 < share <= 1).
      valid: [N] bool, items that are there; the others are in no mean and get 0.
      diagonal: whether an item's similarity to itself counts. Of a single item alone it always
        does, so that it has a weight.
    Returns:
      [N].
    """
    num = sim.shape[0]
    valid = jnp.ones(num, bool) if valid is None else valid
    counted = valid[:, None] & valid[None, :]
    if not diagonal:
        counted &= ~jnp.eye(num, dtype=bool) | (valid.sum() < 2)
    mean = _top_mean(sim, counted, share)
    if columns:
        mean = (mean + _top_mean(sim.T, counted, share)) / 2
    return jnp.where(valid, mean, 0)


def _top_mean(sim: jax.Array, counted: jax.Array, share: float) -> jax.Array:
    number = counted.sum(1)
    if share >= 1:
        return jnp.where(counted, sim, 0).sum(1) / jnp.maximum(number, 1)
    # Rounded before the floor: 0.3 * 10 is 2.9999998 in single precision.
    num_kept = jnp.maximum(jnp.floor(jnp.round(share * number, 4)), 1)
    ordered = -jnp.sort(jnp.where(counted, -sim, jnp.inf), axis=1)
    first = jnp.arange(sim.shape[1])[None, :] < jnp.minimum(num_kept, number)[:, None]
    return jnp.where(first, ordered, 0).sum(1) / jnp.minimum(num_kept, jnp.maximum(number, 1))


def density(sim: jax.Array, quantile: float, *, valid: jax.Array | None = None) -> jax.Array:
    """Number of items of the class nearer than a quantile of all distances 1 - sim.

    Args:
      sim: [N, N]. quantile: in 0..1. valid: [N] bool, as in `mean_similarity`.
    Returns:
      [N], the item itself among the counted.
    Reference:
      Guo et al., "CurriculumNet: weakly supervised learning from large-scale web images", ECCV
      2018, section 3.2.
    """
    valid = jnp.ones(sim.shape[0], bool) if valid is None else valid
    both = valid[:, None] & valid[None, :]
    distance = jnp.where(both, 1 - sim, jnp.nan)
    limit = jnp.nanquantile(distance, quantile)
    return jnp.where(valid, (both & (distance <= limit)).sum(1), 0).astype(sim.dtype)


def stretch(x: jax.Array, mu: float) -> jax.Array:
    """(e^(mu x) - 1) / (e^mu - 1): 0..1 onto itself, rising; concave if mu < 0, x itself if 0."""
    return x if mu == 0 else jnp.expm1(mu * x) / jnp.expm1(mu)


def normalise(weight: jax.Array, label: jax.Array, num_classes: int) -> jax.Array:
    """Weights over their mean in the class, so that every class counts as much as before.

    Args:
      weight: [N] >= 0. label: [N] integers 0..num_classes-1.
    Returns:
      [N], with mean 1 in every class; 1 for all items of a class whose weights are all 0.
    """
    member = jax.nn.one_hot(label, num_classes, dtype=weight.dtype)
    total, count = product(weight, member), member.sum(0)
    mean = (total / jnp.maximum(count, 1))[label]
    return jnp.where(mean > 1e-12, weight / jnp.maximum(mean, 1e-12), 1.0)


def bounded(
    weight: jax.Array, label: jax.Array, num_classes: int, bound: float, *, quantile: float = 0.9
) -> jax.Array:
    """Weights as shares of a high one of the class, those above `bound` of it all alike.

    min(1, w / (bound * q)), q the class's quantile: what is surely right counts in full, however
    typical it looks, so that a clean class loses nothing.

    Args:
      weight: [N] >= 0. label: [N] integers 0..num_classes-1. bound: > 0. quantile: in 0..1.
    Returns:
      [N] in 0..1; 1 for all items of a class whose quantile is 0.
    """
    is_label = label[:, None] == jnp.arange(num_classes)[None, :]
    q = jnp.nanquantile(jnp.where(is_label, weight[:, None], jnp.nan), quantile, axis=0)[label]
    return jnp.where(q > 1e-12, jnp.minimum(weight / (bound * jnp.maximum(q, 1e-12)), 1), 1.0)


def votes(sim: jax.Array, label: jax.Array, weight: jax.Array, num_classes: int) -> jax.Array:
    """Mean similarity of each item to the items under each name, which count by their weights.

    Args:
      sim: [N, N] >= 0. label: [N] integers 0..num_classes-1. weight: [N] >= 0.
    Returns:
      [N, C], the weighted mean over rows and columns; an item has no vote on itself, and a name
      without others to vote gets 0.
    """
    other = ~jnp.eye(len(label), dtype=bool)
    sim = jnp.where(other, (sim + sim.T) / 2, 0)
    member = jax.nn.one_hot(label, num_classes, dtype=sim.dtype) * weight[:, None]
    mass = member.sum(0, keepdims=True) - member
    return jnp.where(mass > 1e-9, product(sim, member) / jnp.maximum(mass, 1e-9), 0)


def vote_weights(sim: jax.Array, label: jax.Array, num_classes: int, rounds: int) -> jax.Array:
    """Weights by the votes of all items, which count in the next round by the weights found.

    w_i = v_i,y * v_i,y / sum_c v_i,c with v = `votes` and y the item's name: how like it is to its
    namesakes, times their share in what it is like. Namesakes that are wrong lose their vote round
    by round, and an image of another known class is found out by the votes for that one, which
    the mean similarity within a class can't see.

    Args:
      sim: [N, N] in 0..1, of all items of all classes. label: [N]. rounds: >= 1.
    Returns:
      [N] in 0..1; 1 for an item that is the only one of its name.
    """
    alone = jax.nn.one_hot(label, num_classes).sum(0)[label] < 2

    def again(_, weight):
        shares = votes(sim, label, weight, num_classes)
        of_label = jnp.take_along_axis(shares, label[:, None], 1)[:, 0]
        return jnp.where(alone, 1, of_label * of_label / jnp.maximum(shares.sum(1), 1e-9))

    return jax.lax.fori_loop(0, rounds, again, jnp.ones(len(label), sim.dtype))


def auroc(score: jax.Array, positive: jax.Array) -> jax.Array:
    """The chance that a positive scores above a negative, ties counted half.

    Args:
      score: [N]. positive: [N] bool.
    Returns:
      [] in 0..1; NaN if there are only positives or only negatives.
    """
    order = jnp.sort(score)
    below = jnp.searchsorted(order, score, side='left')
    upto = jnp.searchsorted(order, score, side='right')
    rank = (below + upto + 1) / 2  # the middle of equal ones, from 1
    p = positive.sum()
    n = len(score) - p
    area = (jnp.where(positive, rank, 0).sum() - p * (p + 1) / 2) / jnp.maximum(p * n, 1)
    return jnp.where((p > 0) & (n > 0), area, jnp.nan)
