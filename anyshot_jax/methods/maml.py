"""MAML and what grew from it: weights from which a few steps of gradient descent learn a task.

Finn, Abbeel, Levine, "Model-agnostic meta-learning for fast adaptation of deep networks", ICML
2017. By its fields it is also
- FOMAML (the same paper, section 5.2): order = 'first';
- ANIL (Raghu et al., ICLR 2020): adapt = 'head'; BOIL (Oh et al., ICLR 2021): adapt = 'body';
- Meta-SGD (Li et al., 2017): learn_lr = 'parameter';
- MAML++ (Antoniou et al., ICLR 2019): learn_lr = 'step_layer', multi_step_loss, second_order_from,
  batch_norm = 'per_step'.
"""

from functools import partial

import jax
import jax.numpy as jnp

from anyshot_jax.config import check_choices
from anyshot_jax.episodes import learner
from anyshot_jax.episodes.episodic import cross_entropy, episodic
from anyshot_jax.ops.innerloop import adapt
from anyshot_jax.ops.product import product
from anyshot_jax.types import InputError

DEFAULTS = {
    # inductive | transductive (the papers') | per_step (MAML++'s); see learner.Learner
    'batch_norm': 'inductive',
    'head': 'per_class',  # per_class (the papers') | zero; see learner.build
    'inner_steps': 1,
    'inner_lr': 0.4,
    'eval_steps': 0,  # 0: as many as inner_steps
    'order': 'second',  # second | first
    'adapt': 'all',  # all | head | body
    'learn_lr': 'no',  # no | parameter | step_layer
    'multi_step_loss': 0,  # steps of training in which the loss fades to that after the last step
    'second_order_from': 0,  # steps of training before which the order is first
    'remat': False,  # compute inner steps again for the outer gradient: less memory, more time
}
TRACED = ('inner_lr',)
BATCH_NORMS = ('inductive', 'transductive', 'per_step')
PARTS = {'all': ('net', 'head'), 'head': ('head',), 'body': ('net',)}
CHOICES = {
    'order': ('second', 'first'),
    'adapt': PARTS,
    'learn_lr': ('no', 'parameter', 'step_layer'),
}


def build(config, data):
    """MAML of config.net on few-shot tasks.

    Args:
      config: of a run. data: with the roles that episodes are drawn from.
    Returns:
      The Method. Its extra: 'net', running statistics of batch norm ([inner_steps + 1, ...] if
      batch_norm='per_step'), and 'step', the training steps that were taken.
    Raises:
      InputError: a field that can't be, or data that can't give the episodes.
    """
    fields = config.method
    _check(fields)
    net = learner.build(config)
    by_step = fields.batch_norm == 'per_step'

    def loss(params, extra, batch, key):
        def mean(first_order):
            one = lambda e: task_loss(config, net, params, e, extra['step'], first_order)
            value, metrics, stats = learner.each_task(one, batch)
            return value.mean(), jax.tree.map(jnp.mean, metrics), stats

        first_order = fields.order == 'first'
        if first_order or not fields.second_order_from:
            value, metrics, stats = mean(first_order)
        else:
            early = extra['step'] < fields.second_order_from
            value, metrics, stats = jax.lax.cond(early, lambda: mean(True), lambda: mean(False))
        extra = {'net': learner.moved(extra['net'], stats), 'step': extra['step'] + 1}
        return value, (metrics, extra)

    def predict(params, extra, episode):
        running = extra['net'] if by_step else None
        steps = fields.eval_steps or fields.inner_steps
        return solve(config, net, params, episode, steps=steps, running=running)[0]

    def embed(params, extra, x):
        stats = jax.tree.map(lambda a: a[0], extra['net']) if by_step else extra['net']
        return net.embed(params, stats, x)

    init = partial(init_params, fields, net)
    parts = {'init': init, 'embed': embed, 'predict': predict, 'loss': loss}
    return episodic(config, data, batch_norms=BATCH_NORMS, **parts)


def init_params(fields, net: learner.Learner, key, x) -> tuple[dict, dict]:
    """Parameters {'net', 'head', perhaps 'inner_lr'}, and the extra state of `build`."""
    params, stats = net.init(key, x)
    shapes = {'parameter': lambda p: p.shape, 'step_layer': lambda p: (fields.inner_steps,)}
    if shape := shapes.get(fields.learn_lr):
        like = net.rates_like(params, x)
        rate = lambda p: fields.inner_lr * jnp.ones(shape(p))  # jnp.full's type is weak
        params['inner_lr'] = jax.tree.map(rate, {n: like[n] for n in PARTS[fields.adapt]})
    if fields.batch_norm == 'per_step':  # of the support set at every step, and of the queries
        stats = jax.tree.map(lambda a: jnp.stack([a] * (fields.inner_steps + 1)), stats)
    return params, {'net': stats, 'step': jnp.zeros(())}


