"""Chances of right labels: evidence by slow loops, the fit by hand, the share that was planted."""

import numpy as np
import pytest

from anyshot_jax.ops import label_evidence as evidence


def slow_evidence(sim, label, classes, t):
    """The definition, item by item."""
    near, num = np.exp((sim - 1) / t), len(label)

    def votes(weight):
        v = np.zeros((num, classes))
        for i in range(num):
            for c in range(classes):
                others = [j for j in range(num) if label[j] == c and j != i]
                mass = sum(weight[j] for j in others)
                if mass > 1e-9:
                    v[i, c] = sum(weight[j] * near[i, j] for j in others) / mass
        return v

    weight = np.ones(num)
    for _ in range(evidence.ROUNDS):
        v = votes(weight)
        own = v[np.arange(num), label]
        weight = own * own / v.sum(1)
    soft = t * np.log(np.maximum(votes(weight), 1e-12))
    own = soft[np.arange(num), label]
    other = [max(soft[i, c] for c in range(classes) if c != label[i]) for i in range(num)]
    high = [np.quantile(own[label == c], evidence.HIGH) for c in label]
    return np.stack([own - other, own - high], 1)


def test_evidence_is_its_definition():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(9, 4))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    label = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2])
    got = evidence.vote_evidence((z @ z.T).astype(np.float32), label, 3, 0.4)
    np.testing.assert_allclose(got, slow_evidence(z @ z.T, label, 3, 0.4), atol=1e-4)


def test_a_single_item_of_a_name_has_no_evidence():
    got = evidence.vote_evidence(np.eye(4, dtype=np.float32), np.array([0, 0, 0, 1]), 2, 0.4)
    np.testing.assert_array_equal(got[3], 0)
    assert np.isfinite(got).all()


def drawn(num, wrong, seed=0):
    """Evidence of right labels about (1, 0) and of wrong ones about (-1, -1)."""
    rng = np.random.default_rng(seed)
    right = rng.random(num) >= wrong
    return np.where(right[:, None], [1.0, 0.0], [-1.0, -1.0]) + rng.normal(size=(num, 2)), right


def test_the_fit_is_that_of_two_gaussians():
    """Of unit covariance: the slope is the difference of the means, the middle at even odds."""
    x, right = drawn(40_000, 0.5)
    fitted = evidence.fit_right_label(x, right)
    np.testing.assert_allclose(fitted.slope, [2, 1], atol=0.06)
    np.testing.assert_allclose(fitted.intercept, (1 + 1 - 1) / 2, atol=0.06)


def test_evidence_never_speaks_against_a_label():
    x, right = drawn(500, 0.5)
    fitted = evidence.fit_right_label(x * [1, -1], right)
    assert fitted.slope[1] == 0 and fitted.slope[0] > 1


@pytest.mark.parametrize('wrong', [0.0, 0.1, 0.6])
def test_the_share_here_is_found_whatever_it_was_there(wrong):
    fitted = evidence.fit_right_label(*drawn(4000, 0.3))
    x, right = drawn(4000, wrong, seed=1)
    share, chance = evidence.right_chance(fitted, x)
    np.testing.assert_allclose(share, wrong, atol=0.03)
    np.testing.assert_allclose(chance.mean(), right.mean(), atol=0.03)
