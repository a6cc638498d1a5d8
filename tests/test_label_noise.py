"""Wrong labels by a mixture: the share that was planted, and none where there is none."""

import numpy as np
import pytest
from scipy.optimize import minimize

from anyshot_jax.ops.label_noise import fit_label_noise


def drawn(share, seed=0, num=600, classes=8, sharpness=6.0):
    """Scores whose softmax at `sharpness` is the truth, labels, and which of them are wrong."""
    rng = np.random.default_rng(seed)
    score = rng.normal(size=(num, classes)) + 1.5 * np.eye(classes)[rng.integers(0, classes, num)]
    p = np.exp(sharpness * score)
    truth = np.array([rng.choice(classes, p=row / row.sum()) for row in p])
    wrong = rng.random(num) < share
    label = np.where(wrong, (truth + rng.integers(1, classes, num)) % classes, truth)
    return score, label, wrong


def test_the_planted_share_is_the_likeliest():
    """The grid's best is near the optimum of the same likelihood by scipy's simplex."""
    score, label, wrong = drawn(0.05)
    fitted = fit_label_noise(score, label)

    def loss(parameters):
        sharp, share = np.exp(parameters[0]), 1 / (1 + np.exp(-parameters[1]))
        p = np.exp(sharp * (score - score.max(1, keepdims=True)))
        right = p[np.arange(len(p)), label] / p.sum(1)
        return -np.log((1 - share) * right + share * (1 - right) / 7).sum()

    best = minimize(loss, [1.0, -3.0], method='Nelder-Mead').x
    assert fitted.share == pytest.approx(1 / (1 + np.exp(-best[1])), abs=0.015)
    assert fitted.share == pytest.approx(wrong.mean(), abs=0.025)
    listed = fitted.wrong > 0.5
    assert np.mean(wrong[listed]) > 0.75  # precision
    assert np.mean(listed[wrong]) > 0.5  # recall: some wrong labels are likely ones, too
    # What it says of its own precision is so.
    assert fitted.wrong[listed].mean() == pytest.approx(np.mean(wrong[listed]), abs=0.15)
    # Scores matter up to a factor, and an offset of each row.
    other = fit_label_noise(7 * score + np.arange(600)[:, None], label)
    np.testing.assert_allclose(other.wrong, fitted.wrong, atol=1e-6)


@pytest.mark.parametrize('seed', range(5))
def test_a_classifier_that_is_often_wrong_accuses_nobody(seed):
    score, label, _ = drawn(0.0, seed, sharpness=2.0)
    assert 0.4 < np.mean(score.argmax(1) == label) < 0.85
    fitted = fit_label_noise(score, label)
    assert fitted.share == 0 and not fitted.wrong.any()


def test_too_little_says_nothing():
    for score in (np.zeros((1, 3)), np.zeros((9, 1))):
        assert fit_label_noise(score, np.zeros(len(score), int)).share == 0
