"""Schedules, update rules and one step, by hand."""

import jax
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from anyshot_jax.config import SPINE
from anyshot_jax.episodes.optim import build_optimizer, schedule
from anyshot_jax.episodes.update import chunk_size, gradient_update
from anyshot_jax.runtime.devices import AXIS
from anyshot_jax.types import InputError, TrainState

PARAMS = {
    'conv': {'kernel': [[1, -2], [3, 0.5]], 'bias': [1, -1]},
    'head': {'kernel': [[2]], 'bias': [4]},
}
PARAMS = {n: {k: np.array(v, np.float32) for k, v in p.items()} for n, p in PARAMS.items()}
GRADS = jax.tree.map(lambda p: np.float32(0.5 * p + 0.25), PARAMS)


def optim(**fields):
    config = ConfigDict(SPINE['optim']).lock()
    config.update(fields)
    return config


def rates(steps, num_steps=100, **fields):
    rate = schedule(optim(learning_rate=0.8, **fields), num_steps)
    return [float(rate(s)) for s in steps]


def moved(num=1, num_steps=10, **fields):
    """PARAMS after `num` updates with GRADS."""
    tx = build_optimizer(optim(**fields), num_steps)

    @jax.jit
    def run(params, grads):
        state = tx.init(params)
        for _ in range(num):
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params

    return run(PARAMS, GRADS)


def assert_close(got, want):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got, want)


def test_constant():
    assert rates([0, 50, 1000]) == pytest.approx([0.8] * 3)


def test_cosine_ends_at_zero():
    got = rates([0, 25, 50, 100, 200], schedule='cosine')
    quarter = 0.4 * (1 + np.cos(np.pi / 4))
    assert got == pytest.approx([0.8, quarter, 0.4, 0, 0], abs=1e-6)


def test_linear_ends_at_zero():
    got = rates([0, 20, 60, 100, 200], schedule='linear', warmup_steps=20)
    assert got == pytest.approx([0, 0.8, 0.4, 0, 0], abs=1e-6)


def test_halve():
    got = rates([0, 9, 10, 19, 20, 35], schedule='halve', halve_every=10)
    assert got == pytest.approx([0.8, 0.8, 0.4, 0.4, 0.2, 0.1])


def test_warmup_rises_from_zero_and_the_rest_follows_it():
    fields = {'warmup_steps': 20, 'schedule': 'cosine'}
    got = rates([0, 5, 20, 60, 100], **fields)
    assert got == pytest.approx([0, 0.2, 0.8, 0.4, 0], abs=1e-6)  # the cosine spans 20..100
    assert rates([0, 10, 20, 99], warmup_steps=20) == pytest.approx([0, 0.4, 0.8, 0.8])


def test_sgd_with_momentum():
    lr, m = 0.1, 0.9
    want = jax.tree.map(lambda p, g: p - lr * g - lr * (g + m * g), PARAMS, GRADS)
    assert_close(moved(2, name='sgd', learning_rate=lr, momentum=m), want)
    plain = jax.tree.map(lambda p, g: p - 2 * lr * g, PARAMS, GRADS)
    assert_close(moved(2, name='sgd', learning_rate=lr, momentum=0.0), plain)


def test_first_step_of_adam_is_the_learning_rate():
    want = jax.tree.map(lambda p, g: p - 0.01 * np.sign(g), PARAMS, GRADS)
    assert_close(moved(name='adam', learning_rate=0.01), want)


def test_decay_is_on_kernels_only():
    lr, decay = 0.1, 0.5
    fields = {'learning_rate': lr, 'weight_decay': decay, 'momentum': 0.0}

    def kernels(function):
        step = jax.tree.map(lambda p, g: p - lr * g, PARAMS, GRADS)
        return {
            name: {'bias': layer['bias'], 'kernel': function(step[name]['kernel'], layer['kernel'])}
            for name, layer in {n: {**PARAMS[n], 'bias': step[n]['bias']} for n in PARAMS}.items()
        }

    assert_close(moved(name='sgd', **fields), kernels(lambda new, old: new - lr * decay * old))
    # adamw: decoupled, so that the step is the rule's own less lr * decay * p.
    adam, adamw = (moved(name=n, learning_rate=lr, weight_decay=w)
                   for n, w in (('adam', 0.0), ('adamw', decay)))  # fmt: skip
    for name in PARAMS:
        np.testing.assert_allclose(adam[name]['bias'], adamw[name]['bias'])
        gone = adam[name]['kernel'] - adamw[name]['kernel']
        np.testing.assert_allclose(gone, lr * decay * PARAMS[name]['kernel'], rtol=1e-4)
    # adam: L2 in the gradient, whose scale Adam's first step forgets.
    l2 = moved(name='adam', learning_rate=lr, weight_decay=decay)
    sign = np.sign(GRADS['conv']['kernel'] + decay * PARAMS['conv']['kernel'])
    np.testing.assert_allclose(
        l2['conv']['kernel'], PARAMS['conv']['kernel'] - lr * sign, rtol=1e-4
    )


