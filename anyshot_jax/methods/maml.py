"""MAML and what grew from it: weights from which a few steps of gradient descent learn a task.

Finn, Abbeel, Levine, "Model-agnostic meta-learning for fast adaptation of deep networks", ICML
2017. By its fields it is also
- FOMAML (the same paper, section 5.2): order = 'first';
- ANIL (Raghu et al., ICLR 2020): adapt = 'head'; BOIL (Oh et al., ICLR 2021): adapt = 'body';
- Meta-SGD (Li et al., 2017): learn_lr = 'parameter';
- MAML++ (Antoniou et al., ICLR 2019): learn_lr = 'step_layer', multi_step_loss, second_order_from,
  batch_norm = 'per_step'.
"""

import jax
import jax.numpy as jnp

from anyshot_jax.config import check_choices
from anyshot_jax.episodes import learner
from anyshot_jax.episodes.episodic import cross_entropy, episodic
from anyshot_jax.ops.innerloop import adapt
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
BATCH_NORMS = ('inductive', 'transductive', 'per_step')
PARTS = {'all': ('net', 'head'), 'head': ('head',), 'body': ('net',)}
CHOICES = {
    'order': ('second', 'first'),
    'adapt': PARTS,
    'learn_lr': ('no', 'parameter', 'step_layer'),
}


def build(config, data):
    fields = config.method
    check_choices(fields, CHOICES)
    if fields.inner_steps < 1 or fields.eval_steps < 0:
        raise InputError('config.method.inner_steps must be >= 1 and eval_steps >= 0')
    by_step = fields.batch_norm == 'per_step'
    if by_step and fields.adapt == 'head':
        raise InputError("config.method.batch_norm='per_step' needs a body that adapts")
    net = learner.build(config)
    parts, inner_steps = PARTS[fields.adapt], fields.inner_steps

    def init(key, x):
        params, stats = net.init(key, x)
        shapes = {'parameter': lambda p: p.shape, 'step_layer': lambda p: (inner_steps,)}
        if shape := shapes.get(fields.learn_lr):
            like = net.rates_like(params, x)
            rate = lambda p: fields.inner_lr * jnp.ones(shape(p))  # jnp.full's type is weak
            params['inner_lr'] = jax.tree.map(rate, {n: like[n] for n in parts})
        if by_step:  # of the support set at every step, and of the queries at the end
            stats = jax.tree.map(lambda a: jnp.stack([a] * (inner_steps + 1)), stats)
        return params, {'net': stats, 'step': jnp.zeros(())}

    def rates(params, ways, step_of):
        """Learning rates for `adapt`. Steps beyond those of training have the last one's rate."""
        if fields.learn_lr == 'no':
            return fields.inner_lr
        if fields.learn_lr == 'parameter':
            return net.widen(params['inner_lr'], ways)
        return jax.tree.map(lambda r: r[step_of], params['inner_lr'])

    def solve(params, episode, *, steps, first_order=False, every_step=False, running=None):
        """Query scores after the last step (or every one: [steps, W*Q, W]), and statistics.

        The latter are those of the support set at the first step; or if by step, of all of them and
        of the queries. `running` ones stand in for the items' own then.
        """
        ways = episode.class_id.shape[0]
        weights = {n: p for n, p in params.items() if n != 'inner_lr'}
        task = net.start(weights, episode.x_s, ways)
        step_of = jnp.minimum(jnp.arange(steps), inner_steps - 1)
        lr = rates(params, ways, step_of)
        # A class's share of the mean loss is 1 / ways: the rates hold for those of training.
        lr = jax.tree.map(lambda r: r * (ways / config.train.ways), lr)
        if 'net' in parts:
            support = lambda p, own: net.support(p['net'], episode.x_s, own)
            of_query = jax.tree.map(lambda a: a[inner_steps], running)
            stats_of = lambda p: of_query or net.statistics(p['net'], episode.x_s)
            query = lambda p: net.query(p['net'], stats_of(p), episode.x_q)
        else:  # the body stays: one pass for all steps
            z_s, stats = net.support(task['net'], episode.x_s)
            z_q = net.query(task['net'], net.statistics(task['net'], episode.x_s), episode.x_q)
            support, query = (lambda p, own=None: (z_s, stats)), (lambda p: z_q)

        def loss(moving, own=None):
            p = {**task, **moving}
            z, stats = support(p, own)
            return cross_entropy(learner.dense(p['head'], z), episode.y_s)[0], stats

        def scores(moving):
            p = {**task, **moving}
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
        if by_step and running is None:
            last = net.support(end.params['net'], episode.x_q)[1]
            stats = jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), end.aux, last)
        return end.after if every_step else scores(end.params), stats

    def task_loss(params, episode, step, first_order):
        """Loss, metrics and the support set's statistics of one task."""
        multi = fields.multi_step_loss > 0
        scores, stats = solve(
            params, episode, steps=inner_steps, first_order=first_order, every_step=multi
        )
        if not multi:
            value, metrics = cross_entropy(scores, episode.y_q)
            return value, metrics, stats
        values, metrics = jax.vmap(cross_entropy, (0, None))(scores, episode.y_q)
        weights = step_weights(step / fields.multi_step_loss, inner_steps)
        return jnp.dot(weights, values), jax.tree.map(lambda m: m[-1], metrics), stats

    def loss(params, extra, batch, key):
        def mean(first_order):
            one = lambda episode: task_loss(params, episode, extra['step'], first_order)
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
        return solve(params, episode, steps=fields.eval_steps or inner_steps, running=running)[0]

    def embed(params, extra, x):
        stats = jax.tree.map(lambda a: a[0], extra['net']) if by_step else extra['net']
        return net.embed(params, stats, x)

    parts_of_method = {'init': init, 'embed': embed, 'predict': predict, 'loss': loss}
    return episodic(config, data, batch_norms=BATCH_NORMS, **parts_of_method)


def step_weights(done, steps):
    """Weights of the query losses after each inner step (Antoniou et al., section 4).

    All alike at first (done = 0); from done = 1 on the steps but the last have 0.03 / steps each.

    Returns:
      [steps], their sum is 1.
    """
    early = jnp.maximum(1 - done, 0.03) / steps
    return jnp.full(steps, early).at[-1].set(1 - (steps - 1) * early)
