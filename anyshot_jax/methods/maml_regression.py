"""MAML on functions: weights from which a few steps of descent fit a new one to a few points.

Finn, Abbeel, Levine, "Model-agnostic meta-learning for fast adaptation of deep networks", ICML
2017, section 5.1. With `inner_steps` = 0 it is the paper's baseline: the net trained on the points
of all functions at once, and adapted only when it is tried.
"""

from functools import partial

import jax
import jax.numpy as jnp

from anyshot_jax.config import build_net, check_choices
from anyshot_jax.episodes import drawable, sampling
from anyshot_jax.episodes.optim import build_optimizer
from anyshot_jax.episodes.update import gradient_update
from anyshot_jax.ops.innerloop import adapt
from anyshot_jax.runtime.devices import map_over_devices
from anyshot_jax.types import SQUARED_ERROR, InputError, Method, TrainState

REPORT = 'regression'
DEFAULTS = {
    'inner_steps': 1,
    'inner_lr': 0.01,
    'order': 'second',  # second | first
    'eval_steps': (0, 1, 5, 10),  # of descent, after which a test function's error is taken
    'eval_lr': 0.0,  # 0: inner_lr
}
TRACED = ('inner_lr',)
ORDERS = ('second', 'first')


def build(config, data):
    """MAML of config.net on functions.

    Args:
      config: of a run. data: functions of the roles train, val and test.
    Returns:
      The Method. Its extra: {}.
    Raises:
      InputError: a field that does not fit, or data that hold classes.
    """
    fields, train = config.method, config.train
    check_choices(fields, {'order': ORDERS})
    if fields.inner_steps < 0 or not fields.eval_steps or min(fields.eval_steps) < 0:
        raise InputError('config.method.inner_steps and eval_steps must be >= 0')
    for role in ('train', 'val', 'test'):
        drawable.check_functions(data, role, config.eval.tasks)
    net, tx = build_net(config.net), build_optimizer(config.optim, config.num_steps)

    def error(params, x, y):
        predicted = net.apply({'params': params}, x, train=True)
        return jnp.mean((predicted - y) ** 2)

    def descend(params, episode, *, steps, lr, after=None):
        """Gradient descent on the support points; `after` sees the weights after every step."""
        return adapt(
            lambda p: (error(p, episode.x_s, episode.y_s), None),
            params,
            steps=steps,
            lr=lr,
            first_order=fields.order == 'first',
            after=after,
        )

    def init(key, data):
        params = net.init(key, jnp.zeros((1, 1)), train=False)['params']
        return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), {})

    def sample(key, data):
        return sampling.sample_function(key, data.functions['train'], train.shots, train.queries)

    def loss(params, extra, batch, key):
        def one(episode):
            before = error(params, episode.x_q, episode.y_q)
            if not fields.inner_steps:
                return before, before
            end = descend(params, episode, steps=fields.inner_steps, lr=fields.inner_lr)
            return error(end.params, episode.x_q, episode.y_q), before

        after, before = jax.vmap(one)(batch)
        return after.mean(), ({'error_before': before.mean()}, extra)

    def predict(state, episode):
        """Predictions for every query point after each of eval_steps: [steps, Q, 1]."""
        f = lambda p: net.apply({'params': p}, episode.x_q, train=False)
        lr = fields.eval_lr or fields.inner_lr
        after_each = descend(
            state.params, episode, steps=max(fields.eval_steps), lr=lr, after=f
        ).after
        return jnp.concatenate([f(state.params)[None], after_each])[jnp.array(fields.eval_steps)]

    @partial(jax.jit, static_argnames=('count', 'devices'))
    def errors(state, functions, key, *, count, devices):
        def one(i, state, functions, key):
            key, found = jax.random.fold_in(key, i), {}
            for _, shots in config.eval.tasks:  # the same functions, whatever the shots
                episode = sampling.sample_function(key, functions, shots, config.eval.queries)
                off = jnp.mean((predict(state, episode) - episode.y_q[None]) ** 2, (1, 2))
                names = [_name(shots, steps) for steps in fields.eval_steps]
                found |= dict(zip(names, off, strict=True))
            return found

        return map_over_devices(one, count, devices, state, functions, key)

    def evaluate(state, data, key, role):
        count = config.eval.val_episodes if role == 'val' else config.eval.episodes
        devices = frozenset(jax.tree.leaves(state)[0].devices())
        values = errors(state, data.functions[role], key, count=count, devices=devices)
        names = [_name(shots, n) for _, shots in config.eval.tasks for n in fields.eval_steps]
        if role == 'val':  # the first chooses the best step: the task and the steps of training
            chosen = _name(train.shots, fields.inner_steps or max(fields.eval_steps))
            names.sort(key=lambda name: name != chosen)
        return {name: values[name] for name in names}

    return Method(
        init=init,
        sample=sample,
        update=gradient_update(loss, tx, task_chunk=config.task_chunk),
        evaluate=evaluate,
        predict=predict,
        embed=None,
        measure=SQUARED_ERROR,
    )


def _name(shots: int, steps: int) -> str:
    return f'{shots}-shot after {steps} step{"" if steps == 1 else "s"}'
