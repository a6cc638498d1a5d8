"""The space of a support set, its calibration and what is held out, against slow oracles."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import inv, sqrtm
from scipy.special import log_softmax, softmax

from anyshot_jax.classify import fitting, nearest_mean
from anyshot_jax.classify.nearest_mean import Head, place, scores, unit
from anyshot_jax.ops import calibration

RNG = np.random.default_rng(0)
PLAIN = {'power': 1.0, 'normalise': False, 'shrink': 0.4}


def support(counts=(5, 4, 7), dim=6, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(len(counts)), counts)
    x = 3 * rng.normal(size=(len(counts), dim))[label] + noise * rng.normal(size=(len(label), dim))
    return x.astype(np.float32), label


@pytest.mark.parametrize('dim', [6, 40])
@pytest.mark.parametrize('normalise', [False, True])
def test_the_space_is_the_inverse_root_of_the_shrunk_covariance(dim, normalise):
    """Written out with whole matrices, for fewer items than dimensions and more."""
    x, label = support(dim=dim)
    shrink, power = 0.3, 0.5
    how = {'power': power, 'normalise': normalise, 'shrink': shrink}
    space = nearest_mean.fit_space(x, label, 3, **how)
    z = np.sign(x) * np.sqrt(np.abs(np.float64(x)))
    z -= z.mean(0)
    length = lambda z: z / np.linalg.norm(z, axis=1, keepdims=True)
    z = length(z) if normalise else z
    within = sum((v - z[label == c].mean(0))[:, None] * (v - z[label == c].mean(0))
                 for v, c in zip(z, label, strict=True)) / len(z)  # fmt: skip
    trace = np.trace(within) / dim
    shrunk = (1 - shrink) * within + shrink * trace * np.eye(dim)
    want = z @ np.real(inv(sqrtm(shrunk))) * np.sqrt(shrink * trace)
    want = length(want) if normalise else want
    np.testing.assert_allclose(place(space, x), want, atol=2e-5)
    np.testing.assert_allclose(place(space, jnp.asarray(x), jnp), want, atol=2e-4)


def test_one_example_a_class_leaves_the_space_as_it_is():
    x, label = support((1, 1, 1))
    space = nearest_mean.fit_space(x, label, 3, **PLAIN)
    assert space.axes.shape == (6, 0)
    np.testing.assert_allclose(place(space, x), x - x.mean(0), atol=1e-6)


@pytest.mark.parametrize('normalise', [False, True])
def test_scores_by_hand(normalise):
    space = nearest_mean.no_support(2, 1.0, normalise)
    means = np.float32([[3, 4], [0, 0], [1, 0]])
    head = Head(space, means, np.float32([0, 0, 0.5]), np.float32(1), np.float32(-np.inf))
    z = np.float32([[0.6, 0.8]])
    want = [1, 0, 0.6 + 0.5] if normalise else [-16, -1, -(0.16 + 0.64) + 0.5]
    for xp in (np, jnp):
        np.testing.assert_allclose(scores(head, xp.asarray(z), xp)[0], want, atol=1e-6)


def test_every_class_keeps_an_example_and_all_are_held_out_once():
    label = np.array([0, 1, 1, 2, 2, 2, *[3] * 25])
    folds = calibration.held_out(label)
    rows = np.concatenate(folds)
    np.testing.assert_array_equal(np.sort(rows), np.arange(1, 31))  # not the lone one of class 0
    assert len(folds) == calibration.FOLDS
    for fold in folds:
        assert set(np.delete(label, fold)) == {0, 1, 2, 3}
    assert calibration.held_out(np.array([0, 1, 2])) == []
    assert [f.tolist() for f in calibration.held_out(np.array([0, 1, 0]))] == [[0], [2]]


def test_temperature_is_where_the_likelihood_is_largest():
    score = RNG.normal(size=(60, 4))
    label = np.array([RNG.choice(4, p=softmax(s / 0.3)) for s in score])
    got = calibration.fit_temperature(score, label)

    def loss(t):
        logp, share = log_softmax(score / t, axis=1), 1 / 61
        return -np.mean((1 - share) * logp[np.arange(60), label] + share * logp.mean(1))

    grid = np.exp(np.linspace(np.log(0.02), np.log(5), 4000))
    assert got == pytest.approx(grid[np.argmin([loss(t) for t in grid])], rel=5e-3)
    assert 0.2 < got < 0.45


def test_a_few_right_answers_are_not_certainty():
    score = np.array([[1.0, 0], [1.0, 0], [0, 1.0]])
    t = calibration.fit_temperature(score, np.array([0, 0, 1]))
    # Laplace: as if a fourth had been either, 3/4 + 1/8.
    np.testing.assert_allclose(softmax(score / t, axis=1).max(1), 7 / 8, atol=1e-3)


def test_threshold_by_hand():
    best = np.arange(99) / 100
    limit, expected = calibration.fit_threshold(best, 0.05)
    assert (limit, expected) == (0.04, 5 / 100)  # four below and a hundredth item to come
    limit, expected = calibration.fit_threshold(np.array([0.5, 0.2, 0.7]), 0.05)
    assert (limit, expected) == (0.2, 1 / 4)  # three can promise no more


def test_threshold_keeps_its_promise():
    rng = np.random.default_rng(1)
    limits = [calibration.fit_threshold(rng.normal(size=39), 0.1)[0] for _ in range(300)]
    called = [np.mean(rng.normal(size=2000) < limit) for limit in limits]
    assert np.mean(called) == pytest.approx(0.1, abs=0.01)


def test_held_out_items_are_judged_without_themselves():
    """An example far from its class that only its own presence would explain."""
    x, label = support((6, 6, 6), noise=0.1)
    x[0] = x[-1]  # called class 0, looks like class 2
    _, found = fitting.fit(x, label, 3, how=PLAIN)
    assert found.held_out[0, 0] < 0.1 and found.held_out[1:6, 0].min() > 0.5
    x, label = support((1, 3, 3))
    _, found = fitting.fit(x, label, 3, how=PLAIN)
    assert np.isnan(found.held_out[0]).all() and np.isfinite(found.held_out[1:]).all()


def test_fit_is_the_means_of_the_space():
    x, label = support()
    head, found = fitting.fit(x, label, 3, how=PLAIN)
    z = place(head.space, x)
    want = [z[label == c].mean(0) for c in range(3)]
    np.testing.assert_allclose(head.means, want, rtol=1e-5, atol=1e-5)
    assert not head.bias.any() and found.rejection.threshold == pytest.approx(head.threshold)


def test_unit_of_zeros_is_zeros():
    np.testing.assert_array_equal(unit(np.zeros((2, 3))), np.zeros((2, 3)))
