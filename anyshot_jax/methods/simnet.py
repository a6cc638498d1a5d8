"""A net that tells whether two items are of one class: learnt on base classes, used on novel ones.

SimNet of Chen, Niu, Liu, Zhang, "Weak-shot fine-grained classification via similarity transfer",
NeurIPS 2021, section 3.2. A unit is a batch from base classes, of which all ordered pairs (an item
with itself too) are learnt from, and one from few web classes, whose pairs go through the same
batch statistics and, with `adversary` > 0, make a discriminator tell the domains apart, which the
net learns to fool. Both are updated in one step, on one forward pass; labels of web items serve to
draw few classes and are never learnt from.

Differs from the paper's code: every step draws its classes and items anew (no epochs), momentum is
kept, and an exhausted class gives items a second time.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from anyshot_jax.config import check_above
from anyshot_jax.episodes import augment, sampling
from anyshot_jax.episodes.optim import build_optimizer
from anyshot_jax.nets.pair_head import Judge, PairHead
from anyshot_jax.runtime.devices import over_devices
from anyshot_jax.stages.handover import export_net, start_from
from anyshot_jax.stages.similarity import (
    KEPT_BACK,
    Backbone,
    backbone,
    kept_back,
    learnt_from,
    novel,
)
from anyshot_jax.types import SCORE, Array, InputError, Method, TrainState

DEFAULTS = {
    'batch_norm': 'inductive',
    'start_from': '',  # the stage that pretrained config.net; '': from random numbers
    'widths': (4096, 2048, 2048),  # of the layers on pairs; the paper's for 2,048 features
    'adversary': 0.1,  # the weight beta of the discriminator's loss; 0: none
    'judge_rate': 1.0,  # the discriminator's learning rate over the net's
    'base_ways': 20,  # classes that a base batch is drawn from
    'web_ways': 2,
    'batch_items': 50,  # of each of the two batches
    'positive_weight': 1.0,  # of pairs of one class in the loss
    'self_pairs': True,  # an item with itself is a pair
    'keep_back': 0.0,  # share of the base classes never learnt from: `weigh` judges by them
    'eval_items': 10,  # of each of at most eval_ways classes, whose pairs are judged together
    'eval_ways': 10,
}
TRACED = ('positive_weight', 'judge_rate')
ROLES = ('base', 'web')


class Batches(NamedTuple):
    """One unit."""

    x: Array  # [2 n, ...], base items first
    y: Array  # [n] int32, of the base items


class Nets(NamedTuple):
    body: Backbone
    head: PairHead
    judge: Judge


class Optimisers(NamedTuple):
    sim: optax.GradientTransformation  # of the net with its head
    judge: optax.GradientTransformation


def build(config, data):
    """SimNet on the roles base (clean) and web (noisy labels).

    Args:
      config: of a run. data: with the roles base, web and test; perhaps test_base and val.
    Returns:
      The Method. Its parameters: 'net', 'head' and 'judge' (the discriminator); its extra: 'net'
      and 'head', their batch statistics.
    Raises:
      InputError: a role that is missing, or a field that can't be.
    """
    fields = config.method
    _check(config, data)
    nets = Nets(backbone(config.net, 'simnet'), PairHead(tuple(fields.widths)), Judge())
    optimisers = build_optimisers(config)
    # Rounded up, so that runs that differ by an item share their compiled program.
    most = {role: -(-int(max(data.roles[role].count)) // 16) * 16 for role in ROLES}

    def embed(state, x):
        return nets.body.apply(state.params['net'], state.extra['net'], x, 'inductive')[0]

    def similarity(state, a, b):
        variables = {'params': state.params['head'], **state.extra['head']}
        logits = nets.head.apply(variables, a[None], b[None], train=False)[0]
        return jax.nn.softmax(logits[0])[..., 1]

    scores = jax.jit(partial(pair_scores, config, embed, similarity), static_argnames='items')

    def evaluate(state, data, key, role):
        values = {}
        names = {'': role, ', base classes': 'test_base' if role == 'test' else ''}
        for end, name in names.items():
            if name in data.roles:
                items = min(fields.eval_items, int(min(data.roles[name].count)))
                means = scores(state, data.roles[name], key, items=items)
                values |= {n + end: means[n] for n in ('F1', 'precision', 'recall')}
        return values

    return Method(
        init=partial(init_state, fields, nets, optimisers),
        sample=partial(draw_batches, fields, config.augment.to_dict(), most),
        update=partial(update, fields, nets, optimisers),
        evaluate=evaluate,
        predict=None,
        embed=embed,
        similarity=similarity,
        export=lambda state, data, key: {
            **export_net(config.net, {n: state.params[n] for n in ('net', 'head')}, state.extra),
            KEPT_BACK: kept_back(len(data.roles['base'].count), fields.keep_back)[0],
        },
        measure=SCORE,
    )


def build_optimisers(config) -> Optimisers:
    """Optimisers of config.optim and of the discriminator, whose learning rate is another one."""
    slower = config.optim.copy_and_resolve_references()
    slower.update({'learning_rate': config.optim.learning_rate * config.method.judge_rate})
    slower.update({'layer_rates': (), 'frozen': ()})
    both = (build_optimizer(optim, config.num_steps) for optim in (config.optim, slower))
    return Optimisers(*both)


def init_state(fields, nets: Nets, optimisers: Optimisers, key, data) -> TrainState:
    """The state before the first step; from an earlier stage's net with fields.start_from."""
    keys = jax.random.split(key, 3)
    x = data.roles['base'].x[:2]
    params, stats = nets.body.init(keys[0], x)
    if fields.start_from:
        params, stats = start_from(data, fields.start_from, params, stats)
    z = nets.body.apply(params, stats, x, 'inductive')[0][None]
    extra = dict(nets.head.init(keys[1], z, z, train=False))
    sim = {'net': params, 'head': extra.pop('params')}
    relation = jnp.zeros((1, fields.widths[max(len(fields.widths) - 2, 0)]))
    params = {**sim, 'judge': nets.judge.init(keys[2], relation)['params']}
    opt_state = optimisers.sim.init(sim), optimisers.judge.init(params['judge'])
    return TrainState(jnp.zeros((), jnp.int32), params, opt_state, {'net': stats, 'head': extra})


