"""Tasks on a tiny net with batch norm, for tests of methods that adapt to a task."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from anyshot_jax import config as configs
from anyshot_jax.types import Data, Episode, from_arrays

KEY = jax.random.key(3)
NET = {'features': 3, 'blocks': 2, 'pools': (True, True), 'padding': ('SAME', 'SAME')}


class Case:
    """A method on a tiny net with batch norm; `update` is SGD of rate 1: the step is the grads."""

    def __init__(self, name='maml', tasks=2, **fields):
        rng = np.random.default_rng(0)
        ways, shots, queries = 3, 2, 2
        config = configs.defaults(name, 'synthetic', 'conv4')
        config.net.update(NET)
        config.train.update({'ways': ways, 'shots': shots, 'queries': queries})
        config.eval.update({'tasks': ((ways, shots),), 'queries': queries})
        config.optim.update({'name': 'sgd', 'learning_rate': 1.0, 'momentum': 0.0})
        config.num_steps = 10
        config.task_chunk = tasks
        for field, value in fields.items():
            setattr(config if field == 'task_chunk' else config.method, field, value)
        label = np.repeat(np.arange(ways), shots + queries)
        dataset = from_arrays(rng.normal(size=(len(label), 8, 8, 1)), label)
        data = Data(dict.fromkeys(('train', 'val', 'test'), dataset))
        self.method = configs.find('methods', name).build(config, data)
        move = lambda p: p + 0.3 * rng.normal(size=p.shape)  # no zeros, no ones
        state = jax.tree.map(
            lambda a: jnp.asarray(a, jnp.float64), jax.jit(self.method.init)(KEY, data)
        )
        params = dict(state.params)
        rates = {n: params.pop(n) for n in ('inner_lr',) if n in params}
        self.state = state.replace(params=jax.tree.map(move, params) | rates)
        self.batch = Episode(
            x_s=rng.normal(size=(tasks, ways * shots, 8, 8, 1)),
            y_s=np.tile(np.repeat(np.arange(ways), shots), (tasks, 1)),
            x_q=rng.normal(size=(tasks, ways * queries, 8, 8, 1)),
            y_q=np.tile(np.repeat(np.arange(ways), queries), (tasks, 1)),
            class_id=np.tile(np.arange(ways), (tasks, 1)),
        )
        self.batch = jax.tree.map(jnp.asarray, self.batch)
        self.keys = jax.random.split(KEY, tasks)

    @partial(jax.jit, static_argnums=0)
    def update(self, params):
        one = jax.tree.map(lambda a: a[None], (self.batch, self.keys))
        update = jax.vmap(self.method.update, (None, 0, 0), axis_name='devices')
        after, metrics = update(self.state.replace(params=params), *one)
        return jax.tree.map(lambda a: a[0], (after, metrics))

    def grads(self):
        after, _ = self.update(self.state.params)
        return jax.tree.map(lambda a, b: a - b, self.state.params, after.params)

    def grads_and_differences(self):
        """The gradient, and central differences of the reported loss by every entry."""
        flat, tree = ravel_pytree(self.state.params)
        bumps = 1e-6 * np.eye(flat.size)
        points = flat[None] + np.concatenate([bumps, -bumps, np.zeros((1, flat.size))])

        @jax.jit
        def at(points):
            def one(point):
                after, metrics = self.update(tree(point))
                return metrics['loss'], point - ravel_pytree(after.params)[0]

            losses, grads = jax.lax.map(one, points)
            return grads[-1], losses

        grads, losses = at(points)
        above, below = np.split(losses[:-1], 2)
        return tree(grads), tree(jnp.asarray((above - below) / 2e-6))


def worst(got, want):
    """The largest relative error (Euclidean, of a leaf) over the leaves."""
    error = jax.tree.map(lambda a, b: jnp.linalg.norm(a - b) / jnp.linalg.norm(b), got, want)
    assert all(np.isfinite(e) for e in jax.tree.leaves(error)), error
    return max(map(float, jax.tree.leaves(error)))


def body(params, x):
    """Features of the tiny net, batch norm by the statistics of x."""
    net = configs.build_net(configs.defaults('maml', 'synthetic', 'conv4').net).clone(**NET)
    return net.apply({'params': params}, x, train=False, transductive=True)


def dense(head, z):
    return z @ head['kernel'] + head['bias'][None]


def cross_entropy(logits, y):
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(y)), y])


def task_loss(params, x, y):
    return cross_entropy(dense(params['head'], body(params['net'], x)), y)
