"""A contrastive generator: features of a class from its words and noise.

A conditional Wasserstein GAN with gradient penalty (f-CLSWGAN: Xian et al., "Feature generating
networks for zero-shot learning", CVPR 2018) with two contrasts in the embedding E (CE-GZSL: Han et
al., CVPR 2021, and its use on defects by Dong et al., IEEE TIM 2024): real items against real ones,
which trains E beside the critic, and real items against made ones, which trains the generator. A
step is `critic_steps` of the critic and E, then one of the generator.
`residual` adds what ridge regression predicts for the class, so that only the rest is learnt.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from anyshot_jax.episodes.optim import build_optimizer
from anyshot_jax.nets.generator import Critic, Embedding, Generator
from anyshot_jax.ops.adversarial import contrast, gradient_penalty
from anyshot_jax.runtime.devices import AXIS, over_devices
from anyshot_jax.stages.synthesis import FIELDS, predict_means, synthesiser, words
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
    'penalty': 1.0,  # of that ridge regression
}


class Items(NamedTuple):
    """Items of one unit of a step: one for each of the critic's steps, and one more."""

    x: Array  # [critic_steps + 1, D]
    y: Array  # [critic_steps + 1] int32


def build(config, data):
    fields = config.method
    if min(fields.critic_steps, fields.noise_dim) < 1 or fields.temperature <= 0:
        raise InputError(
            'config.method.critic_steps and noise_dim must be >= 1 and temperature > 0'
        )
    if config.num_steps and config.batch_size < 2:
        raise InputError('config.batch_size must be >= 2: a contrast needs several items')
    dim = next(iter(data.roles.values())).x.shape[-1]
    generator, critic = Generator(dim, fields.hidden), Critic(fields.hidden)
    embedding = Embedding(fields.hidden, fields.embedding)
    tx = build_optimizer(config.optim, config.num_steps * fields.critic_steps)

    def init(key, data):
        train, keys = data.roles['train'], jax.random.split(key, 3)
        x, a = train.x[:2], words(train)[:2]
        params = {
            'generator': generator.init(keys[0], a, jnp.zeros((len(a), fields.noise_dim))),
            'critic': critic.init(keys[1], x, jnp.repeat(a[:1], len(x), 0)),
            'embedding': embedding.init(keys[2], x),
        }
        made, judge = split(params)
        extra = {'words': words(train), 'means': given_means(data, train)}
        return TrainState(jnp.zeros((), jnp.int32), params, (tx.init(made), tx.init(judge)), extra)

    def split(params):
        judge = {name: params[name] for name in ('critic', 'embedding')}
        return params['generator'], judge

    def given_means(data, dataset):
        if fields.residual:
            return predict_means(data, dataset, fields.penalty)
        return jnp.zeros((len(dataset.count), dim))

    def make(params, means, words, key):
        """Features [N, D] of words [N, A]; key [N]."""
        noise = jax.vmap(lambda k: jax.random.normal(k, (fields.noise_dim,)))(key)
        return means + generator.apply(params, words, noise)

    def sample(key, data):
        train, num = data.roles['train'], fields.critic_steps + 1
        keys = jax.random.split(key)
        y = jax.random.randint(keys[0], (num,), 0, len(train.count))
        row = train.offset[y] + jax.random.randint(keys[1], (num,), 0, train.count[y])
        return Items(train.x[row], y)

    def update(state, batch, key):
        keys = jax.vmap(jax.random.split, (0, None), 1)(key, fields.critic_steps + 1)
        made, judge = split(state.params)
        tables = state.extra['means'], state.extra['words']

        def judge_loss(judge, x, y, key):
            means, a = (table[y] for table in tables)
            keys = jax.vmap(jax.random.split)(key)
            synthesised = make(made, means, a, keys[:, 0])
            between = jax.vmap(jax.random.uniform)(keys[:, 1])[:, None]
            real_or_not = lambda x: critic.apply(judge['critic'], x, a)
            penalty = gradient_penalty(real_or_not, between * x + (1 - between) * synthesised)
            distance = real_or_not(x).mean() - real_or_not(synthesised).mean()
            f, all_y = of_all((embedding.apply(judge['embedding'], x), y))
            own = jnp.eye(len(f), dtype=bool)
            pull = contrast(f, f, all_y, all_y, fields.temperature, own=own)
            value = fields.gradient_penalty * penalty - distance + fields.real_contrast * pull
            return value, {'wasserstein': distance, 'real_contrast': pull}

        def judge_step(carry, given):
            judge, opt_state = carry
            found = jax.value_and_grad(judge_loss, has_aux=True)(judge, *given)
            (_, metrics), grads = over_devices(found)
            updates, opt_state = tx.update(grads, opt_state, judge)
            return (optax.apply_updates(judge, updates), opt_state), metrics

        turn = lambda a: jnp.moveaxis(a, 1, 0)  # steps first
        steps = (turn(batch.x)[:-1], turn(batch.y)[:-1], keys[:-1])
        start = judge, state.opt_state[1]
        (judge, judge_state), metrics = jax.lax.scan(judge_step, start, steps)

        def made_loss(made):
            x, y = batch.x[:, -1], batch.y[:, -1]
            means, a = (table[y] for table in tables)
            synthesised = make(made, means, a, keys[-1])
            fool = critic.apply(judge['critic'], synthesised, a).mean()
            real, synthesised = (embedding.apply(judge['embedding'], f) for f in (x, synthesised))
            real, synthesised, all_y = of_all((jax.lax.stop_gradient(real), synthesised, y))
            pull = contrast(real, synthesised, all_y, all_y, fields.temperature)
            return fields.synthesised_contrast * pull - fool, {'synthesised_contrast': pull}

        found = jax.value_and_grad(made_loss, has_aux=True)(made)
        (value, more), grads = over_devices(found)
        updates, made_state = tx.update(grads, state.opt_state[0], made)
        params = {'generator': optax.apply_updates(made, updates), **judge}
        metrics = {**jax.tree.map(jnp.mean, metrics), **more, 'loss': value}
        return TrainState(state.step + 1, params, (made_state, judge_state), state.extra), metrics

    def synthesise(state, data, key, dataset, count):
        num = len(dataset.count)
        repeated = lambda a: jnp.repeat(a, count, 0)
        made = make(
            state.params['generator'],
            repeated(given_means(data, dataset)),
            repeated(words(dataset)),
            jax.random.split(key, num * count),
        )
        return made.reshape(num, count, dim)

    parts = {'init': init, 'sample': sample, 'update': update}
    return synthesiser(config, data, synthesise=synthesise, **parts)


def of_all(local):
    """Arrays [N, ...] joined with those of the other devices: contrasts are taken among all."""
    return jax.tree.map(lambda a: jax.lax.all_gather(a, AXIS, tiled=True), local)