def draw_batches(fields, augmentation: dict, most: dict[str, int], key, data) -> Batches:
    """A batch from few base classes and one from few web classes.

    Args:
      augmentation: config.augment. most: by role, at least the largest count of a class.
    """
    keys = jax.random.split(key, 3)
    ways = {'base': fields.base_ways, 'web': fields.web_ways}
    datasets = [learnt_from(data.roles['base'], fields.keep_back), data.roles['web']]
    parts = [
        sampling.draw_items(k, d, min(ways[role], len(d.count)), fields.batch_items, most[role])
        for k, d, role in zip(keys[:2], datasets, ROLES, strict=True)
    ]
    x = jnp.concatenate([d.x[row] for d, (row, _) in zip(datasets, parts, strict=True)])
    if any(augmentation.values()):
        x = augment.affine(keys[2], x, **augmentation)
    return Batches(x, parts[0][1])


def forward(nets: Nets, sim, extra, x):
    """Logits and relation features [B, 2, n, n, ...] of x [B, 2 n, ...], base first."""
    z, stats = nets.body.apply(sim['net'], extra['net'], x, 'train')
    z = z.reshape(z.shape[0], 2, -1, z.shape[-1])
    variables = {'params': sim['head'], **extra['head']}
    (logits, relation), head_stats = nets.head.apply(
        variables, z, z, train=True, mutable=list(extra['head'])
    )
    return logits, relation, {'net': stats, 'head': dict(head_stats)}


def update(fields, nets: Nets, optimisers: Optimisers, state, batch: Batches, key):
    """One step of the net and one of the discriminator, on the same forward pass."""
    sim = {name: state.params[name] for name in ('net', 'head')}

    def sim_loss(sim):
        logits, relation, extra = forward(nets, sim, state.extra, batch.x)
        value, metrics = pair_loss(logits[:, 0], batch.y, fields.positive_weight, fields.self_pairs)
        fooled, right = domain_loss(nets.judge, state.params['judge'], relation)
        metrics |= {'pair_loss': value, 'domain_loss': fooled, 'domain_accuracy': right}
        return value - fields.adversary * fooled, (metrics, extra, relation)

    (value, (metrics, extra, relation)), grads = jax.value_and_grad(sim_loss, has_aux=True)(sim)
    relation = jax.lax.stop_gradient(relation)
    # The discriminator's own step, on what the net gave before its step.
    judge_loss = lambda p: domain_loss(nets.judge, p, relation)[0]
    judge_grads = jax.grad(judge_loss)(state.params['judge'])
    metrics['loss'] = value
    grads, judge_grads, metrics, extra = over_devices((grads, judge_grads, metrics, extra))
    metrics['grad_norm'] = optax.tree.norm(grads)
    step, opt_state = optimisers.sim.update(grads, state.opt_state[0], sim)
    params = optax.apply_updates(sim, step)
    params['judge'], judge_state = state.params['judge'], state.opt_state[1]
    if fields.adversary:
        step, judge_state = optimisers.judge.update(judge_grads, judge_state, params['judge'])
        params['judge'] = optax.apply_updates(params['judge'], step)
    return TrainState(state.step + 1, params, (opt_state, judge_state), extra), metrics


