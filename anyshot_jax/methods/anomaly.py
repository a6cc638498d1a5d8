"""Anomaly multi-classification: the type of a defect, from one, two or five images of each.

After arXiv 2406.05645: what distinguishes types is learnt on synthetic defects (the role train,
`data/pseudo/`), stopped before it knows those too well, and carried over to the real ones. Items
are residuals from what is normal (config.residual). By `loss`:
- 'prototype': cross-entropy of the cosines with the mean of each class's shots;
- 'infonce' (the paper's): with every shot by itself, which is not moved by the gradient;
- 'relation' (its baseline): binary cross-entropy of all pairs, a right one weighing W - 1.
Queries are told by the mean of their class's embeddings, or of its pairs' logits; with
`prototypes='pixels'` (the paper's) by their class's mean image. `adapt_steps` fine-tunes on the
shots of each task, each being told by the others; one shot has no others.

Real types are drawn so that support and query share no group (config.data.group), all others of
their types are queries. A type with no more groups than shots is left out there, and said.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging

from anyshot_jax.config import build_net, check_choices
from anyshot_jax.episodes import sampling
from anyshot_jax.episodes.episodic import cross_entropy, episode_accuracies, forward, init_net
from anyshot_jax.episodes.optim import build_optimizer
from anyshot_jax.episodes.update import gradient_update
from anyshot_jax.ops.contrastive import pair_cross_entropy
from anyshot_jax.ops.distance import cosine, unit
from anyshot_jax.ops.product import product
from anyshot_jax.ops.prototype import class_means
from anyshot_jax.runtime.devices import map_over_devices
from anyshot_jax.types import Data, Episode, InputError, Method, TrainState

CHOICES = {
    'loss': ('prototype', 'infonce', 'relation'),
    'prototypes': ('embeddings', 'pixels'),
}
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

BLOCK, PAIR_WIDTH = 1 << 26, 512  # numbers of pairs at once; of a pair at a place
EXPORTED = 20  # of the test's draws, as rows of its items: '2-shot support' and '2-shot answers'


def build(config, data):
    fields, net = config.method, build_net(config.net)
    _check(config, data)
    relates = fields.loss == 'relation'
    role_of = lambda role: data.roles[role] if role in data.roles else data.roles['test']
    tx = build_optimizer(config.optim, config.num_steps)

    def init(key, data):
        x = role_of('train').x[:2]
        params, extra = init_net(net, key, *((x, x) if relates else (x,)))
        return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), extra)

    def embed(state, x):
        return forward(net, state.params, state.extra, x, mode='inductive')[0]

    def scores(params, extra, x_s, y_s, x_q, ways, mode='inductive'):
        """[Q, W], and `extra` as `forward` leaves it."""
        if relates:
            one = lambda x: forward(net, params, extra, x_s, x[None], mode=mode)[0][0]
            logits = jax.lax.map(one, x_q, batch_size=queries_at_once(x_s))
            return class_means(logits.T, y_s, ways).T, extra
        z, extra = forward(net, params, extra, jnp.concatenate([x_s, x_q]), mode=mode)
        z_s, z_q = jnp.split(z, [len(y_s)])
        return cosine(z_q, class_means(z_s, y_s, ways)), extra

    def predict(state, episode: Episode):
        ways = episode.class_id.shape[0]
        return scores(state.params, state.extra, *episode[:3], ways)[0]

    def task_loss(params, extra, episode: Episode):
        x_s, y_s, x_q, y_q, class_id = episode
        ways = class_id.shape[0]
        if relates:
            logits, extra = forward(net, params, extra, x_s, x_q, mode='train')
            same = y_q[:, None] == y_s[None]
            right = jnp.argmax(class_means(logits.T, y_s, ways), 0) == y_q
            loss = pair_cross_entropy(logits, same, ways - 1.0)
            return loss, ({'accuracy': right.mean()}, extra)
        if fields.loss == 'infonce':
            z, extra = forward(net, params, extra, jnp.concatenate([x_s, x_q]), mode='train')
            z_s, z_q = jnp.split(unit(z), [len(y_s)])
            # Every shot of a class is a key of a set with one of each class.
            sets = jax.lax.stop_gradient(z_s).reshape(ways, -1, z_s.shape[-1])
            logits = jnp.einsum('qd,wsd->sqw', z_q, sets, precision='highest') / fields.temperature
            target = jnp.broadcast_to(y_q, logits.shape[:2])
        else:
            logits, extra = scores(params, extra, x_s, y_s, x_q, ways, 'train')
            logits, target = logits / fields.temperature, y_q
        loss, metrics = cross_entropy(logits, target)
        return loss, (metrics, extra)

    def loss(params, extra, batch, key):
        values, (metrics, extras) = jax.vmap(task_loss, (None, None, 0))(params, extra, batch)
        mean = partial(jax.tree.map, lambda a: a.mean(0))
        return values.mean(), (mean(metrics), mean(extras))

    adapter = optax.adam(fields.adapt_lr)

    def adapted(state, x, y, ways):
        """The parameters after fine-tuning on shots x, each told by the others."""
        own = jnp.eye(len(y), dtype=bool)
        same = y[:, None] == y[None]  # pairs of an item with itself weigh 0

        def left_out(params):
            if relates:
                logits = forward(net, params, state.extra, x, x, mode='inductive')[0]
                weight = jnp.where(own, 0.0, 1.0)
                return pair_cross_entropy(logits, same, ways - 1.0, weight)
            z = unit(forward(net, params, state.extra, x, mode='inductive')[0])
            member = jax.nn.one_hot(y, ways)
            others = (member[None] * ~own[..., None]).swapaxes(1, 2)  # [N, W, N]
            means = product(others, jax.lax.stop_gradient(z))
            logits = (
                jnp.einsum('nd,nwd->nw', z, unit(means), precision='highest') / fields.temperature
            )
            return cross_entropy(logits, y)[0]

        def step(carry, _):
            params, opt_state = carry
            updates, opt_state = adapter.update(jax.grad(left_out)(params), opt_state)
            return (optax.apply_updates(params, updates), opt_state), None

        start = state.params, adapter.init(state.params)
        return jax.lax.scan(step, start, length=fields.adapt_steps)[0][0]

    @partial(jax.jit, static_argnames=('shots', 'kept', 'draws', 'devices'))
    def real_types(state, data, key, *, shots, kept, draws, devices):
        """Draws of the types `kept`, as many as `draws`.

        Args:
          data: its role test, and `averaged` if its mean images stand for the types.
        Returns:
          Shares of queries named right, over all (micro) and over types (macro), [draws] each; the
          support's rows [draws, W, S]; the type that each item is called [draws, N], not asked: -1.
        """
        ways, most, chosen = len(kept), max(fields.shots), jnp.array(kept)
        about = jnp.zeros(len(data.roles['test'].names), bool).at[chosen].set(True)
        y = jnp.repeat(jnp.arange(ways), shots)

        def one(i, state, data, key):
            dataset, averaged = data.roles['test'], data.averaged
            if not averaged:
                support = sampling.draw_support(jax.random.fold_in(key, i), dataset, most)
            else:
                support = averaged['support'][i]
            query = sampling.queries_apart(dataset, support[:, :shots], about)[:, -1]
            support = support[chosen, :shots]
            x, params = dataset.x[support.reshape(-1)], state.params
            if fields.adapt_steps and shots > 1:
                params = adapted(state, x, y, ways)
            stand_for = (x, y)
            if averaged:
                stand_for = averaged[f'{shots}-shot'][i][chosen], jnp.arange(ways)
            found = scores(params, state.extra, *stand_for, dataset.x, ways)[0]
            answer = chosen[jnp.argmax(found, -1)]
            right = (answer == dataset.label) & query
            of_type = dataset.label[None] == chosen[:, None]
            asked = (of_type & query[None]).sum(1)
            share = (of_type & right[None]).sum(1) / jnp.maximum(asked, 1)
            macro = jnp.sum(jnp.where(asked > 0, share, 0)) / jnp.sum(asked > 0)
            return right.sum() / query.sum(), macro, support, jnp.where(query, answer, -1)

        return map_over_devices(one, draws, devices, state, data, key)

    accuracies = jax.jit(
        partial(episode_accuracies, predict, tasks=config.eval.tasks, queries=config.eval.queries),
        static_argnames=('count', 'devices'),
    )

    def drawn_on(data):
        averaged = data.averaged if fields.prototypes == 'pixels' else {}
        return Data({'test': data.roles['test']}, averaged=averaged)

    def evaluate(state, data, key, role):
        dataset = data.roles[role]
        devices = frozenset(dataset.x.devices())
        if role != 'test':
            return accuracies(state, dataset, key, count=config.eval.val_episodes, devices=devices)
        values = {}
        for shots in fields.shots:
            drawn = {'shots': shots, 'kept': askable(dataset, shots), 'devices': devices}
            micro, macro, *_ = real_types(state, drawn_on(data), key, draws=fields.draws, **drawn)
            values |= {f'{shots}-shot macro': macro, f'{shots}-shot micro': micro}
        return values

    def export(state, data, key):
        dataset, found = data.roles['test'], {}
        devices = frozenset(dataset.x.devices())
        for shots in fields.shots:
            drawn = {'shots': shots, 'kept': askable(dataset, shots), 'devices': devices}
            draws = min(fields.draws, EXPORTED)
            *_, support, answer = real_types(state, drawn_on(data), key, draws=draws, **drawn)
            found |= {f'{shots}-shot support': support, f'{shots}-shot answers': answer}
        return found

    return Method(
        init=init,
        sample=lambda key, data: sampling.sample_episode(
            key, data.roles['train'], ways=config.train.ways, shots=config.train.shots,
            queries=config.train.queries,
        ),
        update=gradient_update(loss, tx, task_chunk=config.task_chunk),
        evaluate=evaluate,
        predict=predict,
        embed=None if relates else embed,
        export=export,
    )  # fmt: skip


def queries_at_once(x_s) -> int:
    """Number of queries that meet the support [S, ...] at once: pairs of maps take much memory."""
    numbers = PAIR_WIDTH * x_s[0].size // x_s.shape[-1]  # of a pair
    return max(1, BLOCK // (numbers * len(x_s)))


def askable(dataset, shots: int) -> tuple[int, ...]:
    """The types with more groups than `shots`, so that one is left to ask for."""
    label, group = np.asarray(dataset.label), np.asarray(dataset.group)
    types = range(len(dataset.names))
    return tuple(c for c in types if len(np.unique(group[label == c])) > shots)


def _check(config, data) -> None:
    fields = config.method
    check_choices(fields, CHOICES)
    if fields.temperature <= 0 or fields.draws < 1 or fields.adapt_steps < 0:
        raise InputError('config.method: need temperature > 0, draws >= 1, adapt_steps >= 0')
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
        found = data.averaged
        lack = [k for k in fields.shots if len(found.get(f'{k}-shot', ())) < fields.draws]
        if lack:
            raise InputError(
                f"config.method.prototypes='pixels' needs {fields.draws} mean images of "
                f'{lack[0]} shots: set config.residual.average_shots={tuple(fields.shots)} and '
                f'config.residual.average_draws={fields.draws}'
            )
    for shots in fields.shots:
        kept = [test.names[c] for c in askable(test, shots)]
        aside = [name for name in test.names if name not in kept]
        if len(kept) < 2:
            raise InputError(
                f'config.method.shots={fields.shots}: {shots} leave fewer than two types of defect '
                f'with a part to ask for ({", ".join(kept) or "none"}); use fewer'
            )
        if aside:
            logging.warning(
                '%d-shot: %s left out, no more groups than shots', shots, ', '.join(aside)
            )
    if not config.num_steps:
        return
    for role, tasks in (
        ('train', ((config.train.ways, config.train.shots, config.train.queries),)),
        ('val', [(*task, config.eval.queries) for task in config.eval.tasks]),
    ):
        for ways, shots, queries in tasks:
            sampling.check(data, role, ways=ways, shots=shots, queries=queries)
