"""One nearest neighbour on the items as they are (pixels or features): the floor of every table."""

import jax.numpy as jnp

from anyshot_jax.config import check_choices
from anyshot_jax.episodes.episodic import episodic
from anyshot_jax.ops.distance import cosine, squared_euclidean
from anyshot_jax.ops.prototype import nearest_per_class

DEFAULTS = {'distance': 'euclidean'}  # euclidean | cosine


def build(config, data):
    """Nearest neighbours among the items as they are.

    Args:
      config: of a run. data: with the roles that episodes are drawn from.
    Returns:
      The Method. Its extra: {}.
    Raises:
      InputError: a field that does not fit, or data that cannot give the episodes.
    """
    sims = {'euclidean': lambda a, b: -squared_euclidean(a, b), 'cosine': cosine}
    check_choices(config.method, {'distance': sims})
    sim = sims[config.method.distance]

    def init(key, x):
        return {}, {}

    def embed(params, extra, x):
        scale = 255 if x.dtype == jnp.uint8 else 1
        return x.reshape(x.shape[0], -1).astype(jnp.float32) / scale

    def score(params, extra, episode):
        ways = episode.class_id.shape[0]
        return nearest_per_class(sim(episode.x_q, episode.x_s), episode.y_s, ways)

    similarity = lambda params, extra, a, b: sim(a, b)
    return episodic(config, data, init=init, embed=embed, score=score, similarity=similarity)
