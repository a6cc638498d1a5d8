"""Parts that episodic methods share: forward passes, sampler and evaluation."""

import dataclasses
from collections.abc import Callable, Collection
from functools import partial

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from anyshot_jax.episodes import augment, retrieval, sampling
from anyshot_jax.episodes.optim import build_optimizer
from anyshot_jax.episodes.update import gradient_update
from anyshot_jax.ops.distance import cosine
from anyshot_jax.runtime.devices import map_over_devices, map_rows
from anyshot_jax.types import (
    ACCURACY,
    SCORE,
    Array,
    Data,
    Dataset,
    Episode,
    InputError,
    Method,
    TrainState,
)

EMBED_CHUNK = 256  # items embedded at once when a whole split is


def init_net(net, key: Array, *x: Array) -> tuple[dict, dict]:
    """A Linen net's parameters and everything else it keeps (batch statistics)."""
    extra = dict(net.init(key, *x, train=False))
    return extra.pop('params', {}), extra


def forward(net, params: dict, extra: dict, *x: Array, mode: str) -> tuple[Array, dict]:
    """Applies a Linen net, batch norm as `mode` says.

    Args:
      net: a module whose call takes `train` and `transductive`. x: what it is called with.
      mode: 'train' (batch statistics, running ones updated), 'inductive' (statistics in `extra`),
        'transductive' (batch statistics) or 'statistics' (batch statistics, and they are kept).
    Returns:
      The output, and `extra`: updated if training, those of x itself, with their derivatives, if
      'statistics'.
    """
    variables = {'params': params, **extra}
    if mode == 'statistics':
        kwargs = {'train': False, 'transductive': True, 'mutable': ['batch_stats']}
        out, own = net.apply(variables, *x, **kwargs)
        return out, dict(own)
    if mode == 'train':
        out, updated = net.apply(variables, *x, train=True, mutable=list(extra))
        return out, dict(updated)
    return net.apply(variables, *x, train=False, transductive=mode == 'transductive'), extra


def join(episode: Episode, axis: int = 0) -> Array:
    """Support and query items in one array, support first."""
    return jnp.concatenate([episode.x_s, episode.x_q], axis)


def part(features: Array, episode: Episode, axis: int = 0) -> Episode:
    """The episode with the features of its joined items in place of the items."""
    x_s, x_q = jnp.split(features, [episode.y_s.shape[-1]], axis)
    return episode._replace(x_s=x_s, x_q=x_q)


