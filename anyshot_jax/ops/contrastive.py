"""Losses that pull items of a class together and push others apart, on all pairs of a batch."""

import chex
import jax
import jax.numpy as jnp

MININGS = ('batch_hard', 'semi_hard', 'random')


def euclidean(sq: jax.Array, eps: float = 1e-12) -> jax.Array:
    """Distances from squared ones, with a finite gradient at 0."""
    return jnp.sqrt(jnp.maximum(sq, eps))


def balanced_mean(value: jax.Array, same: jax.Array, chosen: jax.Array) -> jax.Array:
    """Half the mean over pairs of one class and half that over pairs of two.

    Args:
      value: [N, N] of every pair. same: [N, N] bool, of one class. chosen: [N, N] bool, the pairs
        that count.
    Returns:
      []; a kind without pairs gives 0, never NaN.
    """
    mean = lambda kind: jnp.sum(jnp.where(kind, value, 0)) / jnp.maximum(kind.sum(), 1)
    return (mean(same & chosen) + mean(~same & chosen)) / 2


def contrastive(
    dist: jax.Array, same: jax.Array, margin: float, *, squared: bool = False
) -> jax.Array:
    """y d + (1 - y) max(0, m - d) of every pair, y = 1 for one class.

    `squared`: y d^2 + (1 - y) max(0, m - d)^2, without the factor 1/2 of the paper (Hadsell,
    Chopra, LeCun, "Dimensionality reduction by learning an invariant mapping", CVPR 2006, eq. 4,
    where y = 0 is one class).

    Args:
      dist: [N, N] distances >= 0. same: [N, N] bool. margin: m > 0.
    Returns:
      [N, N].
    """
    chex.assert_equal_shape([dist, same])
    apart = jnp.maximum(margin - dist, 0)
    pull, push = (dist**2, apart**2) if squared else (dist, apart)
    return jnp.where(same, pull, push)


def triplet(key: jax.Array, dist: jax.Array, y: jax.Array, margin: float, mining: str) -> jax.Array:
    """Mean of max(0, d(a, p) + m - d(a, n)) over the triplets that `mining` chooses.

    'batch_hard': for every anchor its farthest positive and nearest negative (Hermans, Beyer,
    Leibe, "In defense of the triplet loss", 2017, eq. 5). 'semi_hard': for every anchor and
    positive the nearest negative beyond the positive, or the farthest where there is none (Schroff,
    Kalenichenko, Philbin, "FaceNet", CVPR 2015, section 3.2). 'random': for every anchor one of
    each, uniform.

    Args:
      dist: [N, N]. y: [N] labels. margin: m.
    Returns:
      []; 0 where there is no triplet.
    """
    diagonal = jnp.eye(len(y), dtype=bool)
    positive = (y[:, None] == y[None, :]) & ~diagonal
    negative = y[:, None] != y[None, :]
    if mining == 'semi_hard':
        beyond = negative[:, None, :] & (dist[:, None, :] > dist[:, :, None])  # [a, p, n]
        nearest = jnp.min(jnp.where(beyond, dist[:, None, :], jnp.inf), -1)
        farthest = jnp.max(jnp.where(negative, dist, -jnp.inf), -1, keepdims=True)
        n = jnp.where(beyond.any(-1), nearest, farthest)
        valid = positive & negative.any(-1, keepdims=True)
        p = dist
    else:
        valid = positive.any(-1) & negative.any(-1)
        if mining == 'batch_hard':
            p = jnp.max(jnp.where(positive, dist, -jnp.inf), -1)
            n = jnp.min(jnp.where(negative, dist, jnp.inf), -1)
        else:
            order = jax.random.uniform(key, (2, *dist.shape))
            pick = lambda kind, u: jnp.take_along_axis(
                dist, jnp.argmax(jnp.where(kind, u, -1), -1)[:, None], -1
            )[:, 0]
            p, n = pick(positive, order[0]), pick(negative, order[1])
    # An infinity that is not chosen must not reach the derivative.
    gap = jnp.where(valid, p, 0) + margin - jnp.where(valid, n, 0)
    return jnp.sum(jnp.where(valid, jnp.maximum(gap, 0), 0)) / jnp.maximum(valid.sum(), 1)


def pair_cross_entropy(
    logits: jax.Array, same: jax.Array, positive: float, weight: jax.Array | None = None
) -> jax.Array:
    """Mean binary cross-entropy of pairs, those of one class weighing `positive`.

    Args:
      logits: [Q, S] that a pair is of one class. same: [Q, S] bool. positive: weight >= 0 of such a
        pair; the number of classes less one makes both kinds count alike.
      weight: [Q, S] >= 0 on top of that, or none; where it is 0 a pair doesn't count.
    Returns:
      [], the sum over the number of pairs that count.
    """
    count = jnp.ones(same.shape) if weight is None else weight
    value = jnp.where(same, positive * jax.nn.softplus(-logits), jax.nn.softplus(logits))
    return jnp.sum(count * value) / jnp.maximum(jnp.sum(count > 0), 1)
