"""Anomaly multi-classification: the type of a defect, from one, two or five images of each.

After arXiv 2406.05645: what distinguishes types is learnt on synthetic defects (the role train,
`data/pseudo/`), stopped before it knows those too well, and carried over to the real ones. Items
are residuals from what is normal (config.residual). By `loss`:
- 'prototype': `prototype`;
- 'infonce' (the paper's): `infonce`;
- 'relation' (its baseline): `relation`.
Queries are told by the mean of their class's embeddings, or of its pairs' logits; with
`prototypes='pixels'` (the paper's) by their class's mean image. `adapt_steps` fine-tunes on the
shots of each task, each being told by the others; one shot has no others.

Real types are drawn so that support and query share no group (config.data.group), all others of
their types are queries. A type with no more groups than shots is left out there, and said.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from absl import logging

from anyshot_jax.config import build_net, check_above, check_choices
from anyshot_jax.defects.draws import askable, real_types
from anyshot_jax.episodes import drawable, sampling
from anyshot_jax.episodes.episodic import cross_entropy, episode_accuracies, forward, init_net
from anyshot_jax.episodes.optim import build_optimizer
from anyshot_jax.episodes.update import gradient_update
from anyshot_jax.ops.contrastive import pair_cross_entropy
from anyshot_jax.ops.distance import cosine, unit
from anyshot_jax.ops.product import product
from anyshot_jax.ops.prototype import class_means
from anyshot_jax.types import Data, Episode, InputError, Method, TrainState

REPORT = 'defect_types'
DEFAULTS = {
    'loss': 'prototype',
    'temperature': 0.1,  # of the cosines in the loss (the paper: 0.07)
    'shots': (1, 2, 5),  # examples of each real type
    'draws': 100,  # of them
    'prototypes': 'embeddings',  # their mean | pixels: of the mean image (residual.average_shots)
    'adapt_steps': 0,  # of Adam on each task's shots (the paper: 45)
    'adapt_lr': 1e-4,
}
TRACED = ('temperature',)

BLOCK, PAIR_WIDTH = 1 << 26, 512  # numbers of pairs at once; of a pair at a place
EXPORTED = 20  # of the test's draws, as rows of its items: '2-shot support' and '2-shot answers'


class Judge(NamedTuple):
    """A loss and the scores that go with it, of one net."""

    # (params, extra, x_s, y_s, x_q, ways, mode='inductive') -> scores [Q, W], extra
    scores: Callable
    loss: Callable  # (params, extra, episode) -> (scalar, (metrics, extra))
    left_out: Callable  # (params, extra, x, y, ways) -> loss of shots, each given the others


def build(config, data):
    """Classifier of defect types on residuals.

    Args:
      config: of a run. data: test with groups (and its mean images with prototypes='pixels'); train
        and val, synthetic defects, if steps are taken.
    Returns:
      The Method. Its extra: the net's batch statistics.
    Raises:
      InputError: a field that can't be, or data without groups or with too few types.
    """
    fields, net = config.method, build_net(config.net)
    _check(config, data)
    judge = JUDGES[fields.loss](net, fields.temperature)
    pairs = fields.loss == 'relation'
    role_of = lambda role: data.roles[role] if role in data.roles else data.roles['test']
    tx = build_optimizer(config.optim, config.num_steps)

    def init(key, data):
        x = role_of('train').x[:2]
        params, extra = init_net(net, key, *((x, x) if pairs else (x,)))
        return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), extra)

    def embed(state, x):
        return forward(net, state.params, state.extra, x, mode='inductive')[0]

    def predict(state, episode: Episode):
        ways = episode.class_id.shape[0]
        return judge.scores(state.params, state.extra, *episode[:3], ways)[0]

    def loss(params, extra, batch, key):
        values, (metrics, extras) = jax.vmap(judge.loss, (None, None, 0))(params, extra, batch)
        mean = partial(jax.tree.map, lambda a: a.mean(0))
        return values.mean(), (mean(metrics), mean(extras))

    accuracies = jax.jit(
        partial(episode_accuracies, predict, tasks=config.eval.tasks, queries=config.eval.queries),
        static_argnames=('count', 'devices'),
    )
    answers = lambda *args: judge.scores(*args)[0]
    drawn = jax.jit(
        partial(real_types, answers, partial(adapted, fields, judge), most=max(fields.shots)),
        static_argnames=('shots', 'types', 'draws', 'devices'),
    )

    def draws_of(state, data, key, shots, draws):
        dataset, types = data.roles['test'], askable(data.roles['test'], shots)
        static = {'types': types, 'draws': draws, 'devices': frozenset(dataset.x.devices())}
        averaged = data.averaged if fields.prototypes == 'pixels' else {}
        data = Data({'test': dataset}, averaged=averaged)
        return drawn(state, data, key, shots=shots, **static)

    def evaluate(state, data, key, role):
        if role != 'test':
            dataset, count = data.roles[role], config.eval.val_episodes
            devices = frozenset(dataset.x.devices())
            return accuracies(state, dataset, key, count=count, devices=devices)
        values = {}
        for shots in fields.shots:
            micro, macro, *_ = draws_of(state, data, key, shots, fields.draws)
            values |= {f'{shots}-shot macro': macro, f'{shots}-shot micro': micro}
        return values

    def export(state, data, key):
        arrays = {}
        for shots in fields.shots:
            draws = min(fields.draws, EXPORTED)
            *_, support, answer = draws_of(state, data, key, shots, draws)
            arrays |= {f'{shots}-shot support': support, f'{shots}-shot answers': answer}
        return arrays

    task = {'ways': config.train.ways, 'shots': config.train.shots, 'queries': config.train.queries}
    return Method(
        init=init,
        sample=lambda key, data: sampling.sample_episode(key, data.roles['train'], **task),
        update=gradient_update(loss, tx, task_chunk=config.task_chunk),
        evaluate=evaluate,
        predict=predict,
        embed=None if pairs else embed,
        export=export,
    )


def prototype(net, temperature: float) -> Judge:
    """Cross-entropy of the cosines with the mean of each class's shots."""

    def scores(params, extra, x_s, y_s, x_q, ways, mode='inductive'):
        z, extra = forward(net, params, extra, jnp.concatenate([x_s, x_q]), mode=mode)
        z_s, z_q = jnp.split(z, [len(y_s)])
        return cosine(z_q, class_means(z_s, y_s, ways)), extra

    def loss(params, extra, episode: Episode):
        x_s, y_s, x_q, y_q, class_id = episode
        logits, extra = scores(params, extra, x_s, y_s, x_q, class_id.shape[0], 'train')
        value, metrics = cross_entropy(logits / temperature, y_q)
        return value, (metrics, extra)

    def left_out(params, extra, x, y, ways):
        diagonal = jnp.eye(len(y), dtype=bool)
        z = unit(forward(net, params, extra, x, mode='inductive')[0])
        member = jax.nn.one_hot(y, ways)
        others = (member[None] * ~diagonal[..., None]).swapaxes(1, 2)  # [N, W, N]
        means = product(others, jax.lax.stop_gradient(z))
        logits = jnp.einsum('nd,nwd->nw', z, unit(means), precision='highest') / temperature
        return cross_entropy(logits, y)[0]

    return Judge(scores, loss, left_out)