def rates(config, net: learner.Learner, params, ways: int, step_of):
    """Learning rates for `adapt`; steps beyond those of training have the last one's rate.

    Args:
      step_of: [steps] int, the step of training whose rate each step has.
    """
    fields = config.method
    if fields.learn_lr == 'no':
        lr = fields.inner_lr
    elif fields.learn_lr == 'parameter':
        lr = net.widen(params['inner_lr'], ways)
    else:
        lr = jax.tree.map(lambda r: r[step_of], params['inner_lr'])
    # A class's share of the mean loss is 1 / ways: the rates hold for those of training.
    return jax.tree.map(lambda r: r * (ways / config.train.ways), lr)


def forward_passes(net: learner.Learner, task, episode, *, moves: bool, query_stats):
    """Features of a task's items as functions of the parameters that are adapted.

    Args:
      task: parameters before the first step. moves: the body is adapted; else one pass serves all
        steps. query_stats: running statistics of the queries, or none: the items' own.
    Returns:
      support: (params, running statistics or None) -> (features, statistics), and
      query: params -> features.
    """
    x_s, x_q = episode.x_s, episode.x_q
    if moves:
        support = lambda p, running=None: net.support(p['net'], x_s, running)
        stats_of = lambda p: query_stats or net.statistics(p['net'], x_s)
        return support, lambda p: net.query(p['net'], stats_of(p), x_q)
    z_s, stats = net.support(task['net'], x_s)
    z_q = net.query(task['net'], net.statistics(task['net'], x_s), x_q)
    return (lambda p, running=None: (z_s, stats)), (lambda p: z_q)


def solve(
    config, net, params, episode, *, steps, first_order=False, every_step=False, running=None
):
    """Adapts to the support set and scores the queries.

    Args:
      every_step: scores after every step. running: statistics by step that stand in for the items'
        own, or None.
    Returns:
      Scores after the last step [W*Q, W] (or every one: [steps, W*Q, W]), and the statistics of the
      support set at the first step; or if by step, of all of them and of the queries.
    """
    fields, parts = config.method, PARTS[config.method.adapt]
    ways = episode.class_id.shape[0]
    weights = {n: p for n, p in params.items() if n != 'inner_lr'}
    task = net.start(weights, episode.x_s, ways)
    step_of = jnp.minimum(jnp.arange(steps), fields.inner_steps - 1)
    lr = rates(config, net, params, ways, step_of)
    query_stats = jax.tree.map(lambda a: a[fields.inner_steps], running)
    moves = 'net' in parts
    support, query = forward_passes(net, task, episode, moves=moves, query_stats=query_stats)

    def loss(adapted, running=None):
        p = {**task, **adapted}
        z, stats = support(p, running)
        return cross_entropy(learner.dense(p['head'], z), episode.y_s)[0], stats

    def scores(adapted):
        p = {**task, **adapted}
        return learner.dense(p['head'], query(p))

    end = adapt(
        loss,
        {n: task[n] for n in parts},
        steps=steps,
        lr=lr,
        per_step=fields.learn_lr == 'step_layer',
        inputs=jax.tree.map(lambda a: a[step_of], running),
        first_order=first_order,
        after=scores if every_step else None,
        remat=fields.remat,
    )
    stats = jax.tree.map(lambda a: a[0], end.aux)
    if fields.batch_norm == 'per_step' and running is None:
        last = net.support(end.params['net'], episode.x_q)[1]
        stats = jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), end.aux, last)
    return end.after if every_step else scores(end.params), stats


def task_loss(config, net, params, episode, step, first_order: bool):
    """Loss, metrics and the support set's statistics of one task at a training step."""
    multi, steps = config.method.multi_step_loss, config.method.inner_steps
    scores, stats = solve(
        config, net, params, episode, steps=steps, first_order=first_order, every_step=multi > 0
    )
    if multi <= 0:
        value, metrics = cross_entropy(scores, episode.y_q)
        return value, metrics, stats
    values, metrics = jax.vmap(cross_entropy, (0, None))(scores, episode.y_q)
    weights = step_weights(step / multi, steps)
    return product(weights, values), jax.tree.map(lambda m: m[-1], metrics), stats


def step_weights(done, steps):
    """Weights of the query losses after each inner step (Antoniou et al., section 4).

    All alike at first (done = 0); from done = 1 on the steps but the last have 0.03 / steps each.

    Returns:
      [steps], their sum is 1.
    """
    early = jnp.maximum(1 - done, 0.03) / steps
    return jnp.full(steps, early).at[-1].set(1 - (steps - 1) * early)


def _check(fields) -> None:
    check_choices(fields, CHOICES)
    if fields.inner_steps < 1 or fields.eval_steps < 0:
        raise InputError('config.method.inner_steps must be >= 1 and eval_steps >= 0')
    if fields.batch_norm == 'per_step' and fields.adapt == 'head':
        raise InputError("config.method.batch_norm='per_step' needs a body that adapts")
