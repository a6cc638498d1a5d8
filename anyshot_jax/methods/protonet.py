"""Prototypical networks: the nearest class mean in a learnt space.

Snell, Swersky, Zemel, "Prototypical networks for few-shot learning", NeurIPS 2017.
"""

import jax

from anyshot_jax.config import build_net
from anyshot_jax.episodes.episodic import cross_entropy, episodic, forward, init_net, join, part
from anyshot_jax.ops.distance import squared_euclidean
from anyshot_jax.ops.prototype import class_means

DEFAULTS = {'batch_norm': 'inductive'}


def build(config, data):
    """Prototypical network of config.net.

    Args:
      config: of a run. data: with the roles that episodes are drawn from.
    Returns:
      The Method. Its extra: the net's batch statistics.
    Raises:
      InputError: a field that does not fit, or data that cannot give the episodes.
    """
    net = build_net(config.net)

    def init(key, x):
        return init_net(net, key, x)

    def embed(params, extra, x):
        return forward(net, params, extra, x, mode=config.method.batch_norm)[0]

    def score(params, extra, episode):
        means = class_means(episode.x_s, episode.y_s, ways=episode.class_id.shape[0])
        return -squared_euclidean(episode.x_q, means)  # eq. 2

    def loss(params, extra, batch, key):
        features, extra = forward(net, params, extra, join(batch, 1), mode='train')
        scores = jax.vmap(score, (None, None, 0))(params, extra, part(features, batch, 1))
        value, metrics = cross_entropy(scores, batch.y_q)
        return value, (metrics, extra)

    def similarity(params, extra, a, b):
        return -squared_euclidean(a, b)

    parts = {'init': init, 'embed': embed, 'score': score, 'loss': loss}
    return episodic(config, data, **parts, similarity=similarity)
