"""Regression on sine waves: the sampler, MAML's update by hand, errors, and a whole run."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyshot_jax import config as configs
from anyshot_jax.episodes import sampling
from anyshot_jax.training import loop
from anyshot_jax.types import InputError

pytestmark = pytest.mark.slow

KEY = jax.random.key(5)


def small(**method):
    config = configs.defaults('maml_regression', 'sinusoid', 'mlp')
    config.net.update({'hidden': (), 'features': 1})
    config.train.update({'ways': 1, 'shots': 3, 'queries': 4})
    config.eval.update({'tasks': ((1, 3), (1, 2)), 'queries': 6, 'episodes': 5, 'val_episodes': 4})
    config.optim.update({'name': 'sgd', 'learning_rate': 1.0, 'momentum': 0.0})
    config.method.update(method)
    return config


def build(config):
    data = configs.find('data', 'sinusoid').load(config.data)
    method = configs.find('methods', 'maml_regression').build(config, data)
    return method, data, jax.jit(method.init)(KEY, data)


def test_points_lie_on_waves_in_range():
    _, data, _ = build(small())
    keys = jax.random.split(KEY, 400)
    draw = jax.jit(jax.vmap(lambda k: sampling.sample_function(k, data.functions['train'], 20, 30)))
    e = jax.tree.map(np.asarray, draw(keys))
    assert e.x_s.shape == (400, 20, 1) and e.y_q.shape == (400, 30, 1)
    x = np.concatenate([e.x_s, e.x_q], 1)[..., 0].astype(np.float64)
    y = np.concatenate([e.y_s, e.y_q], 1)[..., 0]
    assert x.min() >= -5 and x.max() <= 5 and abs(x.mean()) < 0.1
    # a sin(x) + b cos(x) with a = A cos(phase), b = -A sin(phase), by least squares per task.
    basis = np.stack([np.sin(x), np.cos(x)], -1)
    fit = [np.linalg.lstsq(m, v, rcond=None)[0] for m, v in zip(basis, y, strict=True)]
    a, b = np.array(fit).T
    np.testing.assert_allclose(np.einsum('nik,nk->ni', basis, fit), y, atol=1e-4)
    amplitude, phase = np.hypot(a, b), np.arctan2(-b, a) % (2 * np.pi)
    assert amplitude.min() > 0.09 and amplitude.max() < 5.01 and amplitude.std() > 1.2
    assert phase.min() > -1e-4 and phase.max() < np.pi + 1e-4 and phase.std() > 0.8


def test_more_shots_keep_the_points():
    _, data, _ = build(small())
    few = sampling.sample_function(KEY, data.functions['test'], 2, 6)
    many = sampling.sample_function(KEY, data.functions['test'], 5, 6)
    np.testing.assert_array_equal(few.x_s, many.x_s[:2])
    np.testing.assert_array_equal(few.y_q, many.y_q)


@pytest.mark.parametrize('inner_steps, order', [(0, 'second'), (1, 'second'), (2, 'first')])
def test_update_of_a_line_by_hand(inner_steps, order):
    """y = w x + b: descent in closed form, its outer gradient by the chain rule with I - lr H."""
    with jax.enable_x64(True):
        method, data, state = build(small(inner_steps=inner_steps, order=order, inner_lr=0.02))
        state = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), state)
        batch = jax.vmap(method.sample, (0, None))(jax.random.split(KEY, 3), data)
        batch = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), batch)
        one = jax.tree.map(lambda a: a[None], (batch, jax.random.split(KEY, 3)))
        update = jax.vmap(method.update, (None, 0, 0), axis_name='devices')
        after, metrics = update(state, *one)
    flat = lambda p: np.array([p['Dense_0']['kernel'].reshape(()), p['Dense_0']['bias'][0]])
    start = flat(state.params)
    design = lambda x: np.stack([x, np.ones_like(x)], -1)
    slope = lambda p, x, y: 2 * design(x).T @ (design(x) @ p - y) / len(x)
    losses, grads = [], []
    for x_s, y_s, x_q, y_q in zip(*(np.asarray(a)[..., 0] for a in batch[:4]), strict=True):
        hessian = 2 * design(x_s).T @ design(x_s) / len(x_s)
        p, chain = start, np.eye(2)
        for _ in range(inner_steps):
            p = p - 0.02 * slope(p, x_s, y_s)
            chain = chain @ (np.eye(2) - 0.02 * hessian) if order == 'second' else chain
        losses.append(np.mean((design(x_q) @ p - y_q) ** 2))
        grads.append(chain.T @ slope(p, x_q, y_q))
    np.testing.assert_allclose(metrics['loss'][0], np.mean(losses), rtol=1e-9)
    moved = start - flat(jax.tree.map(lambda a: np.asarray(a)[0], after.params))
    np.testing.assert_allclose(moved, np.mean(grads, 0), rtol=1e-8)


def test_errors_are_those_of_the_predictions():
    config = small(eval_steps=(0, 1, 3), inner_lr=0.02)
    method, data, state = build(config)
    values = method.evaluate(state, data, KEY, 'test')
    assert list(values) == [
        f'{k}-shot after {n}' for k in (3, 2) for n in ('0 steps', '1 step', '3 steps')
    ]
    weights = state.params['Dense_0']
    for i in range(5):
        e = sampling.sample_function(jax.random.fold_in(KEY, i), data.functions['test'], 2, 6)
        e = jax.tree.map(np.asarray, e)
        w, b = float(weights['kernel'][0, 0]), float(weights['bias'][0])
        for n in range(4):
            if n in (0, 1, 3):
                name = f'2-shot after {n} step{"" if n == 1 else "s"}'
                want = np.mean((w * e.x_q + b - e.y_q) ** 2)
                np.testing.assert_allclose(values[name][i], want, rtol=1e-4)
            off = w * e.x_s + b - e.y_s
            w, b = w - 0.02 * 2 * np.mean(off * e.x_s), b - 0.02 * 2 * np.mean(off)
    # Validation chooses by the task and the steps of training.
    assert next(iter(method.evaluate(state, data, KEY, 'val'))) == '3-shot after 1 step'


def test_a_whole_run_keeps_the_smallest_error(tmp_path, capsys):
    config = small()
    config.update({'num_steps': 8, 'steps_per_call': 2, 'batch_size': 2, 'eval_every': 2})
    config.update({'log_every': 2, 'save_every': 4})
    config.optim.learning_rate = 1e-3
    loop.run(config, tmp_path / 'run')
    lines = [json.loads(x) for x in (tmp_path / 'run/metrics.jsonl').read_text().splitlines()]
    val = {x['step']: x['3-shot after 1 step'] for x in lines if x['kind'] == 'val'}
    result = json.loads((tmp_path / 'run/result.json').read_text())
    assert result['step'] == min(val, key=val.get)
    assert result['measure']['name'] == 'mean squared error'
    shown = capsys.readouterr().out
    mean = result['values']['2-shot after 10 steps']['mean']
    assert '%' not in shown.replace('95 % CI', '') and f'{mean:.4f}' in shown
    page = (tmp_path / 'run/report.html').read_text()
    assert page.count('after 10 steps') > 4 and f'{mean:.4f}' in page
    assert 'Before and after adapting' in page and 'confusion' not in page


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'eval': {'tasks': ((5, 1),)}}, r'tasks=.*5, 1.*a function is a task of 1 way'),
        ({'method': {'order': 'frist'}}, "did you mean 'first'"),
        ({'method': {'inner_steps': -1}}, 'inner_steps and eval_steps must be >= 0'),
        ({'data': {'phase': (1.0, 1.0)}}, r'config\.data\.phase = .*need \(from, to\)'),
    ],
)
def test_what_can_not_be_used_is_refused(change, message):
    config = small()
    config.update(change)
    with pytest.raises(InputError, match=message):
        build(config)


def test_functions_and_classes_are_not_mixed_up():
    waves = configs.find('data', 'sinusoid').load(configs.defaults('knn', 'sinusoid').data)
    config = configs.defaults('maml', 'sinusoid', 'conv4')
    with pytest.raises(InputError, match=r'holds functions.*maml_regression'):
        configs.find('methods', 'maml').build(config, waves)
    classes = configs.find('data', 'synthetic').load(configs.defaults('knn', 'synthetic').data)
    with pytest.raises(InputError, match=r'holds no functions.*data\.name=sinusoid'):
        configs.find('methods', 'maml_regression').build(small(), classes)