def test_clipping_bounds_the_norm_of_all_gradients_together():
    norm = float(np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(GRADS))))
    fields = {'name': 'sgd', 'learning_rate': 1.0, 'momentum': 0.0}
    want = jax.tree.map(lambda p, g: p - g * 0.1 / norm, PARAMS, GRADS)
    assert_close(moved(clip_norm=0.1, **fields), want)
    assert_close(moved(clip_norm=100 * norm, **fields), moved(**fields))


@pytest.mark.parametrize('name', ['sgd', 'adam', 'adamw'])
def test_frozen_subtrees_stay_as_they_are(name):
    fields = {'name': name, 'learning_rate': 0.1, 'weight_decay': 0.1}
    got, free = moved(3, frozen=('conv',), **fields), moved(3, **fields)
    jax.tree.map(np.testing.assert_array_equal, got['conv'], PARAMS['conv'])
    assert_close(got['head'], free['head'])
    biases = moved(frozen=('bias',), **fields)
    np.testing.assert_array_equal(biases['head']['bias'], PARAMS['head']['bias'])
    assert (biases['head']['kernel'] != PARAMS['head']['kernel']).all()


@pytest.mark.parametrize('name', ['sgd', 'adam'])
def test_layers_have_learning_rates_of_their_own(name):
    """Three steps: each layer's way is that of a run at its own rate."""
    fields = {'name': name, 'weight_decay': 0.1}
    got = moved(3, learning_rate=0.1, layer_rates=(('conv', 0.5), ('head', 2.0)), **fields)
    assert_close(got['conv'], moved(3, learning_rate=0.05, **fields)['conv'])
    assert_close(got['head'], moved(3, learning_rate=0.2, **fields)['head'])


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'layer_rates': (('covn', 2.0),)}, r"layer_rates names \['covn'\]; parameters: .*'conv'"),
        ({'name': 'adan'}, r"optim.name must be adam, adamw or sgd, got 'adan'"),
        ({'schedule': 'cosin'}, r"constant, cosine, linear or halve, got 'cosin'"),
        ({'frozen': ('covn',)}, r"frozen names \['covn'\]; parameters: .*'conv'"),
    ],
)
def test_unknown_names(fields, message):
    with pytest.raises(InputError, match=message):
        moved(**fields)


# From a loss to one step (update.py).

X, Y = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)


def squares(params, extra, batch, key):
    """Mean over units of |w * x - y|^2; `extra` becomes the batch's mean of x."""
    x, y = batch
    error = ((params['w'][None] * x - y) ** 2).sum(1)
    metrics = {'worst': error.mean(), 'draw': jax.vmap(jax.random.uniform)(key).mean()}
    return error.mean(), (metrics, {'mean': x.mean(0)})


def step(task_chunk, devices=1):
    """One update on X, Y by plain SGD."""
    tx = optax.sgd(0.1)
    params = {'w': np.array([1, -1, 2], np.float32)}
    state = TrainState(np.int32(4), params, tx.init(params), {'mean': np.zeros(3, np.float32)})
    update = jax.vmap(
        gradient_update(squares, tx, task_chunk=task_chunk), (None, 0, 0), axis_name=AXIS
    )
    keys = jax.random.split(jax.random.key(1), 6)
    split = lambda a: a.reshape(devices, -1, *a.shape[1:])
    return jax.jit(update)(state, (split(X), split(Y)), split(keys))


def test_one_step_by_hand():
    state, metrics = jax.tree.map(lambda a: a[0], step(task_chunk=6))
    w = np.array([1, -1, 2])
    gradient = (2 * (w * X - Y) * X).mean(0)
    np.testing.assert_allclose(state.params['w'], w - 0.1 * gradient, rtol=1e-5)
    assert int(state.step) == 5
    np.testing.assert_allclose(state.extra['mean'], X.mean(0), atol=1e-6)
    loss = ((w * X - Y) ** 2).sum(1).mean()
    np.testing.assert_allclose([metrics['loss'], metrics['worst']], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics['grad_norm'], np.linalg.norm(gradient), rtol=1e-5)
    assert metrics.keys() == {'loss', 'worst', 'draw', 'grad_norm'}


@pytest.mark.parametrize(
    ('task_chunk', 'devices'), [(1, 1), (2, 1), (3, 1), (4, 1), (0, 1), (1, 3)]
)
def test_chunks_and_devices_add_up_to_the_same_step(task_chunk, devices):
    want = jax.tree.map(lambda a: a[0], step(task_chunk=6))
    for d in range(devices):  # every device ends with the same
        got = jax.tree.map(lambda a, d=d: a[d], step(task_chunk, devices))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)


def test_chunk_sizes():
    assert [chunk_size(12, c) for c in (1, 2, 4, 5, 7, 12, 100)] == [1, 2, 4, 4, 6, 12, 12]
    assert chunk_size(7, 3) == 1
    assert chunk_size(8, 0) == 1  # on a CPU
