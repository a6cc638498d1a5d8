"""Reptile: the weights move towards those that a few steps on a task end at.

Nichol, Achiam, Schulman, "On first-order meta-learning algorithms", 2018. The paper's outer step is
params + eps * mean(adapted - params) (algorithm 2): config.optim.name='sgd', momentum 0,
learning_rate eps, schedule 'linear'. Training takes an episode's support and query items together;
the reported loss and accuracy are means over the inner steps' mini-batches.
"""

import jax
import jax.numpy as jnp
import optax

from anyshot_jax.config import check_choices
from anyshot_jax.episodes import learner
from anyshot_jax.episodes.episodic import cross_entropy, episodic, join
from anyshot_jax.types import InputError

DEFAULTS = {
    'batch_norm': 'inductive',  # inductive | transductive; see learner.Learner
    'head': 'per_class',  # per_class (the paper's) | zero; see learner.build
    'inner_steps': 5,
    'inner_lr': 1e-3,
    'inner_batch': 10,  # items of a mini-batch; 0: all there are
    'inner_optimizer': 'adam',  # adam (without momentum, as in the paper, afresh in a task) | sgd
    'eval_steps': 50,
    'eval_batch': 5,
}
TRACED = ('inner_lr',)
OPTIMIZERS = {'adam': lambda rate: optax.adam(rate, b1=0.0), 'sgd': optax.sgd}


def build(config, data):
    """Reptile of config.net.

    Args:
      config: of a run. data: with the roles that episodes are drawn from.
    Returns:
      The Method. Its extra: the net's running statistics.
    Raises:
      InputError: a field that does not fit, or data that cannot give the episodes.
    """
    fields = config.method
    check_choices(fields, {'inner_optimizer': OPTIMIZERS})
    if min(fields.inner_steps, fields.eval_steps) < 1:
        raise InputError('config.method.inner_steps and eval_steps must be >= 1')
    net, tx = learner.build(config), OPTIMIZERS[fields.inner_optimizer](fields.inner_lr)

    def descend(key, params, x, y, *, steps, batch):
        """The parameters at the end, metrics of the mini-batches, and stats of the first."""
        index = mini_batches(key, len(y), steps=steps, batch=min(batch or len(y), len(y)))

        def loss(p, rows):
            z, stats = net.support(p['net'], x[rows])
            value, metrics = cross_entropy(learner.dense(p['head'], z), y[rows])
            return value, ({**metrics, 'loss': value}, stats)

        def step(carry, rows):
            p, opt_state = carry
            grads, aux = jax.grad(loss, has_aux=True)(p, rows)
            updates, opt_state = tx.update(grads, opt_state, p)
            return (optax.apply_updates(p, updates), opt_state), aux

        (params, _), (metrics, stats) = jax.lax.scan(step, (params, tx.init(params)), index)
        return params, jax.tree.map(jnp.mean, metrics), jax.tree.map(lambda a: a[0], stats)

    def loss(params, extra, batch, key):
        def one(unit):
            episode, key = unit
            ways = episode.class_id.shape[0]
            y = jnp.concatenate([episode.y_s, episode.y_q])
            # Half the squared way there, its end a constant: the derivative is params - end
            # (section 5.2 of the paper).
            start = net.start(params, episode.x_s, ways)
            end, metrics, stats = descend(
                key,
                jax.lax.stop_gradient(start),
                join(episode),
                y,
                steps=fields.inner_steps,
                batch=fields.inner_batch,
            )
            way = jax.tree.map(lambda p, e: jnp.sum((p - e) ** 2) / 2, start, end)
            return sum(jax.tree.leaves(way)), metrics, stats

        way, metrics, stats = learner.each_task(one, (batch, key))
        way, metrics = way.mean(), jax.tree.map(jnp.mean, metrics)
        value = metrics['loss'] + way - jax.lax.stop_gradient(way)
        return value, (metrics, learner.moved(extra, stats))

    def predict(params, extra, episode):
        end, _, _ = descend(
            jax.random.key(0),  # the same mini-batches in every task
            net.start(params, episode.x_s, episode.class_id.shape[0]),
            episode.x_s,
            episode.y_s,
            steps=fields.eval_steps,
            batch=fields.eval_batch,
        )
        stats = net.statistics(end['net'], episode.x_s)
        return learner.dense(end['head'], net.query(end['net'], stats, episode.x_q))

    return episodic(config, data, init=net.init, embed=net.embed, predict=predict, loss=loss)


def mini_batches(key, num, *, steps, batch):
    """Rows of mini-batches: all items in random order, then all in another, and so on.

    Returns:
      [steps, batch] int32, 0..num-1.
    """
    rounds = -(-steps * batch // num)
    order = jax.vmap(lambda k: jax.random.permutation(k, num))(jax.random.split(key, rounds))
    return order.reshape(-1)[: steps * batch].reshape(steps, batch)