def episodic(
    config: ConfigDict,
    data: Data,
    *,
    init: Callable,
    embed: Callable,
    score: Callable | None = None,
    predict: Callable | None = None,
    loss: Callable | None = None,
    similarity: Callable = lambda params, extra, a, b: cosine(a, b),
    batch_norms: Collection[str] = ('inductive', 'transductive'),
    skip_small: bool = False,
    zero_shot: bool = False,
) -> Method:
    """A Method from the parts in which methods differ.

    Args:
      init: (key, x [N, ...]) -> (params, extra).
      embed: (params, extra, x [N, ...]) -> features [N, ...], each item on its own unless
        config.method.batch_norm is 'transductive'.
      score: (params, extra, episode of features) -> scores [W*Q, W], the largest is the answer.
      predict: (params, extra, episode of items) -> scores, instead of `score` where an item's
        features depend on its task.
      loss: (params, extra, batch [B, ...] of episodes, key [B]) -> (scalar, (metrics, extra)), or
        None if there is nothing to train.
      similarity: (params, extra, a [N, D], b [M, D]) -> [N, M], by which features are retrieved.
      batch_norms: what config.method.batch_norm may say.
      zero_shot: tasks of 0 shots can be answered.
      skip_small: training goes on without classes that have too few items, instead of an error.
    Raises:
      InputError: the data can't give the episodes that the config asks for.
    """
    train, moves = config.train.to_dict(), config.augment.to_dict()
    batch_norm = config.method.get('batch_norm', 'inductive')
    if batch_norm not in batch_norms:
        raise InputError(
            f'config.method.batch_norm must be {" or ".join(batch_norms)}, got {batch_norm!r}'
        )
    drawn = lambda data: data.roles['train']
    if config.num_steps:
        if loss is None:
            raise InputError(f'{config.method.name} has nothing to train: set config.num_steps=0')
        if skip_small and 'train' in data.roles:
            kept = sampling.with_items(
                data.roles['train'], 'train', train['shots'] + train['queries']
            )
            drawn = lambda data: sampling.restrict(data.roles['train'], kept)
        given = data
        if 'train' in data.roles:
            given = dataclasses.replace(data, roles={**data.roles, 'train': drawn(data)})
        sampling.check(given, 'train', **train)
    for role in ('val', 'test') if config.num_steps else ('test',):
        if config.eval.retrieval:
            retrieval.check(data, role)
        for ways, shots in config.eval.tasks:
            for within in ('', config.eval.within):
                least = max(shots, 1) if zero_shot else shots
                task = {'ways': ways, 'shots': least, 'queries': config.eval.queries}
                sampling.check(data, role, **task, within=within)
    if any(moves.values()) and _some_items(data).ndim != 4:
        raise InputError(
            'config.augment needs images, but the data are feature vectors: set its fields to 0'
        )
    if config.eval.retrieval and batch_norm == 'transductive':
        raise InputError(
            'config.eval.retrieval=True needs features of an item by itself: use '
            "config.method.batch_norm='inductive'"
        )
    tx = build_optimizer(config.optim, config.num_steps)
    # Once, instead of in every episode: an item's features don't depend on its episode.
    embeds_split = batch_norm == 'inductive' and predict is None

    def init_state(key, data):
        params, extra = init(key, _some_items(data)[:2])
        return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), extra)

    def sample(key, data):
        episode = sampling.sample_episode(key, drawn(data), **train)
        if not any(moves.values()):
            return episode
        keys = jax.random.split(jax.random.fold_in(key, 1))
        x_s, x_q = (
            augment.affine(k, x, **moves) for k, x in zip(keys, episode[0:3:2], strict=True)
        )
        return episode._replace(x_s=x_s, x_q=x_q)

    def answer(state, episode: Episode):
        if predict:
            return predict(state.params, state.extra, episode)
        assert score  # a method gives one of the two
        # One forward pass over support and query together.
        features = embed(state.params, state.extra, join(episode))
        return score(state.params, state.extra, part(features, episode))

    def embed_flat(state, x):
        features = embed(state.params, state.extra, x)
        return features.reshape(features.shape[0], -1)

    @partial(jax.jit, static_argnames=('count', 'devices', 'within'))
    def accuracies(state, dataset, key, *, count, devices, within):
        given = (lambda state, e: score(state.params, state.extra, e)) if embeds_split else answer
        tasks, queries = config.eval.tasks, config.eval.queries
        shape = {'tasks': tasks, 'queries': queries, 'count': count, 'within': within}
        return episode_accuracies(given, state, dataset, key, **shape, devices=devices)

    embed_chunk = jax.jit(lambda state, x: embed(state.params, state.extra, x))
    embed_split = lambda state, dataset: embed_dataset(partial(embed_chunk, state), dataset)

    @jax.jit
    def named(state, tasks: Episode):
        """Correctness, 0 or 1, of every query of fixed tasks [E, ...]: [E, W*Q]."""
        right = lambda e: (jnp.argmax(answer(state, e), -1) == e.y_q).astype(jnp.float32)
        return jax.lax.map(right, tasks)

    similar = lambda state, a, b: similarity(state.params, state.extra, a, b)
    at = tuple(config.eval.retrieval_at)
    measure = partial(retrieval.measures, at=at)

    def evaluate(state, data, key, role):
        count = config.eval.val_episodes if role == 'val' else config.eval.episodes
        dataset, values = data.roles[role], {}
        devices = frozenset(dataset.x.devices())
        if embeds_split or config.eval.retrieval:
            features = embed_split(state, dataset)
        if config.eval.tasks:
            given, kind = features if embeds_split else dataset, config.eval.within
            for within in ('', kind) if kind else ('',):
                drawn_from = {'count': count, 'devices': devices, 'within': within}
                found = accuracies(state, given, key, **drawn_from)
                names = [task_name(*task, within) for task in config.eval.tasks]
                values |= {name: found[name] for name in names}  # jit sorts
        for name, fixed in data.tasks.items() if role == 'test' else ():
            values[name] = named(state, fixed).reshape(-1)
        if config.eval.retrieval:
            items = retrieval.items_of(features)
            found = retrieval.evaluate(
                items, items, similar, state, measure=measure, devices=devices
            )
            order = (*retrieval.names(at), retrieval.NO_ANSWER)
            values |= {n: found[n] for n in order if n in found}
        return values

    return Method(
        init=init_state,
        sample=sample,
        update=gradient_update(loss, tx, task_chunk=config.task_chunk) if loss else None,
        evaluate=evaluate,
        predict=answer,
        embed=embed_flat,
        similarity=similar,
        export=lambda state, data, key: {
            role: embed_split(state, dataset).x for role, dataset in data.roles.items()
        },
        measure=SCORE if config.eval.retrieval else ACCURACY,
    )


