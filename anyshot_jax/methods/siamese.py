"""Siamese networks: twins that say whether two images show the same thing.

By `loss`:
- 'bce': Koch, Zemel, Salakhutdinov, "Siamese neural networks for one-shot image recognition", ICML
  workshop 2015: a weighted L1 distance of the twins through a sigmoid, cross-entropy;
- 'contrastive' (Hadsell, Chopra, LeCun, 2006) and 'triplet' (Schroff et al., 2015; Hermans et al.,
  2017), both on Euclidean distances, see ops/contrastive.py.
A training episode of P classes with K items each is one batch, and all its pairs are learnt from:
pairs of one class weigh as much as those of two. `pairs`='twins' takes Koch's only: an item of the
support with the query of its class and with that of the next.
"""

import jax
import jax.numpy as jnp

from anyshot_jax.config import build_net, check_above, check_choices
from anyshot_jax.episodes.episodic import episodic, forward, init_net, join
from anyshot_jax.ops.contrastive import MININGS, balanced_mean, contrastive, euclidean, triplet
from anyshot_jax.ops.distance import squared_euclidean, unit
from anyshot_jax.ops.product import product
from anyshot_jax.ops.prototype import class_means
from anyshot_jax.types import InputError

DEFAULTS = {
    'batch_norm': 'inductive',
    'loss': 'bce',  # bce | contrastive | triplet
    'squash': 'none',  # what the embedding goes through: none | sigmoid (Koch's) | unit (length 1)
    'pairs': 'all',  # all | twins (bce and contrastive)
    'margin': 0.5,
    'squared': False,  # the squared form of the contrastive loss
    'mining': 'batch_hard',  # batch_hard | semi_hard | random
}
TRACED = ('margin',)
CHOICES = {
    'loss': ('bce', 'contrastive', 'triplet'),
    'squash': ('none', 'sigmoid', 'unit'),
    'pairs': ('all', 'twins'),
    'mining': MININGS,
}


def build(config, data):
    """Siamese network of config.net.

    Args:
      config: of a run. data: with the roles that episodes are drawn from.
    Returns:
      The Method. Its extra: the net's batch statistics.
    Raises:
      InputError: a field that does not fit, or data that cannot give the episodes.
    """
    fields, net = config.method, build_net(config.net)
    check_choices(fields, CHOICES)
    check_above(fields, margin=0)
    if config.num_steps and config.train.ways < 2:
        raise InputError('config.train.ways must be >= 2: a batch of one class has no other')

    def init(key, x):
        params, extra = init_net(net, key, x)
        z = jax.eval_shape(lambda x: forward(net, params, extra, x, mode='inductive')[0], x)
        if z.ndim != 2:
            raise InputError("config.method.name='siamese' needs flat features")
        # Near is alike from the first step on: a weight of its own would have to be found.
        kernel = -jnp.ones(z.shape[1]) / z.shape[1] ** 0.5
        head = {'kernel': kernel, 'bias': jnp.zeros(())}
        return {'net': params, 'head': head} if fields.loss == 'bce' else {'net': params}, extra

    def squash(z):
        if fields.squash == 'unit':
            return unit(z)
        return jax.nn.sigmoid(z) if fields.squash == 'sigmoid' else z

    def embed(params, extra, x):
        return squash(forward(net, params['net'], extra, x, mode=fields.batch_norm)[0])

    def similarity(params, extra, a, b):
        """[N, M]: the logit that two items show the same thing, or minus their distance."""
        if fields.loss != 'bce':
            return -euclidean(squared_euclidean(a, b))
        kernel, bias = params['head']['kernel'], params['head']['bias']
        # Row by row: [N, M, D] would be large.
        return jax.lax.map(lambda row: product(jnp.abs(row[None] - b), kernel) + bias, a)

    def score(params, extra, episode):
        sim = similarity(params, extra, episode.x_q, episode.x_s)
        return class_means(sim.T, episode.y_s, ways=episode.class_id.shape[0]).T

    def task_loss(params, z, y, chosen, key):
        sim = similarity(params, None, z, z)
        same, diagonal = y[:, None] == y[None, :], jnp.eye(len(y), dtype=bool)
        nearest_one = jnp.argmax(jnp.where(diagonal, -jnp.inf, sim), -1)
        metrics = {'accuracy': jnp.mean(y[nearest_one] == y)}  # of the nearest other item
        if fields.loss == 'triplet':
            return triplet(key, -sim, y, fields.margin, fields.mining), metrics
        if fields.loss == 'bce':
            value = jax.nn.softplus(jnp.where(same, -sim, sim))
        else:
            value = contrastive(-sim, same, fields.margin, squared=fields.squared)
        return balanced_mean(value, same, chosen & ~diagonal), metrics

    def loss(params, extra, batch, key):
        z, extra = forward(net, params['net'], extra, join(batch, 1), mode='train')
        y = jnp.concatenate([batch.y_s, batch.y_q], 1)
        num_s = batch.y_s.shape[1]
        chosen = jnp.ones((y.shape[1],) * 2, bool)
        if fields.pairs == 'twins':
            other = (batch.y_s[0][:, None] + 1) % batch.class_id.shape[1]
            pair = (batch.y_q[:1] == batch.y_s[0][:, None]) | (batch.y_q[:1] == other)
            chosen = jnp.zeros_like(chosen).at[:num_s, num_s:].set(pair)
        values, metrics = jax.vmap(task_loss, (None, 0, 0, None, 0))(
            params, squash(z), y, chosen, key
        )
        return values.mean(), (jax.tree.map(jnp.mean, metrics), extra)

    parts = {'init': init, 'embed': embed, 'score': score, 'loss': loss}
    return episodic(config, data, **parts, similarity=similarity, skip_small=True)
