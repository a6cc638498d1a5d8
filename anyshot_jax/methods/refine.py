"""Any-shot classification: real and synthesised support, refined by the queries.

Dong et al., "Generative and contrastive combined support sample synthesis model for few-/zero-shot
surface defect recognition", IEEE TIM 2024, on GTnet and PT-MAP: all items of an episode become
nodes of a graph (ops/graph.py), and class centres move towards the queries that optimal transport
gives them (ops/prototype.class_centres). That is transduction: it looks at all queries at once and
assumes that the classes are equally frequent among them, or as `prior` says. Every result is shown
beside the inductive one (nearest mean) and, where there is synthesised support, without it.

Synthesised items come from an earlier stage, `synthesised_from`. Without real items (0 shots) all
count. With some, those count that the episode's own shots classify rightly, with the weight
`synthesised_weight`.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from anyshot_jax.episodes import sampling
from anyshot_jax.episodes.episodic import embed_dataset, episodic, task_name
from anyshot_jax.ops.distance import squared_euclidean
from anyshot_jax.ops.graph import centre_groups, graph_embedding
from anyshot_jax.ops.product import product
from anyshot_jax.ops.prototype import class_centres
from anyshot_jax.runtime.devices import map_over_devices
from anyshot_jax.stages.synthesis import has_colours, weigh
from anyshot_jax.types import Array, Data, Episode, InputError, nearest

REPORT = 'anyshot'
DEFAULTS = {
    'transductive': False,  # also the results that look at all queries; of `predict`: only those
    'graph': False,
    'neighbours': 4,
    'graph_power': 1,
    'self_weight': 0.75,
    'rounds': 20,
    'step': 0.2,
    'sharpness': 10.0,
    'prior': (),  # how frequent the test classes are, in the order of their names; (): equally
    'synthesised_from': '',  # the stage that exported them
    'synthesised_weight': 0.5,  # of all of a class's synthesised items together, beside one shot
}
KINDS = ('', ' + synthesis', ' transductive', ' transductive + synthesis')  # as results show them


def build(config, data):
    """Any-shot classifier by refined class centres.

    Args:
      config: of a run. data: with the roles that episodes are drawn from; synthesised items of an
        earlier stage.
    Returns:
      The Method. Its extra: {}.
    Raises:
      InputError: a field that does not fit, or data that cannot give the episodes.
    """
    fields = config.method
    synthesised = data.stages.get(fields.synthesised_from) if fields.synthesised_from else None
    check(config, data)
    colours = colours_of(config, data)

    def init(key, x):
        return {}, {}

    def embed(params, extra, x):
        scale = 255 if x.dtype == jnp.uint8 else 1
        return x.reshape(x.shape[0], -1).astype(jnp.float32) / scale

    def predict(params, extra, episode):
        ways = episode.class_id.shape[0]
        x_s, x_q = (main(embed(params, extra, x), colours) for x in (episode.x_s, episode.x_q))
        items = Items(x_s, jax.nn.one_hot(episode.y_s, ways), x_q)
        if fields.transductive:
            return transduce(fields, items, episode.class_id).plan
        return induce(*items)

    @partial(jax.jit, static_argnames=('count', 'devices'))
    def accuracies(dataset, synthetic, key, *, count, devices):
        ways, shots = (max(column) for column in zip(*config.eval.tasks, strict=True))
        drawn = {'ways': ways, 'shots': shots, 'queries': config.eval.queries}

        def one(i, dataset, synthetic, key):
            episode = sampling.sample_episode(jax.random.fold_in(key, i), dataset, **drawn)
            right = {}
            for w, s in config.eval.tasks:
                small = sampling.first(episode, w, s)
                of_task = None if synthetic is None else synthetic[small.class_id]
                for name, score in scores(fields, colours, small, of_task).items():
                    right[task_name(w, s) + name] = jnp.mean(score.argmax(1) == small.y_q)
            return right

        return map_over_devices(one, count, devices, dataset, synthetic, key)

    def evaluate(state, data, key, role):
        count = config.eval.val_episodes if role == 'val' else config.eval.episodes
        synthetic = None if synthesised is None else data.stages[fields.synthesised_from][role]
        dataset = embed_dataset(jax.jit(lambda x: embed({}, {}, x)), data.roles[role])
        devices = frozenset(dataset.x.devices())
        values = accuracies(dataset, synthetic, key, count=count, devices=devices)
        # In the order of the tasks: jit sorts by name.
        names = [task_name(*task) + kind for task in config.eval.tasks for kind in KINDS]
        return {name: values[name] for name in names if name in values}

    method = episodic(config, data, init=init, embed=embed, predict=predict, zero_shot=True)
    return method._replace(evaluate=evaluate)


class Items(NamedTuple):
    """The items of an episode, as they are compared."""

    x_s: Array  # [N, D]
    weight_s: Array  # [N, W] >= 0; a row of zeros takes no part
    x_q: Array  # [W*Q, D]


class Moved(NamedTuple):
    """Result of class-centre optimisation, in a space of its own."""

    x_s: Array  # [N, M]
    x_q: Array  # [W*Q, M]
    path: Array  # [rounds + 1, W, M], the centres
    plan: Array  # [W*Q, W], the scores


def colours_of(config: ConfigDict, data: Data) -> Array | None:
    """Weight of colours beside made items, as their stage chose it; None: features have none."""
    if 'train' not in data.roles or not has_colours(data):
        return None
    return data.stages.get(config.method.synthesised_from, {}).get('colours', 0.0)


def main(x: Array, colours: Array | None) -> Array:
    """Shots go by the main part: what a class looks like is not known by its colours."""
    return weigh(x, 0.0, colours is not None)


def support(
    fields: ConfigDict, colours: Array | None, episode: Episode, synthetic: Array | None
) -> dict:
    """Support sets by metric suffix: '' has real items only, ' + synthesis' adds synthesised ones.

    Args:
      colours: see `colours_of`. episode: of features [..., D].
      synthetic: [W, F, D] or None; they stand last in x_s.
    """
    ways, shots = episode.class_id.shape[0], len(episode.y_s) // episode.class_id.shape[0]
    if synthetic is not None:
        y_f = jnp.repeat(jnp.arange(ways), synthetic.shape[1])
        synthetic = synthetic.reshape(-1, synthetic.shape[-1])
    if not shots:
        x_s, x_q = (
            weigh(x, 0.0 if colours is None else colours, colours is not None)
            for x in (synthetic, episode.x_q)
        )
        return {'': Items(x_s, jax.nn.one_hot(y_f, ways), x_q)}
    x_s, x_q = main(episode.x_s, colours), main(episode.x_q, colours)
    real = jax.nn.one_hot(episode.y_s, ways)
    by_suffix = {'': Items(x_s, real, x_q)}
    if synthetic is not None:
        synthetic = main(synthetic, colours)
        named = jnp.argmax(induce(x_s, real, synthetic), 1) == y_f
        of_class = jax.nn.one_hot(y_f, ways) * named[:, None]
        weight = (
            fields.synthesised_weight * of_class / jnp.maximum(of_class.sum(0, keepdims=True), 1)
        )
        both = jnp.concatenate([x_s, synthetic]), jnp.concatenate([real, weight])
        by_suffix[' + synthesis'] = Items(*both, x_q)
    return by_suffix


def induce(x_s: Array, weight_s: Array, x_q: Array) -> Array:
    """Scores [Q, W] by the nearest weighted mean."""
    means = product(weight_s.T, x_s) / jnp.maximum(weight_s.sum(0), 1e-12)[:, None]
    return -squared_euclidean(x_q, means)


def transduce(fields: ConfigDict, items: Items, class_id: Array) -> Moved:
    """Class centres moved by the queries, in the space of the graph if there is one."""
    x_s, weight_s, x_q = items
    x, num_s, prior = jnp.concatenate([x_s, x_q]), len(x_s), tuple(fields.prior)
    group = jnp.arange(len(x)) >= num_s
    valid = jnp.concatenate([weight_s.sum(1) > 0, jnp.ones(len(x_q), bool)])
    if fields.graph:
        x = graph_embedding(
            x, neighbours=fields.neighbours, power=fields.graph_power,
            self_weight=fields.self_weight, valid=valid,
        )  # fmt: skip
    x = centre_groups(x, group.astype(jnp.int32), 2, valid=valid)
    columns = jnp.asarray(prior)[class_id] if prior else jnp.ones(len(class_id))
    path, plan = class_centres(
        x[:num_s], weight_s, x[num_s:], columns=columns / columns.sum(),
        rounds=fields.rounds, step=fields.step, sharpness=fields.sharpness,
    )  # fmt: skip
    return Moved(x[:num_s], x[num_s:], path, plan)


def scores(
    fields: ConfigDict, colours: Array | None, episode: Episode, synthetic: Array | None
) -> dict:
    """Scores [W*Q, W] of one task by metric suffix; arguments as in `support`."""
    by_suffix = {}
    for name, items in support(fields, colours, episode, synthetic).items():
        by_suffix[name] = induce(*items)
        if fields.transductive:
            by_suffix[f' transductive{name}'] = transduce(fields, items, episode.class_id).plan
    return by_suffix


def check(config, data) -> None:
    """Says before any work starts what doesn't fit.

    Raises:
      InputError: names the field.
    """
    fields, tasks = config.method, config.eval.tasks
    if fields.synthesised_from and fields.synthesised_from not in data.stages:
        hint = nearest(fields.synthesised_from, data.stages)
        raise InputError(
            f'config.method.synthesised_from={fields.synthesised_from!r} is no earlier stage{hint}'
        )
    if not fields.synthesised_from and any(shots == 0 for _, shots in tasks):
        raise InputError(
            f'config.eval.tasks={tasks}: 0 shots need synthesised support, from a stage that '
            'config.method.synthesised_from names'
        )
    if fields.synthesised_weight < 0 or fields.rounds < 0 or not 0 <= fields.step <= 1:
        raise InputError(
            'config.method.synthesised_weight and rounds must be >= 0 and step from 0 to 1'
        )
    if min(fields.neighbours, fields.graph_power) < 1:
        raise InputError('config.method.neighbours and graph_power must be >= 1')
    num = len(data.roles['test'].count) if 'test' in data.roles else 0
    if fields.prior and (len(fields.prior) != num or min(fields.prior) <= 0):
        raise InputError(
            f'config.method.prior={tuple(fields.prior)}: give a positive number for each of the '
            f'{num} test classes, in the order of their names'
        )
