"""A classifier of novel classes from web images that count by weights, smoothed by a graph.

The main classifier of Chen, Niu, Liu, Zhang, "Weak-shot fine-grained classification via similarity
transfer", NeurIPS 2021, sections 3.3 and 3.4: weighted cross-entropy plus `alpha` times a penalty
on how much the features of similar images differ, similarity being that of a frozen SimNet on the
same images. A unit is one image; the graph is that of the whole batch over all devices.

`schedule`: 'plain', one update a step, with the penalty if alpha > 0; or 'paper': weighted
cross-entropy in batches of `small_batch` for `first_epochs`, then graph epochs (one update of the
whole batch a step) in turn with epochs of small batches, which take as many images a step. There
the learning rate is halved every `halve_epochs` epochs. Of the paper's code the restart of momentum
every epoch is left out, and images are drawn independently.

`generalised`: base classes are learnt with the novel ones, from clean images of weight 1, and the
test asks for all of them. `balance` evens classes out: 'sample' draws the class first, 'loss'
weighs by mean(count) / count.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from anyshot_jax.config import check_choices
from anyshot_jax.episodes import augment
from anyshot_jax.episodes.episodic import EMBED_CHUNK, log_likelihood
from anyshot_jax.episodes.optim import build_optimizer
from anyshot_jax.ops.graph import cosine_gap, smoothness
from anyshot_jax.ops.metric import harmonic_mean
from anyshot_jax.ops.product import product
from anyshot_jax.ops.weighting import stretch
from anyshot_jax.runtime.devices import for_batch, from_all_devices, map_rows, over_devices
from anyshot_jax.stages.handover import start_from
from anyshot_jax.stages.similarity import Backbone, Similarity, backbone, learnt, novel
from anyshot_jax.stages.web_set import take, training, web_weights
from anyshot_jax.types import Array, InputError, Method, TrainState

REPORT = 'ablation'
DEFAULTS = {
    'batch_norm': 'inductive',
    'start_from': '',  # the stage that pretrained config.net; '': from random numbers
    'weights_from': '',  # the stage that weighed the web images; 'truth': 0/1; '': all count
    'simnet_from': '',  # the stage that learnt the similarity of the graph; '': cosine of items
    'alpha': 0.0,  # the weight of the graph's penalty; the paper's 0.1 is for features of a ResNet
    'penalty': 'smoothness',  # smoothness | cosine
    'stretch': 0.0,  # mu of the similarities' monotone map; the paper's -4
    'same_name': False,  # only pairs of one web label have an edge
    'schedule': 'plain',  # plain | paper
    'small_batch': 8,
    'first_epochs': 60,
    'halve_epochs': 20,
    'generalised': False,
    'balance': 'none',  # none | sample | loss
}
CHOICES = {
    'penalty': ('smoothness', 'cosine'),
    'schedule': ('plain', 'paper'),
    'balance': ('none', 'sample', 'loss'),
}


class Image(NamedTuple):
    """One unit."""

    x: Array
    y: Array  # [] int32
    weight: Array  # []


class Parts(NamedTuple):
    """Parts of a run: its config, the nets that are trained, and the graph's source."""

    config: ConfigDict
    net: Backbone
    sim: Similarity | None  # without a graph none
    tx: optax.GradientTransformation
    roles: tuple[str, ...]  # to learn from
    num: int  # classes
    total: int  # items


