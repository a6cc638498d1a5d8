"""iMAML: the meta-gradient from where the inner loop ends, not from the way there.

Rajeswaran, Finn, Kakade, Levine, "Meta-learning with implicit gradients", NeurIPS 2019. Memory
doesn't depend on the inner steps; the gradient is right as far as they reach the minimum.
"""

import jax
import jax.numpy as jnp

from anyshot_jax.config import check_above
from anyshot_jax.episodes import learner
from anyshot_jax.episodes.episodic import cross_entropy, episodic
from anyshot_jax.ops.innerloop import adapt_implicit

DEFAULTS = {
    'batch_norm': 'inductive',  # inductive | transductive (the paper's); see learner.Learner
    'head': 'per_class',  # per_class (the paper's) | zero; see learner.build
    'inner_steps': 16,
    'inner_lr': 0.1,
    'eval_steps': 0,  # 0: as many as inner_steps
    'strength': 2.0,  # of the pull towards the start, the paper's lambda
    'cg_steps': 5,
}


def build(config, data):
    """MAML with implicit gradients of config.net.

    Args:
      config: of a run. data: with the roles that episodes are drawn from.
    Returns:
      The Method. Its extra: the net's running statistics.
    Raises:
      InputError: a field that does not fit, or data that cannot give the episodes.
    """
    fields = config.method
    check_above(fields, inner_steps=0, cg_steps=0, strength=0)
    net = learner.build(config)

    def support_loss(task, x, y):
        z, _ = net.support(task['net'], x)
        return cross_entropy(learner.dense(task['head'], z), y)[0]

    def solve(params, episode, steps):
        end = adapt_implicit(
            support_loss,
            net.start(params, episode.x_s, episode.class_id.shape[0]),
            (episode.x_s, episode.y_s),
            steps,
            fields.inner_lr,
            fields.strength,
            fields.cg_steps,
        )
        stats = net.statistics(end['net'], episode.x_s)
        return learner.dense(end['head'], net.query(end['net'], stats, episode.x_q))

    def loss(params, extra, batch, key):
        def one(episode):
            scores = solve(params, episode, fields.inner_steps)
            stats = net.support(params['net'], episode.x_s)[1]
            return *cross_entropy(scores, episode.y_q), stats

        value, metrics, stats = learner.each_task(one, batch)
        metrics = jax.tree.map(jnp.mean, metrics)
        return value.mean(), (metrics, learner.moved(extra, stats))

    def predict(params, extra, episode):
        return solve(params, episode, fields.eval_steps or fields.inner_steps)

    return episodic(config, data, init=net.init, embed=net.embed, predict=predict, loss=loss)
