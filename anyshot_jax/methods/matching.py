"""Matching networks: softmax attention over the support by cosine similarity.

Vinyals et al., "Matching networks for one shot learning", NeurIPS 2016. `scale` multiplies the
cosines before the softmax; the paper's 1 leaves the loss far from 0 however good the embedding
(cosines end at 1), so the default is 10, chosen on validation classes.
"""

import jax

from anyshot_jax.config import build_net
from anyshot_jax.episodes.episodic import cross_entropy, episodic, forward, init_net, join, part
from anyshot_jax.nets.full_context import Net as FullContext
from anyshot_jax.ops.distance import cosine
from anyshot_jax.ops.prototype import attention

DEFAULTS = {
    'batch_norm': 'inductive',
    'scale': 10.0,
    'full_context': 0,  # steps of the query's attention LSTM (the paper's K); 0: no full context
}
TRACED = ('scale',)


def build(config, data):
    """Matching network of config.net.

    Args:
      config: of a run. data: with the roles that episodes are drawn from.
    Returns:
      The Method. Its extra: the net's batch statistics.
    Raises:
      InputError: a field that does not fit, or data that cannot give the episodes.
    """
    net = build_net(config.net)
    context = FullContext(steps=config.method.full_context) if config.method.full_context else None

    def init(key, x):
        params, extra = init_net(net, key, x)
        head = {}
        if context:
            features, _ = forward(net, params, extra, x, mode='inductive')
            head, _ = init_net(context, jax.random.fold_in(key, 1), features, features)
        return {'net': params, 'context': head}, extra

    def embed(params, extra, x):
        return forward(net, params['net'], extra, x, mode=config.method.batch_norm)[0]

    def score(params, extra, episode):
        x_s, x_q = episode.x_s, episode.x_q
        if context:
            (x_s, x_q), _ = forward(context, params['context'], {}, x_s, x_q, mode='inductive')
        sim = config.method.scale * cosine(x_q, x_s)
        return attention(sim, episode.y_s, ways=episode.class_id.shape[0])

    def loss(params, extra, batch, key):
        features, extra = forward(net, params['net'], extra, join(batch, 1), mode='train')
        scores = jax.vmap(score, (None, None, 0))(params, extra, part(features, batch, 1))
        value, metrics = cross_entropy(scores, batch.y_q)
        return value, (metrics, extra)

    return episodic(config, data, init=init, embed=embed, score=score, loss=loss)