def build(config, data):
    """Classifier of novel classes on the role web, with `generalised` of those of base, too.

    Args:
      config: of a run. data: with the roles web and test; base and test_base if generalised.
    Returns:
      The Method. Its extra: 'net', batch statistics, and 'simnet', the frozen SimNet's parameters.
    Raises:
      InputError: a role or stage that is missing, or a field that can't be.
    """
    fields = config.method
    _check(config, data)
    roles = ('base', 'web') if fields.generalised else ('web',)
    count = [len(data.roles[role].count) for role in roles]
    num, first_novel = sum(count), sum(count[:-1])
    total = sum(len(data.roles[role].label) for role in roles)
    net = backbone(config.net, 'weakshot')
    sim = Similarity.of(data, fields.simnet_from) if fields.alpha else None
    tx = build_optimizer(config.optim, config.num_steps)
    parts = Parts(config, net, sim, tx, roles, num, total)

    def embed(state, x):
        return net.apply(state.params['net'], state.extra['net'], x, 'inductive')[0]

    def scores(state, x):
        return linear(state.params['head'], embed(state, x))

    chunk = jax.jit(scores)
    every_score = lambda state, x: map_rows(partial(chunk, state), x, size=EMBED_CHUNK)

    def evaluate(state, data, key, role):
        def right(dataset, shift):
            answer = jnp.argmax(every_score(state, dataset.x), 1)
            return (answer == dataset.label + shift).astype(jnp.float32)

        unseen = right(data.roles[role], first_novel)
        if not fields.generalised:
            return {'accuracy': unseen}
        seen = right(data.roles['test_base'], 0)
        every = jnp.concatenate([seen, unseen])
        both = harmonic_mean(seen.mean(), unseen.mean())
        return {'accuracy': every, 'seen': seen, 'unseen': unseen, 'harmonic mean': both[None]}

    return Method(
        init=partial(init_state, parts),
        sample=partial(draw_image, parts),
        update=partial(update, parts),
        evaluate=evaluate,
        predict=lambda state, e: scores(state, e.x_q)[:, first_novel + e.class_id],
        embed=embed,
        export=lambda state, data, key: {
            'scores': every_score(state, data.roles['test'].x), 'label': data.roles['test'].label
        },
    )  # fmt: skip


def init_state(parts: Parts, key, data) -> TrainState:
    """The state before the first step; from an earlier stage's net with `start_from`."""
    fields, net = parts.config.method, parts.net
    keys = jax.random.split(key)
    x = data.roles['web'].x[:2]
    params, stats = net.init(keys[0], x)
    if fields.start_from:
        params, stats = start_from(data, fields.start_from, params, stats)
    width = jax.eval_shape(lambda x: net.apply(params, stats, x, 'inductive')[0], x).shape[-1]
    head = {'kernel': jnp.zeros((width, parts.num)), 'bias': jnp.zeros(parts.num)}
    params = {'net': params, 'head': head}
    # From the argument, not of `build`: nothing learnt is baked into a program.
    simnet = learnt(data, fields.simnet_from) if parts.sim else {}
    extra = {'net': stats, 'simnet': simnet}
    return TrainState(jnp.zeros((), jnp.int32), params, parts.tx.init(params), extra)


def draw_image(parts: Parts, key, data) -> Image:
    """One image, drawn uniformly, or with balance='sample' its class first."""
    fields, augmentation = parts.config.method, parts.config.augment.to_dict()
    keys, items = jax.random.split(key, 3), training(fields, data, parts.roles)
    if fields.balance == 'sample':
        c = jax.random.randint(keys[0], (), 0, parts.num)
        row = items.offset[c] + jax.random.randint(keys[1], (), 0, items.count[c])
    else:
        row = jax.random.randint(keys[0], (), 0, parts.total)
    x = take(data, parts.roles, row)
    if any(augmentation.values()):
        x = augment.affine(keys[2], x[None], **augmentation)[0]
    return Image(x, items.label[row], items.weight[row])


def linear(head: dict, z: Array) -> Array:
    """[N, D] -> scores [N, C]."""
    return product(z, head['kernel']) + head['bias'][None]


def loss(parts: Parts, params, stats, frozen, batch: Image, alpha: float):
    """Loss of the batch on this device; the graph is that of the batches on all devices."""
    h, stats = parts.net.apply(params['net'], stats, batch.x, 'train')
    scores = linear(params['head'], h)
    value = -jnp.mean(batch.weight * log_likelihood(scores, batch.y))
    rough = jnp.zeros(())
    metrics = {'accuracy': jnp.mean(jnp.argmax(scores, 1) == batch.y), 'cross_entropy': value}
    if parts.sim and alpha:
        z = jax.lax.stop_gradient(parts.sim.features(frozen, batch.x))
        h, z, y = map(from_all_devices, (h, z, batch.y))
        rough = graph_penalty(parts.config.method, parts.sim, frozen, h, z, y)
    return value + alpha * rough, ({**metrics, 'roughness': rough}, stats)


