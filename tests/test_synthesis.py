"""Features made from words: ridge regression and the generator, on classes whose words tell all."""

import jax
import numpy as np
import pytest

from anyshot_jax import config as configs
from anyshot_jax.ops.colour import COLOURS
from anyshot_jax.runtime.devices import on_all_devices
from anyshot_jax.stages.synthesis import predict_means, weigh
from anyshot_jax.training.step import make_step
from anyshot_jax.types import Data, InputError, from_arrays

pytestmark = pytest.mark.slow

KEY = jax.random.key(5)
DIM, WORDS = 12, 6


def classes(num, rng, tell=True, colours=False, noise=0.05, per_class=8):
    """Items around means that are a fixed linear map of the class's words (of length 1)."""
    matrix = np.random.default_rng(9).normal(size=(WORDS, DIM))
    words = rng.normal(size=(num, WORDS))
    words /= np.linalg.norm(words, axis=1, keepdims=True)
    label = np.repeat(np.arange(num), per_class)
    x = words @ matrix if tell else rng.normal(size=(num, DIM))
    x = x[label] + noise * rng.normal(size=(len(label), DIM))
    extras = {'attribute': words.astype(np.float32)}
    if colours:
        named = np.eye(len(COLOURS), dtype=np.float32)[np.arange(num) % len(COLOURS)]
        x = np.concatenate([x, named[label] + noise * rng.normal(size=(len(x), 11))], 1)
        extras['colours'] = named
    return from_arrays(x.astype(np.float32), label, extras=extras)


def data_of(seed=0, **fields):
    rng = np.random.default_rng(seed)
    return Data({'train': classes(30, rng, **fields), 'test': classes(6, rng, **fields)})


def built(data, name='ridge', **fields):
    config = configs.defaults(name, 'synthetic')
    config.method.update(fields)
    config.update({'num_steps': 0 if name == 'ridge' else 4, 'batch_size': 8})
    config.optim.update({'name': 'sgd', 'learning_rate': 0.01})  # Adam normalises small gradients
    return configs.find('methods', name).build(config, data)


def values_of(method, data):
    data = on_all_devices(data)
    state = on_all_devices(jax.jit(method.init)(KEY, data))
    return {k: np.asarray(v) for k, v in method.evaluate(state, data, KEY, 'test').items()}


def test_ridge_against_the_normal_equations():
    data = data_of(colours=True)
    got = np.asarray(predict_means(data, data.roles['test'], 1.0, 0.7))
    seen, new = data.roles['train'], data.roles['test']
    means = np.stack([seen.x[seen.label == c].mean(0) for c in range(30)]).astype(np.float64)
    length = lambda a: a / np.linalg.norm(a, axis=1, keepdims=True)
    blocks = lambda d: (length(d.extras['attribute']), 0.7 * length(d.extras['colours']))
    said = lambda d: np.concatenate(blocks(d), 1)
    a, b = said(seen), said(new)
    a, b = length(a - a.mean(0)), length(b - said(seen).mean(0))
    # The other form: (A'A + penalty I)^-1 A' M.
    w = np.linalg.solve(a.T @ a + 0.7 * np.eye(a.shape[1]), a.T @ (means - means.mean(0)))
    np.testing.assert_allclose(got[:, :-11], (means.mean(0) + b @ w)[:, :-11], atol=1e-4)
    # Every colour is named as often as shown: the slope is near 1.
    shown = new.extras['colours'] - seen.extras['colours'].mean(0)
    np.testing.assert_allclose(got[:, -11:], shown, atol=0.1)


def test_words_that_tell_all_and_words_that_tell_nothing():
    values = values_of(built(data_of()), data_of())
    assert list(values) == ['zero-shot', 'zero-shot, balanced']
    assert values['zero-shot'].shape == (6,) and values['zero-shot'].mean() > 0.95
    guessed = [values_of(built(d), d)['zero-shot'].mean()
               for d in (data_of(s, tell=False) for s in range(8))]  # fmt: skip
    assert abs(np.mean(guessed) - 1 / 6) < 0.12