def pair_scores(config, embed: Callable, similarity: Callable, state, dataset, key, items: int):
    """Precision, recall and F1 [E] of 'same class' among all pairs of `items` of some classes."""
    num = dataset.offset.shape[0]
    ways = min(config.method.eval_ways, num)

    def one(key):
        keys = jax.random.split(key, 1 + ways)
        classes = sampling.choose(keys[0], num, ways)
        draw = jax.vmap(sampling.choose, (0, 0, None))
        item = draw(keys[1:], dataset.count[classes], items)
        row = (dataset.offset[classes][:, None] + item).reshape(-1)
        z = embed(state, dataset.x[row])
        same = dataset.label[row][:, None] == dataset.label[row][None, :]
        predicted = similarity(state, z, z) > 0.5
        hits, positives, pairs = (jnp.sum(a) for a in (predicted & same, predicted, same))
        return {'F1': 2 * hits / (positives + pairs), 'precision': hits / jnp.maximum(positives, 1),
                'recall': hits / pairs}  # fmt: skip

    return jax.lax.map(one, jax.random.split(key, config.eval.episodes))


def pair_loss(
    logits: Array, y: Array, positive_weight: float, self_pairs: bool
) -> tuple[Array, dict[str, Array]]:
    """Cross-entropy of 'same class' over all pairs of each batch.

    Args:
      logits: [B, n, n, 2]. y: [B, n] labels. self_pairs: whether an item with itself counts.
    Returns:
      The weighted mean [], finite without a positive pair, and {'accuracy', 'F1'} of the pairs; F1
      is 0 where there is neither a positive pair nor one taken for it.
    """
    same = y[:, :, None] == y[:, None, :]
    counts = jnp.ones(same.shape) - (0 if self_pairs else jnp.eye(y.shape[1])[None])
    log_prob = jax.nn.log_softmax(logits)
    value = -jnp.where(same, log_prob[..., 1], log_prob[..., 0])
    weight = counts * jnp.where(same, positive_weight, 1.0)
    predicted = logits[..., 1] > logits[..., 0]
    hits, positives, pairs = (jnp.sum(counts * a) for a in (predicted & same, predicted, same))
    metrics = {
        'accuracy': jnp.sum(counts * (predicted == same)) / jnp.maximum(jnp.sum(counts), 1),
        'F1': 2 * hits / jnp.maximum(positives + pairs, 1),
    }
    return jnp.sum(weight * value) / jnp.maximum(jnp.sum(weight), 1e-9), metrics


def domain_loss(judge: Judge, params, relation: Array) -> tuple[Array, Array]:
    """The discriminator's cross-entropy and accuracy on relations [B, 2, n, n, d], base first."""
    logits: Any = judge.apply({'params': params}, relation)
    log_prob = jax.nn.log_softmax(logits)
    base, web = log_prob[:, 0, ..., 0], log_prob[:, 1, ..., 1]
    sure = jnp.log(0.5)
    right = (jnp.mean(base > sure) + jnp.mean(web > sure)) / 2
    return -(base.mean() + web.mean()) / 2, right


def _check(config, data) -> None:
    """Raises InputError for what can't be learnt from; names the field."""
    fields = config.method
    novel(data, 'simnet')
    if 'base' not in data.roles:
        raise InputError("config.method.name='simnet' needs the role base: clean classes")
    if not 0 <= fields.keep_back < 1:
        raise InputError(f'config.method.keep_back={fields.keep_back} must be >= 0 and < 1')
    if len(learnt_from(data.roles['base'], fields.keep_back).count) < 2:
        raise InputError("role 'base' has one class to learn from, SimNet needs two (keep_back?)")
    if fields.batch_norm != 'inductive':
        raise InputError("config.method.batch_norm must be 'inductive'")
    if not fields.widths or min(fields.widths) < 1:
        raise InputError(f'config.method.widths={tuple(fields.widths)}: need numbers >= 1')
    if min(fields.base_ways, fields.eval_ways, fields.batch_items) < 2 or fields.web_ways < 1:
        raise InputError(
            'config.method.base_ways, eval_ways and batch_items must be >= 2 and web_ways >= 1'
        )
    check_above(fields, positive_weight=0, eval_items=0)
    if fields.adversary < 0:
        raise InputError(f'config.method.adversary={fields.adversary} must be >= 0')
