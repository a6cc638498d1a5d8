"""Weights from similarities, by hand and by slow loops, and what they do at the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyshot_jax.ops import graph, weighting

pytestmark = pytest.mark.slow


def ideal(clean):
    """1 where both are right, and of an item with itself; else 0."""
    clean = np.asarray(clean)
    return jnp.asarray((clean[:, None] & clean[None, :]) | np.eye(len(clean), dtype=bool), float)


def test_weights_of_an_ideal_similarity():
    """Of ten, four right: they are like four of ten, the others like themselves, 1 of ten."""
    clean = np.arange(10) < 4
    weight = weighting.mean_similarity(ideal(clean))
    np.testing.assert_allclose(weight, np.where(clean, 0.4, 0.1), rtol=1e-6)
    # Without the diagonal it is the 1/f of the paper, up to the item itself: 0 for wrong ones, and
    # the mean 4/10 of 3/9.
    weight = weighting.mean_similarity(ideal(clean), diagonal=False)
    even = weighting.normalise(weight, jnp.zeros(10, int), 1)
    np.testing.assert_allclose(even, np.where(clean, 1 / 0.4, 0), rtol=1e-6)


def test_rows_and_columns():
    sim = jnp.array([[1.0, 0.8], [0.2, 1.0]])
    np.testing.assert_allclose(weighting.mean_similarity(sim, columns=False), [0.9, 0.6], rtol=1e-6)
    np.testing.assert_allclose(weighting.mean_similarity(sim), [0.75, 0.75], rtol=1e-6)


@pytest.mark.parametrize(('share', 'kept'), [(0.3, 3), (0.5, 5), (0.05, 1), (1.0, 10)])
def test_top_entries(share, kept):
    sim = np.random.default_rng(0).random((10, 10))
    want = [(np.sort(sim[i])[-kept:].mean() + np.sort(sim[:, i])[-kept:].mean()) / 2
            for i in range(10)]  # fmt: skip
    np.testing.assert_allclose(weighting.mean_similarity(sim, share=share), want, rtol=1e-6)


@pytest.mark.parametrize('share', [0.5, 1.0])
def test_padding_changes_nothing(share):
    sim = np.random.default_rng(1).random((6, 6), np.float32)
    wide = np.full((9, 9), 5.0, np.float32)
    wide[:6, :6] = sim
    valid = np.arange(9) < 6
    got = weighting.mean_similarity(wide, share=share, valid=valid)
    np.testing.assert_allclose(got[:6], weighting.mean_similarity(sim, share=share), rtol=1e-6)
    np.testing.assert_array_equal(got[6:], 0)
    got = weighting.density(wide, 0.4, valid=valid)
    np.testing.assert_array_equal(got[:6], weighting.density(sim, 0.4))


def test_density_counts_the_near():
    """Distances 0 0.1 0.9 / 0.1 0 0.8 / 0.9 0.8 0: the median of nine is 0.1."""
    sim = 1 - jnp.array([[0, 0.1, 0.9], [0.1, 0, 0.8], [0.9, 0.8, 0]])
    np.testing.assert_array_equal(weighting.density(sim, 0.5), [2, 2, 1])


def test_stretch():
    x = jnp.array([0, 0.1, 0.5, 1])
    np.testing.assert_array_equal(weighting.stretch(x, 0), x)
    np.testing.assert_allclose(weighting.stretch(x, -4), [0, 0.3358, 0.8808, 1], atol=1e-4)


def test_normalised_weights_have_mean_one_in_every_class():
    weight, label = jnp.array([1.0, 3.0, 5.0, 0.0, 0.0]), jnp.array([0, 0, 1, 2, 2])
    got = weighting.normalise(weight, label, 3)
    np.testing.assert_allclose(got, [0.5, 1.5, 1, 1, 1], rtol=1e-6)  # all dissimilar: all count


def test_a_single_image_of_a_class_counts():
    sim = jnp.array([[0.2]])
    for diagonal in (True, False):
        weight = weighting.mean_similarity(sim, diagonal=diagonal)
        np.testing.assert_allclose(weighting.normalise(weight, jnp.zeros(1, int), 1), [1.0])
    three = jnp.array([[1, 0.9, 0.1], [0.9, 1, 0.1], [0.1, 0.1, 1]])
    label = jnp.array([0, 0, 1])
    weight = weighting.vote_weights(three, label, 2, 5)
    assert weight[2] == 1 and bool(jnp.isfinite(weight).all())


@pytest.mark.parametrize('kind', ['mean', 'votes', 'bounded'])
def test_weights_stay_finite_where_all_are_dissimilar(kind):
    sim, label = jnp.zeros((6, 6)), jnp.array([0, 0, 0, 1, 1, 1])
    make = {
        'mean': lambda: weighting.mean_similarity(sim),
        'votes': lambda: weighting.vote_weights(sim, label, 2, 5),
        'bounded': lambda: weighting.bounded(jnp.zeros(6), label, 2, 0.3),
    }
    np.testing.assert_array_equal(weighting.normalise(make[kind](), label, 2), 1)


def test_bounded():
    weight = jnp.array([0.0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    got = weighting.bounded(weight, jnp.zeros(11, int), 1, 0.5)  # nine tenths lie at 9
    np.testing.assert_allclose(got, np.minimum(np.arange(11) / 4.5, 1), rtol=1e-6)


def votes_by_loop(sim, label, weight, num):
    n, found = len(label), np.zeros((len(label), num))
    for i in range(n):
        for c in range(num):
            others = [j for j in range(n) if j != i and label[j] == c]
            mass = sum(weight[j] for j in others)
            if mass > 1e-9:
                like = sum(weight[j] * (sim[i, j] + sim[j, i]) / 2 for j in others)
                found[i, c] = like / mass
    return found


def test_votes_and_their_rounds():
    rng = np.random.default_rng(2)
    sim, label = rng.random((9, 9), np.float32), np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
    weight = rng.random(9, np.float32)
    want = votes_by_loop(sim, label, weight, 3)
    np.testing.assert_allclose(weighting.votes(sim, label, weight, 3), want, rtol=1e-5)
    weight = np.ones(9)
    for _ in range(3):
        found = votes_by_loop(sim, label, weight, 3)
        own = found[np.arange(9), label]
        weight = own * own / found.sum(1)
    got = weighting.vote_weights(jnp.asarray(sim, jnp.float32), label, 3, 3)
    np.testing.assert_allclose(got, weight, rtol=1e-4)


def test_votes_find_a_image_of_another_class():
    """Item 3 is called 0, looks like the 1s, and like the 0s as much as an odd right one does."""
    label = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    true = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    sim = np.where(true[:, None] == true[None, :], 0.9, 0.1)
    sim[2, :2] = sim[:2, 2] = 0.1
    mean = weighting.mean_similarity(jnp.asarray(sim[:4, :4]))
    np.testing.assert_allclose(mean[2], 0.3, rtol=1e-6)  # (0.9 + 3 * 0.1) / 4, as
    np.testing.assert_allclose(mean[3], 0.3, rtol=1e-6)  # the wrong one
    weight = weighting.vote_weights(jnp.asarray(sim, jnp.float32), label, 2, 3)
    assert weight[3] < 0.3 * weight[2]


def test_auroc():
    score, right = jnp.array([0.1, 0.4, 0.4, 0.8]), jnp.array([False, False, True, True])
    # Pairs: (0.4, 0.1) 1, (0.4, 0.4) 1/2, (0.8, 0.1) 1, (0.8, 0.4) 1.
    np.testing.assert_allclose(weighting.auroc(score, right), 3.5 / 4, rtol=1e-6)
    assert np.isnan(weighting.auroc(score, jnp.ones(4, bool)))


# The graph.


def test_smoothness_is_the_trace_with_the_laplacian():
    rng = np.random.default_rng(3)
    h, a = rng.normal(size=(7, 4)), rng.random((7, 7))
    slow = np.mean([[a[i, j] * np.sum((h[i] - h[j]) ** 2) for j in range(7)] for i in range(7)])
    np.testing.assert_allclose(graph.smoothness(h, a), slow, rtol=1e-5)
    a = (a + a.T) / 2
    laplacian = np.diag(a.sum(1)) - a
    want = 2 / 7**2 * np.trace(h.T @ laplacian @ h)
    np.testing.assert_allclose(graph.smoothness(h, a), want, rtol=1e-5)


def test_gradient_of_smoothness():
    """d R / d H = 4/n^2 L H for symmetric A."""
    rng = np.random.default_rng(4)
    h, a = rng.normal(size=(5, 3)), rng.random((5, 5))
    a = (a + a.T) / 2
    want = 4 / 25 * (np.diag(a.sum(1)) - a) @ h
    got = jax.grad(graph.smoothness)(jnp.asarray(h, jnp.float32), jnp.asarray(a, jnp.float32))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_cosine_gap():
    h = jnp.array([[2.0, 0], [0, 3.0], [1.0, 0]])
    a = jnp.array([[1.0, 0, 0], [0, 1, 0.5], [1, 0, 1]])
    # Cosines 1 0 1 / 0 1 0 / 1 0 1: they differ from A by 1 and by 1/2.
    np.testing.assert_allclose(graph.cosine_gap(h, a), 1.25 / 9, rtol=1e-5)
