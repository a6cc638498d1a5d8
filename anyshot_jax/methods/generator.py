"""A contrastive generator: features of a class from its words and noise.

A conditional Wasserstein GAN with gradient penalty (f-CLSWGAN: Xian et al., "Feature generating
networks for zero-shot learning", CVPR 2018) with two contrasts in the embedding E (CE-GZSL: Han et
al., CVPR 2021, and its use on defects by Dong et al., IEEE TIM 2024): real items against real ones,
which trains E beside the critic, and real items against made ones, which trains the generator. A
step is `critic_steps` of the critic and E, then one of the generator.
`residual` adds what ridge regression predicts for the class, so that only the rest is learnt.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from anyshot_jax.config import check_above
from anyshot_jax.episodes.optim import build_optimizer
from anyshot_jax.nets.generator import Critic, Embedding, Generator
from anyshot_jax.ops.adversarial import contrast, gradient_penalty
from anyshot_jax.runtime.devices import from_all_devices, over_devices
from anyshot_jax.stages.left_out import joined_words
from anyshot_jax.stages.synthesis import FIELDS, predict_means, settings, synthesiser
from anyshot_jax.types import Array, InputError, TrainState

REPORT = 'anyshot'
DEFAULTS = {
    **FIELDS,
    'noise_dim': 64,
    'hidden': 512,
    'embedding': 128,
    'critic_steps': 5,
    'gradient_penalty': 10.0,
    'temperature': 0.1,
    'real_contrast': 1.0,  # weight for E, beside the critic
    'synthesised_contrast': 0.1,  # weight for the generator
    'residual': True,
}
TRACED = ('gradient_penalty', 'temperature', 'real_contrast', 'synthesised_contrast')


class Items(NamedTuple):
    """Items of one unit of a step: one for each of the critic's steps, and one more."""

    x: Array  # [critic_steps + 1, D]
    y: Array  # [critic_steps + 1] int32


class Nets(NamedTuple):
    """Without parameters; those are named alike."""

    generator: Generator
    critic: Critic
    embedding: Embedding


def build(config, data):
    """Generator of class features from descriptions.

    Args:
      config: of a run. data: features with class vectors (config.describe), roles train and test.
    Returns:
      The Method. Its extra: 'choice' (`stages/left_out.py`), and with it 'words' [C, A] and
      'means' [C, D] of the training classes.
    Raises:
      InputError: a field that can't be, or as `synthesis.check`.
    """
    fields = config.method
    _check(config)
    dim = next(iter(data.roles.values())).x.shape[-1]
    nets = Nets(
        Generator(dim, fields.hidden),
        Critic(fields.hidden),
        Embedding(fields.hidden, fields.embedding),
    )
    tx = build_optimizer(config.optim, config.num_steps * fields.critic_steps)

    def init(key, data):
        train, keys = data.roles['train'], jax.random.split(key, 3)
        choice = settings(config, data)
        words = joined_words(train, choice.colours)
        x, a = train.x[:2], words[:2]
        params = {
            'generator': nets.generator.init(keys[0], a, jnp.zeros((len(a), fields.noise_dim))),
            'critic': nets.critic.init(keys[1], x, jnp.repeat(a[:1], len(x), 0)),
            'embedding': nets.embedding.init(keys[2], x),
        }
        means = means_of(fields, data, train, choice)
        extra = {'choice': choice, 'words': words, 'means': means}
        opt_state = tuple(map(tx.init, split(params)))
        return TrainState(jnp.zeros((), jnp.int32), params, opt_state, extra)

    def sample(key, data):
        train, num = data.roles['train'], fields.critic_steps + 1
        keys = jax.random.split(key)
        y = jax.random.randint(keys[0], (num,), 0, len(train.count))
        row = train.offset[y] + jax.random.randint(keys[1], (num,), 0, train.count[y])
        return Items(train.x[row], y)

    def synthesise(state, data, key, dataset, count):
        num, choice = len(dataset.count), state.extra['choice']
        repeated = lambda a: jnp.repeat(a, count, 0)
        features = generate(
            fields,
            nets,
            state.params['generator'],
            repeated(means_of(fields, data, dataset, choice)),
            repeated(joined_words(dataset, choice.colours)),
            jax.random.split(key, num * count),
        )
        return features.reshape(num, count, dim)

    def centres(state, data, key, dataset):
        return synthesise(state, data, key, dataset, 100).mean(1)

    step = partial(update, fields, nets, tx)
    make = {'synthesise': synthesise, 'centres': centres}
    return synthesiser(config, data, **make, init=init, sample=sample, update=step)