def _some_items(data: Data) -> Array:
    return next(d.x for d in data.roles.values())


def task_name(ways: int, shots: int, within: str = '') -> str:
    """The name that a column of the result has everywhere."""
    return f'{ways}-way {shots}-shot' + f' within {within}' * bool(within)


def episode_accuracies(
    predict: Callable,
    state: TrainState,
    dataset: Dataset,
    key: Array,
    *,
    tasks: tuple[tuple[int, int], ...],
    queries: int,
    count: int,
    devices: Collection[jax.Device],
    within: str = '',
) -> dict[str, Array]:
    """Query accuracy of `count` episodes of every (ways, shots).

    Episode i has the most ways and shots asked for; the smaller tasks take its first classes and
    shots, whose order is random, and so are paired with it. Equal scores go to the first class: a
    scorer that can't tell classes apart gets 1 / W.

    Args:
      predict: (state, episode) -> scores [W*Q, W].
      devices: where the dataset lies; each takes a share of the episodes.
    Returns:
      task_name -> [count] in 0..1.
    """
    ways, shots = (max(column) for column in zip(*tasks, strict=True))
    drawn = {'ways': ways, 'shots': shots, 'queries': queries, 'within': within}

    def one(i, state, dataset, key):
        largest = sampling.sample_episode(jax.random.fold_in(key, i), dataset, **drawn)
        correct = {}
        for task in tasks:
            episode = sampling.first(largest, *task)
            answer = jnp.argmax(predict(state, episode), axis=-1)
            correct[task_name(*task, within)] = jnp.mean(answer == episode.y_q)
        return correct

    return map_over_devices(one, count, devices, state, dataset, key)


def embed_dataset(embed: Callable, dataset: Dataset) -> Dataset:
    """The dataset with every item replaced by its features; rotated classes become items.

    Args:
      embed: x [EMBED_CHUNK, ...] -> [EMBED_CHUNK, ...], compiled: every chunk has this one shape,
        whatever the split's size, so that there is one program and bounded memory.
    """
    dataset = sampling.expand_turns(dataset)
    x = map_rows(embed, dataset.x, size=EMBED_CHUNK)
    return dataclasses.replace(dataset, x=x, parts=())


def cross_entropy(scores: Array, label: Array) -> tuple[Array, dict]:
    """Mean softmax cross-entropy and accuracy of scores [..., W] for labels [...]."""
    log_prob = jax.nn.log_softmax(scores)
    own = jax.nn.one_hot(label, scores.shape[-1], dtype=bool)  # an index's derivative is a scatter
    loss = -jnp.mean(jnp.where(own, log_prob, 0).sum(-1))
    return loss, {'accuracy': jnp.mean(jnp.argmax(scores, -1) == label)}