def infonce(net, temperature: float) -> Judge:
    """The same with every shot by itself, which is not moved by the gradient (the paper's)."""

    def loss(params, extra, episode: Episode):
        x_s, y_s, x_q, y_q, class_id = episode
        z, extra = forward(net, params, extra, jnp.concatenate([x_s, x_q]), mode='train')
        z_s, z_q = jnp.split(unit(z), [len(y_s)])
        # Every shot of a class is a key of a set with one of each class.
        sets = jax.lax.stop_gradient(z_s).reshape(class_id.shape[0], -1, z_s.shape[-1])
        logits = jnp.einsum('qd,wsd->sqw', z_q, sets, precision='highest') / temperature
        value, metrics = cross_entropy(logits, jnp.broadcast_to(y_q, logits.shape[:2]))
        return value, (metrics, extra)

    return prototype(net, temperature)._replace(loss=loss)


def relation(net, temperature: float) -> Judge:
    """Binary cross-entropy of all pairs, a right one weighing W - 1; logits know no temperature."""

    def scores(params, extra, x_s, y_s, x_q, ways, mode='inductive'):
        one = lambda x: forward(net, params, extra, x_s, x[None], mode=mode)[0][0]
        logits = jax.lax.map(one, x_q, batch_size=queries_at_once(x_s))
        return class_means(logits.T, y_s, ways).T, extra

    def loss(params, extra, episode: Episode):
        x_s, y_s, x_q, y_q, class_id = episode
        ways = class_id.shape[0]
        logits, extra = forward(net, params, extra, x_s, x_q, mode='train')
        same = y_q[:, None] == y_s[None]
        right = jnp.argmax(class_means(logits.T, y_s, ways), 0) == y_q
        value = pair_cross_entropy(logits, same, ways - 1.0)
        return value, ({'accuracy': right.mean()}, extra)

    def left_out(params, extra, x, y, ways):
        diagonal = jnp.eye(len(y), dtype=bool)
        same = y[:, None] == y[None]  # pairs of an item with itself weigh 0
        logits = forward(net, params, extra, x, x, mode='inductive')[0]
        return pair_cross_entropy(logits, same, ways - 1.0, jnp.where(diagonal, 0.0, 1.0))

    return Judge(scores, loss, left_out)