def move(parts: Parts, carry, frozen, batch: Image, alpha: float, rate):
    """One optimiser step, times `rate`: (params, opt_state, stats) -> the same, and metrics."""
    params, opt_state, stats = carry
    output = jax.value_and_grad(partial(loss, parts), has_aux=True)(
        params, stats, frozen, batch, alpha
    )
    (value, (metrics, stats)), grads = over_devices(output)
    step, opt_state = parts.tx.update(grads, opt_state, params)
    params = optax.apply_updates(params, jax.tree.map(lambda u: rate * u, step))
    metrics = {**metrics, 'loss': value, 'grad_norm': optax.tree.norm(grads)}
    return (params, opt_state, stats), metrics


def update(parts: Parts, state, batch: Image, key):
    """One update, or as the paper's schedule has it at this step."""
    fields, frozen = parts.config.method, state.extra['simnet']
    carry = state.params, state.opt_state, state.extra['net']
    if fields.schedule == 'plain':
        carry, metrics = move(parts, carry, frozen, batch, fields.alpha, 1.0)
    else:
        carry, metrics = paper_step(parts, carry, frozen, batch, state.step)
    params, opt_state, stats = carry
    return TrainState(state.step + 1, params, opt_state, {**state.extra, 'net': stats}), metrics


def paper_step(parts: Parts, carry, frozen, batch: Image, step):
    """A step on the whole batch with the graph, or on small batches: `schedule` = 'paper'."""
    fields, size = parts.config.method, parts.config.batch_size
    epoch = step // -(-parts.total // size)
    rate = 0.5 ** (epoch // fields.halve_epochs).astype(jnp.float32)
    later = epoch - fields.first_epochs
    pieces = size // fields.small_batch
    # Every pieces-th image: the same small batches on any number of devices.
    deal = lambda a: jnp.moveaxis(a.reshape(-1, pieces, *a.shape[1:]), 1, 0)
    small = jax.tree.map(deal, batch)

    def in_small(carry):
        one = lambda carry, batch: move(parts, carry, frozen, batch, 0.0, rate)
        carry, metrics = jax.lax.scan(one, carry, small)
        return carry, jax.tree.map(jnp.mean, metrics)

    return jax.lax.cond(
        (later >= 0) & (later % 2 == 0),
        lambda carry: move(parts, carry, frozen, batch, fields.alpha, rate),
        in_small,
        carry,
    )


def graph_penalty(fields, sim: Similarity, frozen, h: Array, z: Array, y: Array) -> Array:
    """The penalty of features h [n, D] by the similarities of the SimNet's features z [n, E]."""
    edges = stretch(sim.pairs(frozen, z, z), fields.stretch)
    if fields.same_name:
        edges = jnp.where(y[:, None] == y[None, :], edges, 0)
    penalty = smoothness if fields.penalty == 'smoothness' else cosine_gap
    return penalty(h, jax.lax.stop_gradient(edges))


def _check(config, data) -> None:
    """Raises InputError for fields that don't fit; names them."""
    fields = config.method
    novel(data, 'weakshot')
    check_choices(fields, CHOICES)
    web_weights(fields, data)
    if fields.batch_norm != 'inductive' or fields.alpha < 0:
        raise InputError("config.method.batch_norm must be 'inductive' and alpha >= 0")
    for role in ('base', 'test_base') if fields.generalised else ():
        if role not in data.roles:
            raise InputError(
                f'config.method.generalised=True needs the role {role!r}: clean images of base '
                'classes, in training and test'
            )
    if fields.alpha and not config.net.name:
        raise InputError(
            'config.method.alpha > 0 smooths the features of config.net, and there is none to '
            "train: set config.net, e.g. to 'projection', or alpha=0"
        )
    if fields.schedule == 'paper':
        if fields.small_batch < 1 or config.batch_size % fields.small_batch:
            raise InputError(
                f'config.batch_size={config.batch_size} must be a multiple of '
                f'config.method.small_batch={fields.small_batch}'
            )
        local = config.batch_size // len(for_batch(config.batch_size))
        if local % (config.batch_size // fields.small_batch):
            raise InputError(
                f'config.method.small_batch={fields.small_batch} must divide over '
                f'{len(for_batch(config.batch_size))} devices'
            )
        if min(fields.first_epochs, fields.halve_epochs - 1) < 0:
            raise InputError('config.method.first_epochs must be >= 0 and halve_epochs >= 1')