def test_generalised_zero_shot():
    """Means of three seen classes and made ones of the new; the calibration shifts between them."""
    data = data_of()
    held = classes(30, np.random.default_rng(0))  # the words and means of train, as drawn there
    data.roles['test_seen'] = held
    values = values_of(built(data), data)
    assert list(values)[2:] == ['seen', 'unseen', 'harmonic mean']
    s, u = values['seen'].mean(), values['unseen'].mean()
    np.testing.assert_allclose(values['harmonic mean'], 2 * s * u / (s + u), rtol=1e-5)
    assert s > 0.9
    only_new = values_of(built(data, choose=False, calibration=10.0), data)
    assert only_new['seen'].max() == 0
    np.testing.assert_allclose(only_new['unseen'], only_new['zero-shot'])
    only_seen = values_of(built(data, choose=False, calibration=-10.0), data)
    assert only_seen['unseen'].max() == 0 and only_seen['harmonic mean'] == 0


def test_weight_of_colours():
    x = np.random.default_rng(0).normal(size=(4, 20)).astype(np.float32)
    z = np.asarray(weigh(x, 0.5, True))
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-5)
    ratio = np.linalg.norm(z[:, 9:], axis=1) / np.linalg.norm(z[:, :9], axis=1)
    np.testing.assert_allclose(ratio, 0.5, rtol=1e-5)
    assert not np.asarray(weigh(x, 0.0, True))[:, 9:].any()


@pytest.fixture(scope='module')
def trained():
    """Data, the method, its first state and that after some steps on two devices."""
    data = on_all_devices(data_of(noise=0.3))
    sizes = {'hidden': 32, 'embedding': 8, 'noise_dim': 4}
    method = built(data, 'generator', **sizes, synthesised_contrast=5.0)
    init = on_all_devices(jax.jit(method.init)(KEY, data))
    step = make_step(method, batch_size=8, steps_per_call=2)
    state, metrics = init, None
    for _ in range(2):
        state, metrics = step(jax.tree.map(np.asarray, state), data, KEY)
    return data, method, init, state, metrics


def test_generator_trains(trained):
    data, method, init, state, metrics = trained
    assert int(state.step) == 4
    assert jax.tree.structure(state) == jax.tree.structure(init)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves((state.params, metrics)))
    assert set(metrics) == {'wasserstein', 'real_contrast', 'synthesised_contrast', 'loss'}
    for name in ('generator', 'critic', 'embedding'):
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max() > 0,
                             state.params[name]['params'], init.params[name]['params'])  # fmt: skip
        assert all(jax.tree.leaves(moved)), name
    assert method.evaluate(state, data, KEY, 'test')['zero-shot'].mean() > 0.8  # by its residual


def test_generator_is_the_same_on_one_device(trained):
    data, method, init, state, _ = trained
    one = [jax.devices()[0]]
    step = make_step(method, batch_size=8, steps_per_call=2, devices=one)
    alone = jax.tree.map(np.asarray, init)
    for _ in range(2):
        alone, _ = step(jax.tree.map(np.asarray, alone), jax.device_put(data, one[0]), KEY)
    for a, b in zip(*map(jax.tree.leaves, (alone.params, state.params)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_generator_makes_different_items(trained):
    data, method, _, state, _ = trained
    made = method.export(state, data, KEY)
    assert made.pop('colours').shape == ()
    assert {k: v.shape for k, v in made.items()} == {'train': (30, 20, DIM), 'test': (6, 20, DIM)}
    spread = np.asarray(made['test']).std(1)
    assert (spread > 0).all()


def test_refusals():
    data = data_of()
    with pytest.raises(InputError, match=r'set config.describe.by'):
        built(Data({r: d.replace(extras={}) for r, d in data.roles.items()}))
    said = data.roles['test'].replace(texts=('a', 'b', '', 'd', 'e', 'f'))
    with pytest.raises(InputError, match="test class '2' has no description"):
        built(Data({**data.roles, 'test': said}))
    images = data.roles['test'].replace(x=np.zeros((48, 4, 4, 1), np.uint8))
    with pytest.raises(InputError, match=r'set config.encoder or config.features_from'):
        built(Data({**data.roles, 'test': images}))
    with pytest.raises(InputError, match='penalty must be > 0'):
        built(data, penalty=0.0)
    with pytest.raises(InputError, match=r'set config.num_steps=0'):
        config = configs.defaults('ridge', 'synthetic')
        configs.find('methods', 'ridge').build(config, data)