JUDGES = {'prototype': prototype, 'infonce': infonce, 'relation': relation}
CHOICES = {'loss': JUDGES, 'prototypes': ('embeddings', 'pixels')}


def adapted(fields, judge: Judge, state, x, y, ways: int):
    """The parameters after fine-tuning on shots x [N, ...], each given the others."""
    if not fields.adapt_steps:
        return state.params
    adapter = optax.adam(fields.adapt_lr)

    def step(carry, _):
        params, opt_state = carry
        grads = jax.grad(judge.left_out)(params, state.extra, x, y, ways)
        updates, opt_state = adapter.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    start = state.params, adapter.init(state.params)
    return jax.lax.scan(step, start, length=fields.adapt_steps)[0][0]


def queries_at_once(x_s) -> int:
    """Number of queries that meet the support [S, ...] at once: pairs of maps take much memory."""
    numbers = PAIR_WIDTH * x_s[0].size // x_s.shape[-1]  # of a pair
    return max(1, BLOCK // (numbers * len(x_s)))


def _check(config, data) -> None:
    fields = config.method
    check_choices(fields, CHOICES)
    check_above(fields, temperature=0, draws=0, adapt_steps=-1)
    if not fields.shots or min(fields.shots) < 1:
        raise InputError(f'config.method.shots={fields.shots}: need numbers >= 1, like (1, 2, 5)')
    if any(config.augment.values()) or config.eval.retrieval:
        raise InputError(
            "'anomaly' supports neither augmentation nor retrieval: leave config.augment at 0 and "
            'config.eval.retrieval=False'
        )
    test = data.roles.get('test')
    if test is None or test.group is None:
        raise InputError(
            'anomaly distinguishes types of defect (role test, with groups): use '
            'config.data.name=mvtec and config.residual.encoder'
        )
    if fields.prototypes == 'pixels':
        averaged = data.averaged
        lack = [k for k in fields.shots if len(averaged.get(f'{k}-shot', ())) < fields.draws]
        if lack:
            raise InputError(
                f"config.method.prototypes='pixels' needs {fields.draws} mean images of "
                f'{lack[0]} shots: set config.residual.average_shots={tuple(fields.shots)} and '
                f'config.residual.average_draws={fields.draws}'
            )
    for shots in fields.shots:
        enough = [test.names[c] for c in askable(test, shots)]
        too_few = [name for name in test.names if name not in enough]
        if len(enough) < 2:
            raise InputError(
                f'config.method.shots={fields.shots}: {shots} leave fewer than two types of defect '
                f'with a part to ask for ({", ".join(enough) or "none"}); use fewer'
            )
        if too_few:
            logging.warning(
                '%d-shot: %s left out, no more groups than shots', shots, ', '.join(too_few)
            )
    if not config.num_steps:
        return
    for role, tasks in (
        ('train', ((config.train.ways, config.train.shots, config.train.queries),)),
        ('val', [(*task, config.eval.queries) for task in config.eval.tasks]),
    ):
        for ways, shots, queries in tasks:
            drawable.check(data, role, ways=ways, shots=shots, queries=queries)
