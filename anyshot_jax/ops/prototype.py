"""What stands for a class: means of its support."""

import jax
import jax.numpy as jnp


def class_means(x: jax.Array, y: jax.Array, ways: int) -> jax.Array:
    """Mean of each class's items.

    Args:
      x: [N, ...] features. y: [N] labels 0..ways-1. ways: number of classes W.
    Returns:
      [W, ...] means; a class without items gets zeros.
    Reference:
      Snell, Swersky, Zemel, "Prototypical networks for few-shot learning", 2017, eq. 1.
    """
    member = jax.nn.one_hot(y, ways, axis=0, dtype=x.dtype)  # [W, N]
    share = member / jnp.maximum(member.sum(1, keepdims=True), 1)
    return (share @ x.reshape(x.shape[0], -1)).reshape(ways, *x.shape[1:])


def nearest_per_class(sim: jax.Array, y: jax.Array, ways: int) -> jax.Array:
    """Similarity to the most similar item of each class: the scores of 1-nearest-neighbour.

    Args:
      sim: [Q, N] similarities of queries to items. y: [N] labels 0..ways-1.
    Returns:
      [Q, W]; -inf for a class without items.
    """
    member = jax.nn.one_hot(y, ways, dtype=bool)  # [N, W]
    return jnp.max(jnp.where(member[None], sim[:, :, None], -jnp.inf), axis=1)


def attention(sim: jax.Array, y: jax.Array, ways: int) -> jax.Array:
    """Log-probability of each class under softmax attention over the support.

    Args:
      sim: [Q, N] similarities, already scaled. y: [N] labels 0..ways-1.
    Returns:
      [Q, W] log of the attention that falls on each class; a class without items gets about -1e30.
    Reference:
      Vinyals et al., "Matching networks for one shot learning", 2016, eq. 1.
    """
    member = jax.nn.one_hot(y, ways, dtype=bool)  # [N, W]
    weight = jax.nn.log_softmax(sim, axis=1)
    return jax.nn.logsumexp(jnp.where(member[None], weight[:, :, None], -1e30), axis=1)
