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

from anyshot_jax.config import check_choices
from anyshot_jax.episodes import augment
from anyshot_jax.episodes.episodic import EMBED_CHUNK
from anyshot_jax.episodes.optim import build_optimizer
from anyshot_jax.ops.graph import cosine_gap, smoothness
from anyshot_jax.ops.product import product
from anyshot_jax.ops.weighting import stretch
from anyshot_jax.runtime.devices import AXIS, for_batch, map_rows, over_devices
from anyshot_jax.stages.handover import exported, start_from
from anyshot_jax.stages.similarity import Similarity, backbone, learnt, novel
from anyshot_jax.types import Array, InputError, Method, TrainState

REPORT = 'weak'
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


class Training(NamedTuple):
    """Training set: N items, C classes."""

    weight: Array  # [N]
    label: Array  # [N]
    offset: Array  # [C]
    count: Array  # [C]


def build(config, data):
    fields, moves = config.method, config.augment.to_dict()
    _check(config, data)
    roles = ('base', 'web') if fields.generalised else ('web',)
    count = [len(data.roles[role].count) for role in roles]
    num, first_novel = sum(count), sum(count[:-1])
    total = sum(len(data.roles[role].label) for role in roles)
    net = backbone(config.net, 'weakshot')
    sim = Similarity.of(data, fields.simnet_from) if fields.alpha else None
    tx = build_optimizer(config.optim, config.num_steps)
    epoch_steps = -(-total // config.batch_size)

    def init(key, data):
        keys = jax.random.split(key)
        x = data.roles['web'].x[:2]
        params, stats = net.init(keys[0], x)
        if fields.start_from:
            params, stats = start_from(data, fields.start_from, params, stats)
        width = jax.eval_shape(lambda x: net.apply(params, stats, x, 'inductive')[0], x).shape[-1]
        head = {'kernel': jnp.zeros((width, num)), 'bias': jnp.zeros(num)}
        params = {'net': params, 'head': head}
        # From the argument, not of `build`: nothing learnt is baked into a program.
        simnet = learnt(data, fields.simnet_from) if sim else {}
        extra = {'net': stats, 'simnet': simnet}
        return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), extra)

    def sample(key, data):
        keys, given = jax.random.split(key, 3), training(fields, data, roles)
        if fields.balance == 'sample':
            c = jax.random.randint(keys[0], (), 0, num)
            row = given.offset[c] + jax.random.randint(keys[1], (), 0, given.count[c])
        else:
            row = jax.random.randint(keys[0], (), 0, total)
        x = take(data, roles, row)
        if any(moves.values()):
            x = augment.affine(keys[2], x[None], **moves)[0]
        return Image(x, given.label[row], given.weight[row])

    def loss(params, stats, frozen, batch: Image, alpha: float):
        """Loss of the batch on this device; the graph is that of the batches on all devices."""
        h, stats = net.apply(params['net'], stats, batch.x, 'train')
        scores = product(h, params['head']['kernel']) + params['head']['bias'][None]
        log_prob = jax.nn.log_softmax(scores)
        named = jnp.take_along_axis(log_prob, batch.y[:, None], 1)[:, 0]
        value, rough = -jnp.mean(batch.weight * named), jnp.zeros(())
        metrics = {'accuracy': jnp.mean(jnp.argmax(scores, 1) == batch.y), 'cross_entropy': value}
        if sim and alpha:
            z = jax.lax.stop_gradient(sim.features(frozen, batch.x))
            every = lambda a: jax.lax.all_gather(a, AXIS, tiled=True)
            rough = graph_penalty(fields, sim, frozen, *map(every, (h, z, batch.y)))
        return value + alpha * rough, ({**metrics, 'roughness': rough}, stats)

    def move(carry, frozen, batch, alpha, rate):
        params, opt_state, stats = carry
        found = jax.value_and_grad(loss, has_aux=True)(params, stats, frozen, batch, alpha)
        (value, (metrics, stats)), grads = over_devices(found)
        step, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, jax.tree.map(lambda u: rate * u, step))
        metrics = {**metrics, 'loss': value, 'grad_norm': optax.tree.norm(grads)}
        return (params, opt_state, stats), metrics

    def update(state, batch, key):
        carry, frozen = (state.params, state.opt_state, state.extra['net']), state.extra['simnet']
        if fields.schedule == 'plain':
            carry, metrics = move(carry, frozen, batch, fields.alpha, 1.0)
        else:
            epoch = state.step // epoch_steps
            rate = 0.5 ** (epoch // fields.halve_epochs).astype(jnp.float32)
            later = epoch - fields.first_epochs
            pieces = config.batch_size // fields.small_batch
            # Every pieces-th image: the same small batches on any number of devices.
            deal = lambda a: jnp.moveaxis(a.reshape(-1, pieces, *a.shape[1:]), 1, 0)
            small = jax.tree.map(deal, batch)

            def in_small(carry):
                one = lambda carry, batch: move(carry, frozen, batch, 0.0, rate)
                carry, metrics = jax.lax.scan(one, carry, small)
                return carry, jax.tree.map(jnp.mean, metrics)

            carry, metrics = jax.lax.cond(
                (later >= 0) & (later % 2 == 0),
                lambda carry: move(carry, frozen, batch, fields.alpha, rate),
                in_small,
                carry,
            )
        params, opt_state, stats = carry
        return TrainState(state.step + 1, params, opt_state, {**state.extra, 'net': stats}), metrics

    def scores_of(state, x):
        h = embed(state, x)
        return product(h, state.params['head']['kernel']) + state.params['head']['bias'][None]

    def embed(state, x):
        return net.apply(state.params['net'], state.extra['net'], x, 'inductive')[0]

    chunk = jax.jit(scores_of)

    def every_score(state, x):
        return map_rows(partial(chunk, state), x, size=EMBED_CHUNK)

    def evaluate(state, data, key, role):
        right = lambda d, shift: (jnp.argmax(every_score(state, d.x), 1) == d.label + shift).astype(
            jnp.float32
        )
        unseen = right(data.roles[role], first_novel)
        if not fields.generalised:
            return {'accuracy': unseen}
        seen = right(data.roles['test_base'], 0)
        s, u = seen.mean(), unseen.mean()
        both = 2 * s * u / jnp.maximum(s + u, 1e-12)
        every = jnp.concatenate([seen, unseen])
        return {'accuracy': every, 'seen': seen, 'unseen': unseen, 'harmonic mean': both[None]}

    return Method(
        init=init,
        sample=sample,
        update=update,
        evaluate=evaluate,
        predict=lambda state, e: scores_of(state, e.x_q)[:, first_novel + e.class_id],
        embed=embed,
        export=lambda state, data, key: {
            'scores': every_score(state, data.roles['test'].x), 'label': data.roles['test'].label
        },
    )  # fmt: skip


def training(fields, data, roles) -> Training:
    """Labels, places and weights of the roles' items and classes, one role after another."""
    label, offset, count, weight, items, classes = [], [], [], [], 0, 0
    for role in roles:
        d = data.roles[role]
        label.append(d.label + classes)
        offset.append(d.offset + items)
        count.append(d.count)
        weight.append(web_weights(fields, data) if role == 'web' else jnp.ones(len(d.label)))
        items, classes = items + len(d.label), classes + len(d.count)
    made = Training(*map(jnp.concatenate, (weight, label, offset, count)))
    if fields.balance == 'loss':
        even = made.count.mean() / made.count
        made = made._replace(weight=made.weight * even[made.label])
    return made


def web_weights(fields, data) -> Array:
    """[N] of the web images.

    Raises:
      InputError: weights that don't belong to these images, or truth that isn't known.
    """
    web = data.roles['web']
    if not fields.weights_from:
        return jnp.ones(len(web.label))
    if fields.weights_from == 'truth':
        if web.clean is None:
            raise InputError(
                "config.method.weights_from='truth' needs to know which web labels are right: only "
                "config.data.name='noisy' does"
            )
        return web.clean.astype(jnp.float32)
    weight = exported(data, fields.weights_from, 'weights_from').get('weight')
    if weight is None or len(weight) != len(web.label):
        raise InputError(
            f'config.method.weights_from={fields.weights_from!r} holds no weights of these '
            f'{len(web.label)} web images: name a stage of weigh with the same config.data'
        )
    return jnp.asarray(weight, jnp.float32)


def take(data, roles, row: Array) -> Array:
    """Item number `row` of the roles' items one after another, without joining them."""
    x = data.roles[roles[-1]].x
    if len(roles) == 1:
        return x[row]
    first = data.roles[roles[0]].x
    inside = row < len(first)
    return jnp.where(inside, first[jnp.minimum(row, len(first) - 1)],
                     x[jnp.maximum(row - len(first), 0)])  # fmt: skip


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