def split(params: dict) -> tuple[dict, dict]:
    """Parameters of the generator, and of the critic with the embedding."""
    return params['generator'], {name: params[name] for name in ('critic', 'embedding')}


def means_of(fields, data, dataset, choice) -> Array:
    """[C, D] to which the generator adds: ridge regression's prediction, or 0."""
    if fields.residual:
        return predict_means(data, dataset, choice.colours, choice.penalty)
    return jnp.zeros((len(dataset.count), dataset.x.shape[-1]))


def generate(fields, nets: Nets, params, means: Array, words: Array, key: Array) -> Array:
    """Features [N, D] for words [N, A], around means [N, D]; key [N]."""
    noise = jax.vmap(lambda k: jax.random.normal(k, (fields.noise_dim,)))(key)
    return means + nets.generator.apply(params, words, noise)


def critic_loss(fields, nets: Nets, generator, tables, critic, x, y, key):
    """Loss of critic and embedding on real features x [N, D] of classes y [N]; key [N]."""
    means, a = (table[y] for table in tables)
    keys = jax.vmap(jax.random.split)(key)
    synthetic = generate(fields, nets, generator, means, a, keys[:, 0])
    between = jax.vmap(jax.random.uniform)(keys[:, 1])[:, None]
    apply: Any = nets.critic.apply
    real_or_not = lambda x: apply(critic['critic'], x, a)
    penalty = gradient_penalty(real_or_not, between * x + (1 - between) * synthetic)
    distance = real_or_not(x).mean() - real_or_not(synthetic).mean()
    f, all_y = from_all_devices((nets.embedding.apply(critic['embedding'], x), y))
    pull = contrast(f, f, all_y, all_y, fields.temperature, own=jnp.eye(len(f), dtype=bool))
    value = fields.gradient_penalty * penalty - distance + fields.real_contrast * pull
    return value, {'wasserstein': distance, 'real_contrast': pull}


def generator_loss(fields, nets: Nets, critic, tables, generator, x, y, key):
    """Loss of the generator beside real features x [N, D] of classes y [N]; key [N]."""
    means, a = (table[y] for table in tables)
    synthetic = generate(fields, nets, generator, means, a, key)
    scores: Any = nets.critic.apply(critic['critic'], synthetic, a)
    score = scores.mean()
    target, embedded = (nets.embedding.apply(critic['embedding'], f) for f in (x, synthetic))
    target, embedded, all_y = from_all_devices((jax.lax.stop_gradient(target), embedded, y))
    pull = contrast(target, embedded, all_y, all_y, fields.temperature)
    return fields.synthesised_contrast * pull - score, {'synthesised_contrast': pull}


def update(fields, nets: Nets, tx, state, batch: Items, key):
    """`critic_steps` of critic and embedding, then one of the generator."""
    keys = jax.vmap(jax.random.split, (0, None), 1)(key, fields.critic_steps + 1)
    generator, critic = split(state.params)
    tables = state.extra['means'], state.extra['words']

    def critic_step(carry, items):
        critic, opt_state = carry
        loss = partial(critic_loss, fields, nets, generator, tables)
        (_, metrics), grads = over_devices(jax.value_and_grad(loss, has_aux=True)(critic, *items))
        updates, opt_state = tx.update(grads, opt_state, critic)
        return (optax.apply_updates(critic, updates), opt_state), metrics

    turn = lambda a: jnp.moveaxis(a, 1, 0)  # steps first
    steps = (turn(batch.x)[:-1], turn(batch.y)[:-1], keys[:-1])
    start = critic, state.opt_state[1]
    (critic, critic_state), metrics = jax.lax.scan(critic_step, start, steps)

    loss = partial(generator_loss, fields, nets, critic, tables)
    last = batch.x[:, -1], batch.y[:, -1], keys[-1]
    (value, more), grads = over_devices(jax.value_and_grad(loss, has_aux=True)(generator, *last))
    updates, generator_state = tx.update(grads, state.opt_state[0], generator)
    params = {'generator': optax.apply_updates(generator, updates), **critic}
    metrics = {**jax.tree.map(jnp.mean, metrics), **more, 'loss': value}
    opt_state = generator_state, critic_state
    return TrainState(state.step + 1, params, opt_state, state.extra), metrics


def _check(config) -> None:
    fields = config.method
    check_above(fields, critic_steps=0, noise_dim=0, temperature=0)
    if config.num_steps and config.batch_size < 2:
        raise InputError('config.batch_size must be >= 2: a contrast needs several items')
