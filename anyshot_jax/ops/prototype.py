"""Prototypes of classes: means of their support."""

import chex
import jax
import jax.numpy as jnp

from anyshot_jax.ops.product import product
from anyshot_jax.ops.transport import sinkhorn


def class_means(x: jax.Array, y: jax.Array, ways: int) -> jax.Array:
    """Mean of each class's items.

    Args:
      x: [N, ...] features. y: [N] labels 0..ways-1. ways: number of classes W.
    Returns:
      [W, ...] means; a class without items gets zeros.
    Reference:
      Snell, Swersky, Zemel, "Prototypical networks for few-shot learning", 2017, eq. 1.
    """
    chex.assert_shape(y, x.shape[:1])
    member = jax.nn.one_hot(y, ways, axis=0, dtype=x.dtype)  # [W, N]
    share = member / jnp.maximum(member.sum(1, keepdims=True), 1)
    return product(share, x.reshape(x.shape[0], -1)).reshape(ways, *x.shape[1:])


def nearest_per_class(sim: jax.Array, y: jax.Array, ways: int) -> jax.Array:
    """Similarity to the most similar item of each class: the scores of 1-nearest-neighbour.

    Args:
      sim: [Q, N] similarities of queries to items. y: [N] labels 0..ways-1.
    Returns:
      [Q, W]; -inf for a class without items.
    """
    chex.assert_shape(y, sim.shape[1:])
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
    chex.assert_shape(y, sim.shape[1:])
    member = jax.nn.one_hot(y, ways, dtype=bool)  # [N, W]
    weight = jax.nn.log_softmax(sim, axis=1)
    return jax.nn.logsumexp(jnp.where(member[None], weight[:, :, None], -1e30), axis=1)


def class_centres(
    x_s: jax.Array,
    weight_s: jax.Array,
    x_q: jax.Array,
    *,
    rows: jax.Array | None = None,
    columns: jax.Array | None = None,
    rounds: int = 20,
    step: float = 0.2,
    sharpness: float = 10.0,
    tolerance: float = 1e-5,
    max_rounds: int = 1000,
) -> tuple[jax.Array, jax.Array]:
    """Centres drawn towards the queries that optimal transport gives them (transductive).

    In every round they go the part `step` of the way to the mean of all rows, a support row counted
    by its weight and a query by its share in the plan.

    Args:
      x_s: [N, D]. weight_s: [N, W] >= 0, 0 also for rows that aren't there. x_q: [Q, D].
      rows: [Q], 1 where a query is there, else 0; None: all. columns: [W] expected queries of the
        classes, up to a factor; None: equally many. sharpness, tolerance, max_rounds: `sinkhorn`'s.
    Returns:
      centres [rounds + 1, W, D], the first the weighted means of the support (zeros for a class
      without any), and the plan [Q, W] for the last.
    Reference:
      Hu, Gripon, Pateux, "Leveraging the feature distribution in transfer-based few-shot learning",
      ICANN 2021.
    """
    rows = jnp.ones_like(x_q[:, 0]) if rows is None else rows
    columns = jnp.ones_like(x_s[0], shape=weight_s.shape[1:]) if columns is None else columns
    given, mass = product(weight_s.T, x_s), weight_s.sum(0)[:, None]
    limits = {'sharpness': sharpness, 'tolerance': tolerance, 'max_rounds': max_rounds}
    # A centre is a mean of rows, and its products with queries follow from those of rows with each
    # other, so that a round costs W * Q^2 whatever D is. The centres themselves come last.
    similar, given_q = product(x_q, x_q.T), product(given, x_q.T)

    def plan(dot, potential):
        # Distances less |x_q|^2, the same for all classes, and less |centre|^2, the same for all
        # queries: what columns are scaled by makes up for it, and changes little in a round.
        cost = (-2 * dot - (potential / sharpness)[:, None]).T
        share, more = sinkhorn(cost, rows, columns, **limits)
        return share.T, jnp.where(columns > 0, potential + more, 0)

    def move(carry, _):
        dot, potential = carry  # of the centres with x_q
        share, potential = plan(dot, potential)
        total = jnp.maximum(mass + share.sum(1, keepdims=True), 1e-12)
        dot = dot + step * ((given_q + product(share, similar)) / total - dot)
        return (dot, potential), (share, total)

    centres, dot = (a / jnp.maximum(mass, 1e-12) for a in (given, given_q))
    start = dot, -sharpness * jnp.sum(centres * centres, 1)
    carry, (share, total) = jax.lax.scan(move, start, length=rounds)
    mean = (given[None] + product(share, x_q)) / total

    def follow(centres, mean):
        centres = centres + step * (mean - centres)
        return centres, centres

    path = jax.lax.scan(follow, centres, mean)[1]
    return jnp.concatenate([centres[None], path]), plan(*carry)[0].T
