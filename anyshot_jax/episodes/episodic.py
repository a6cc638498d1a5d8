"""Parts that episodic methods share: forward passes, sampler and evaluation."""

import dataclasses
from collections.abc import Callable, Collection
from functools import partial

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from anyshot_jax.episodes import retrieval, sampling
from anyshot_jax.episodes.optim import build_optimizer
from anyshot_jax.episodes.tasks import (
    check_episodes,
    episode_sampler,
    some_items,
    training_classes,
)
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
        out, statistics = net.apply(variables, *x, **kwargs)
        return out, dict(statistics)
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
    check_episodes(
        config,
        data,
        trains=loss is not None,
        batch_norms=batch_norms,
        skip_small=skip_small,
        zero_shot=zero_shot,
    )
    tx = build_optimizer(config.optim, config.num_steps)
    inductive = config.method.get('batch_norm', 'inductive') == 'inductive'

    def init_state(key, data):
        params, extra = init(key, some_items(data)[:2])
        return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), extra)

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

    embed_chunk = jax.jit(lambda state, x: embed(state.params, state.extra, x))
    embed_split = lambda state, dataset: embed_dataset(partial(embed_chunk, state), dataset)
    similar = lambda state, a, b: similarity(state.params, state.extra, a, b)
    # An item's features that don't depend on its episode are computed once, not in every episode.
    of_features = score if inductive and predict is None else None
    return Method(
        init=init_state,
        sample=episode_sampler(config, training_classes(config, data, skip_small)),
        update=gradient_update(loss, tx, task_chunk=config.task_chunk) if loss else None,
        evaluate=episode_evaluation(config, answer, of_features, embed_split, similar),
        predict=answer,
        embed=embed_flat,
        similarity=similar,
        export=lambda state, data, key: {
            role: embed_split(state, dataset).x for role, dataset in data.roles.items()
        },
        measure=SCORE if config.eval.retrieval else ACCURACY,
    )


def episode_evaluation(
    config: ConfigDict,
    answer: Callable,
    of_features: Callable | None,
    embed_split: Callable,
    similar: Callable,
) -> Callable:
    """`Method.evaluate` of config.eval: random tasks, tasks that the data prescribe, retrieval.

    Args:
      answer: (state, episode of items) -> scores [W*Q, W].
      of_features: (params, extra, episode of features) -> the same, where a split can be embedded
        once for all of its episodes; or None.
      embed_split: (state, dataset) -> dataset of features.
      similar: (state, a [N, D], b [M, D]) -> [N, M], for retrieval.
    """
    at = tuple(config.eval.retrieval_at)
    measure = partial(retrieval.measures, at=at)

    @partial(jax.jit, static_argnames=('count', 'devices', 'within'))
    def accuracies(state, dataset, key, *, count, devices, within):
        scores = (lambda s, e: of_features(s.params, s.extra, e)) if of_features else answer
        tasks, queries = config.eval.tasks, config.eval.queries
        shape = {'tasks': tasks, 'queries': queries, 'count': count, 'within': within}
        return episode_accuracies(scores, state, dataset, key, **shape, devices=devices)

    @jax.jit
    def fixed_accuracies(state, tasks: Episode):
        """Correctness, 0 or 1, of every query of fixed tasks [E, ...]: [E, W*Q]."""
        right = lambda e: (jnp.argmax(answer(state, e), -1) == e.y_q).astype(jnp.float32)
        return jax.lax.map(right, tasks)

    def evaluate(state, data, key, role):
        count = config.eval.val_episodes if role == 'val' else config.eval.episodes
        dataset, values = data.roles[role], {}
        devices = frozenset(dataset.x.devices())
        if of_features or config.eval.retrieval:
            features = embed_split(state, dataset)
        if config.eval.tasks:
            items, kind = features if of_features else dataset, config.eval.within
            for within in ('', kind) if kind else ('',):
                shape = {'count': count, 'devices': devices, 'within': within}
                by_task = accuracies(state, items, key, **shape)
                names = [task_name(*task, within) for task in config.eval.tasks]
                values |= {name: by_task[name] for name in names}  # jit sorts
        for name, tasks in data.tasks.items() if role == 'test' else ():
            values[name] = fixed_accuracies(state, tasks).reshape(-1)
        if config.eval.retrieval:
            items = retrieval.items_of(features)
            measures = retrieval.evaluate(
                items, items, similar, state, measure=measure, devices=devices
            )
            order = (*retrieval.names(at), retrieval.NO_ANSWER)
            values |= {n: measures[n] for n in order if n in measures}
        return values

    return evaluate


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
    loss = -jnp.mean(log_likelihood(scores, label))
    return loss, {'accuracy': jnp.mean(jnp.argmax(scores, -1) == label)}


def log_likelihood(scores: Array, label: Array) -> Array:
    """Logarithm [...] of the softmax of scores [..., W] at labels [...].

    Picked by a mask, for the derivative of an index is a scatter, which a GPU adds in any order.
    """
    own = jax.nn.one_hot(label, scores.shape[-1], dtype=bool)
    return jnp.where(own, jax.nn.log_softmax(scores), 0).sum(-1)
