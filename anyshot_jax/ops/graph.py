"""A sample described by its place in the graph of all samples of an episode."""

import chex
import jax
import jax.numpy as jnp

from anyshot_jax.ops.distance import squared_euclidean, unit
from anyshot_jax.ops.product import product
from anyshot_jax.ops.prototype import class_means


def graph_embedding(
    x: jax.Array,
    *,
    neighbours: int,
    power: int,
    self_weight: float,
    valid: jax.Array | None = None,
) -> jax.Array:
    """`cosine_graph` of samples x [M, D], whose documentation it shares."""
    # Scaled after the product: one pass over x instead of three.
    dot = product(x, x.T)
    scale = jax.lax.rsqrt(jnp.maximum(jnp.diagonal(dot), 1e-8))
    sim = dot * scale[:, None] * scale[None, :]
    return cosine_graph(
        sim, neighbours=neighbours, power=power, self_weight=self_weight, valid=valid
    )


def cosine_graph(
    sim: jax.Array,
    *,
    neighbours: int,
    power: int,
    self_weight: float,
    valid: jax.Array | None = None,
    eps: float = 1e-6,
) -> jax.Array:
    """softmax of the rows of (self_weight I + D^-1/2 S D^-1/2)^power, the new features.

    S are the similarities, its diagonal 0, where one of two samples is among the other's
    `neighbours` most similar (of equals the first; the diagonal's 0 competes with them), else 0; D
    its sums. For many episodes of the same items the cosines need computing only once.

    Args:
      sim: [M, M] cosines. neighbours: >= 1; from M on all others. power: >= 1.
      valid: [M] bool; the answer is as if other rows weren't there, with zeros in their place.
      eps: a sample whose similarities sum to less (negative ones may) has no edges.
    Returns:
      [M, M], rows sum to 1.
    Reference:
      Hu, Gripon, Pateux, "Graph-based interpolation of feature vectors for accurate few-shot
      classification", ICPR 2020; the softmax is GTnet's (IEEE 9761830).
    """
    chex.assert_shape(sim, (len(sim), len(sim)))
    own = jnp.eye(len(sim), dtype=bool)
    both = jnp.ones_like(own) if valid is None else valid[:, None] & valid[None, :]
    sim = jnp.where(own, 0, sim)
    near = largest(jnp.where(both, sim, -jnp.inf), neighbours)
    sim = jnp.where((near | near.T) & both, sim, 0)
    degree = sim.sum(0)
    scale = jnp.where(degree > eps, jax.lax.rsqrt(jnp.maximum(degree, eps)), 0)
    walk = sim * scale[:, None] * scale[None, :] + self_weight * own
    with jax.default_matmul_precision('highest'):
        walk = jnp.linalg.matrix_power(walk, power)
    return jnp.where(both, jax.nn.softmax(jnp.where(both, walk, -1e30), axis=-1), 0)


def largest(sim: jax.Array, k: int) -> jax.Array:
    """The k largest entries of every column, the upper ones where they tie.

    Args:
      sim: [M, N]; -inf counts as taken already.
    Returns:
      [M, N] bool: k of every column, or all where there are fewer, and those that are -inf.
    """
    if k >= len(sim):
        return jnp.ones(sim.shape, bool)
    row = jax.lax.broadcasted_iota(jnp.int32, sim.shape, 0)

    # On a CPU three times as fast as jax.lax.top_k for small k, and along columns as along rows.
    def take(_, rest):
        top = jnp.where(rest == rest.max(0, keepdims=True), row, len(sim))
        return jnp.where(row == top.min(0, keepdims=True), -jnp.inf, rest)

    return jax.lax.fori_loop(0, k, take, sim) == -jnp.inf


def centre_groups(
    x: jax.Array, group: jax.Array, num_groups: int, *, valid: jax.Array | None = None
) -> jax.Array:
    """Rows of length 1, less the mean of their group, of length 1 again.

    Args:
      x: [M, D]. group: [M] in 0..num_groups-1, e.g. 0 for support and 1 for queries.
      valid: [M] bool; other rows are in no mean and become zeros.
    Returns:
      [M, D]; the only row of a group becomes zeros.
    """
    if valid is not None:
        group = jnp.where(valid, group, -1)
    x = unit(x)
    x = unit(x - class_means(x, group, num_groups)[group])
    return x if valid is None else jnp.where(valid[:, None], x, 0)


def smoothness(h: jax.Array, affinity: jax.Array) -> jax.Array:
    """(1/n^2) sum_ij A_ij |h_i - h_j|^2: how much similar items differ.

    For symmetric A it is (2/n^2) tr(H^T L H) with the graph's Laplacian L = diag(A 1) - A.

    Args:
      h: [n, D] features. affinity: [n, n] A >= 0; needn't be symmetric.
    Returns:
      [].
    Reference:
      Chen, Niu, Liu, Zhang, "Weak-shot fine-grained classification via similarity transfer",
      NeurIPS 2021, section 3.4.
    """
    return jnp.mean(affinity * squared_euclidean(h, h))


def cosine_gap(h: jax.Array, affinity: jax.Array) -> jax.Array:
    """mean_ij (cos(h_i, h_j) - A_ij)^2, another penalty: features as similar as A says.

    Args and Returns: as in `smoothness`, A in 0..1.
    """
    h = unit(h)
    return jnp.mean((product(h, h.T) - affinity) ** 2)
