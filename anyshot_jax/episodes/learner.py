"""A net with a linear head, as the methods see it that adapt one to every task."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from anyshot_jax.config import build_net, check_choices
from anyshot_jax.episodes.episodic import forward, init_net
from anyshot_jax.ops.product import product
from anyshot_jax.types import Array, InputError

HEADS = ('per_class', 'zero')
MOMENTUM = 0.9  # of the running statistics, which only `embed` uses


class Learner(NamedTuple):
    """Pure functions; `net` and `head` are parameter trees, `stats` batch norm's statistics.

    Batch norm inside a task never uses statistics of other tasks. Support items are normalised by
    those of the support set; queries 'inductive' by those of the support set too, 'transductive'
    by those of the query set, as in the papers' code. 'per_step' (MAML++) keeps running statistics
    of every inner step, over tasks, which are then given as `stats`.
    """

    init: Callable  # (key, x [N, ...]) -> (params, stats); no 'head' in params if it starts at 0
    embed: Callable  # (params, stats, x) -> features, outside of any task
    start: Callable  # (params, x_s, ways) -> {'net', 'head'}, from where a task is learnt
    rates_like: Callable  # (params, x) -> what learnt rates are shaped like
    widen: Callable  # (tree shaped like that, ways) -> shaped like a task's {'net', 'head'}
    support: Callable  # (net, x_s, stats=None) -> features [W*S, D], stats (None: of x_s)
    statistics: Callable  # (net, x_s) -> what `query` needs to know of the support set
    query: Callable  # (net, stats, x_q) -> features [W*Q, D]; {}: by the statistics of x_q


def build(config: ConfigDict) -> Learner:
    """The learner of config.net, config.method.head and config.method.batch_norm.

    `head`: 'per_class', a weight vector for each of config.train.ways classes (the papers'; tasks
    must have as many), or 'zero', which starts every task at 0 (Kao, Chiu, Chen, "MAML is a noisy
    contrastive learner in classification", ICLR 2022): any number of ways, and the order of the
    classes doesn't matter. Only the second inner step then moves the body. One learnt vector for
    all classes would be the same: softmax takes it away.

    Raises:
      InputError: an unknown head, or tasks that a head of its kind can't answer.
    """
    net, head, ways = build_net(config.net), config.method.head, config.train.ways
    inductive = config.method.batch_norm == 'inductive'
    check_choices(config.method, {'head': HEADS})
    for other, _ in config.eval.tasks if head == 'per_class' else ():
        _check_ways(other, ways)

    def init(key, x):
        params, stats = init_net(net, key, x)
        width = forward(net, params, stats, x, mode='inductive')[0].shape[1:]
        if len(width) != 1:
            raise InputError(f'config.method.name={config.method.name!r} needs flat features')
        if head == 'zero':
            return {'net': params}, stats
        kernel = nn.initializers.lecun_normal()(jax.random.fold_in(key, 1), (*width, ways))
        return {'net': params, 'head': {'kernel': kernel, 'bias': jnp.zeros(ways)}}, stats

    def embed(params, stats, x):
        mode = 'transductive' if config.method.batch_norm == 'transductive' else 'inductive'
        return forward(net, params['net'], stats, x, mode=mode)[0]

    def start(params, x, wanted):
        if head == 'per_class':
            _check_ways(wanted, ways)
            return params
        z = jax.eval_shape(support, params['net'], x)[0]
        zeros = {'kernel': (z.shape[-1], wanted), 'bias': (wanted,)}
        return {**params, 'head': {n: jnp.zeros(shape, z.dtype) for n, shape in zeros.items()}}

    def rates_like(params, x):
        return start(params, x, ways if head == 'per_class' else 1)

    def widen(tree, wanted):
        if head == 'per_class' or 'head' not in tree:
            return tree
        wide = lambda a: jnp.broadcast_to(a, (*a.shape[:-1], wanted))
        return {**tree, 'head': jax.tree.map(wide, tree['head'])}

    def support(params, x, stats=None):
        if stats is not None:
            return forward(net, params, stats, x, mode='inductive')
        return forward(net, params, {}, x, mode='statistics')

    def statistics(params, x):
        return support(params, x)[1] if inductive else {}

    def query(params, stats, x):
        return forward(net, params, stats, x, mode='inductive' if stats else 'transductive')[0]

    return Learner(init, embed, start, rates_like, widen, support, statistics, query)


def _check_ways(found: int, ways: int) -> None:
    if found != ways:
        raise InputError(
            f'the head has config.train.ways={ways} outputs, but the task is {found}-way: give '
            "config.eval.tasks the same ways, or set config.method.head='zero'"
        )


def dense(head: dict, z: Array) -> Array:
    """[N, D] -> scores [N, W]."""
    return product(z, head['kernel']) + head['bias'].reshape(1, -1)


def moved(stats: Any, batch: Any) -> Any:
    """Running statistics after those of another support set (or more: leading axes)."""

    def one(old, new):
        new = jax.lax.stop_gradient(new.reshape(-1, *old.shape).mean(0))
        return MOMENTUM * old + (1 - MOMENTUM) * new

    return jax.tree.map(one, stats, batch)


def each_task(function: Callable, batch: Any) -> Any:
    """vmap over a batch's tasks, but for one alone: weights without a task axis are faster."""
    if jax.tree.leaves(batch)[0].shape[0] > 1:
        return jax.vmap(function)(batch)
    result = function(jax.tree.map(lambda a: a[0], batch))
    return jax.tree.map(lambda a: a[None], result)
