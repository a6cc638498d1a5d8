"""Relation networks: a learnt comparison of a query with each class.

Sung et al., "Learning to compare: relation network for few-shot learning", CVPR 2018. The paper
sums the maps of a class's shots; the mean is used here, so that one model serves any number of
shots.
"""

import jax
import jax.numpy as jnp

from anyshot_jax.config import build_net
from anyshot_jax.episodes.episodic import episodic, forward, init_net, join, part
from anyshot_jax.nets.relation import Net as Relation
from anyshot_jax.ops.prototype import class_means

DEFAULTS = {'batch_norm': 'inductive', 'features': 64, 'hidden': 8}


def build(config, data):
    """Relation network on the maps of config.net.

    Args:
      config: of a run. data: with the roles that episodes are drawn from.
    Returns:
      The Method. Its extra: 'net' and 'relation', their batch statistics.
    Raises:
      InputError: a field that does not fit, or data that cannot give the episodes.
    """
    net = build_net(config.net)
    relation = Relation(config.method.features, config.method.hidden)

    def init(key, x):
        params, extra = init_net(net, key, x)
        maps, _ = forward(net, params, extra, x, mode='inductive')
        head, head_extra = init_net(relation, jax.random.fold_in(key, 1), maps, maps)
        return {'net': params, 'relation': head}, {'net': extra, 'relation': head_extra}

    def embed(params, extra, x):
        return forward(net, params['net'], extra['net'], x, mode=config.method.batch_norm)[0]

    def compare(params, extra, episode, mode):
        ways = episode.class_id.shape[-1]
        means = lambda x, y: class_means(x, y, ways)
        for _ in episode.class_id.shape[1:]:
            means = jax.vmap(means)
        x_s = means(episode.x_s, episode.y_s)
        head = params['relation'], extra['relation']
        return forward(relation, *head, x_s, episode.x_q, mode=mode)

    def score(params, extra, episode):
        return compare(params, extra, episode, config.method.batch_norm)[0]

    def loss(params, extra, batch, key):
        maps, net_extra = forward(net, params['net'], extra['net'], join(batch, 1), mode='train')
        logits, head_extra = compare(params, extra, part(maps, batch, 1), 'train')
        target = jax.nn.one_hot(batch.y_q, logits.shape[-1])
        value = jnp.mean((jax.nn.sigmoid(logits) - target) ** 2)  # eq. 2
        accuracy = jnp.mean(jnp.argmax(logits, -1) == batch.y_q)
        return value, ({'accuracy': accuracy}, {'net': net_extra, 'relation': head_extra})

    return episodic(config, data, init=init, embed=embed, score=score, loss=loss)
