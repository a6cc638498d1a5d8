"""SimpleShot beside scikit-learn's nearest centroid on features normalised by hand."""

import jax
import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid

from anyshot_jax.config import defaults
from anyshot_jax.data.splits import split_items
from anyshot_jax.episodes.sampling import sample_episode
from anyshot_jax.methods import simpleshot
from anyshot_jax.types import InputError


@pytest.fixture(scope='module')
def data():
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(9), 12)
    x = (rng.normal(size=(9, 5))[label] + rng.normal(size=(108, 5)) + 4).astype(np.float32)
    roles = ['train'] * 3 + ['val'] * 3 + ['test'] * 3
    return split_items(x, label, [f'c{i}' for i in range(9)], roles)


def build(data, normalise):
    config = defaults('simpleshot', 'features')
    config.num_steps = 0
    config.method.normalise = normalise
    config.eval.update({'tasks': ((3, 1),), 'queries': 3})
    return simpleshot.build(config, data)


def by_hand(x, normalise, train):
    if normalise == 'cl2':
        x = x - train.mean(0)
    return x if normalise == 'none' else x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize('normalise', ['none', 'l2', 'cl2'])
def test_answers_are_those_of_nearest_centroids(data, normalise):
    method = build(data, normalise)
    state = method.init(jax.random.key(0), data)
    for i in range(5):
        episode = sample_episode(jax.random.key(i), data.roles['test'], ways=3, shots=4, queries=5)
        x_s, x_q = (by_hand(np.asarray(x), normalise, data.roles['train'].x) for x in episode[:3:2])
        want = NearestCentroid().fit(x_s, episode.y_s).predict(x_q)
        np.testing.assert_array_equal(method.predict(state, episode).argmax(-1), want)


def test_the_mean_is_that_of_training_items_only(data):
    method = build(data, 'cl2')
    state = method.init(jax.random.key(0), data)
    np.testing.assert_allclose(state.extra['mean'], data.roles['train'].x.mean(0), rtol=1e-6)


def test_an_unknown_normalisation_is_refused(data):
    with pytest.raises(InputError, match="did you mean 'cl2'"):
        build(data, 'cl2n')


def test_features_are_taken_to_a_power_before_their_length(data):
    config = defaults('simpleshot', 'features')
    config.num_steps = 0
    config.method.update({'normalise': 'l2', 'power': 0.5})
    config.eval.update({'tasks': ((3, 1),), 'queries': 3})
    method = simpleshot.build(config, data)
    state = method.init(jax.random.key(0), jax.device_put(data))
    x = np.array([[4.0, -9, 0], [1, 1, 16]], np.float32)
    roots = np.array([[2, -3, 0], [1, 1, 4]])
    want = roots / np.linalg.norm(roots, axis=1, keepdims=True)
    np.testing.assert_allclose(method.embed(state, x), want, rtol=1e-5)
