"""Pure functions against slow oracles: NumPy loops, SciPy, scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import KNeighborsClassifier

from anyshot_jax.ops.contrastive import contrastive
from anyshot_jax.ops.distance import cosine, squared_euclidean
from anyshot_jax.ops.graph import cosine_graph
from anyshot_jax.ops.prototype import attention, class_means, nearest_per_class
from anyshot_jax.ops.transport import sinkhorn


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(('n', 'm', 'd'), [(1, 1, 1), (5, 3, 7), (2, 40, 64)])
def test_squared_euclidean_is_scipys(n, m, d):
    a, b = normal(n, d), normal(m, d, seed=1)
    np.testing.assert_allclose(squared_euclidean(a, b), cdist(a, b, 'sqeuclidean'), rtol=1e-5)


def test_squared_euclidean_is_never_negative():
    a = 1000 * normal(50, 30)
    dist = np.asarray(squared_euclidean(a, a))
    assert dist.min() >= 0
    # Cancellation: about 1e-6 of the squared length, as the docstring says.
    assert np.diag(dist).max() <= 4e-6 * (a**2).sum(1).max()


@pytest.mark.parametrize(('n', 'm', 'd'), [(1, 1, 1), (5, 3, 7), (2, 40, 64)])
def test_cosine_is_sklearns(n, m, d):
    a, b = normal(n, d), normal(m, d, seed=1)
    np.testing.assert_allclose(cosine(a, b), cosine_similarity(a, b), atol=1e-6)


def test_cosine_of_zero_vectors_is_zero_with_finite_gradients():
    a = np.stack([np.zeros(4, np.float32), normal(4)])
    sim = np.asarray(cosine(a, a))
    np.testing.assert_allclose(sim, [[0, 0], [0, 1]], atol=1e-6)
    grads = jax.grad(lambda a, b: cosine(a, b).sum(), (0, 1))(jnp.array(a), jnp.array(a))
    assert all(np.isfinite(g).all() for g in grads)


def test_cosine_does_not_depend_on_length():
    a, b = normal(4, 6), normal(5, 6, seed=1)
    np.testing.assert_allclose(cosine(100 * a, b / 100), cosine(a, b), atol=1e-5)


# Items of each class.
ragged = pytest.mark.parametrize('counts', [(1,), (3, 3), (2, 0, 5), (0, 1, 0, 4)], ids=str)


@ragged
@pytest.mark.parametrize('seed', range(3))
def test_class_means_are_those_of_a_loop(counts, seed):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    x = normal(len(y), 2, 3, seed=seed)
    want = [x[y == c].mean(0) if n else np.zeros((2, 3)) for c, n in enumerate(counts)]
    np.testing.assert_allclose(class_means(x, y, len(counts)), want, atol=1e-6)


def test_class_means_by_hand():
    x = np.array([[1.0, 2], [3, 4], [10, 20]], np.float32)
    got = class_means(x, np.array([2, 2, 0]), 3)
    np.testing.assert_allclose(got, [[10, 20], [0, 0], [2, 3]])


def test_nearest_per_class_is_sklearns_one_nearest_neighbour():
    x, y = normal(20, 3), np.random.default_rng(1).permutation(np.repeat(np.arange(4), 5))
    query = normal(50, 3, seed=2)
    scores = nearest_per_class(-squared_euclidean(query, x), y, 4)
    want = KNeighborsClassifier(1).fit(x, y).predict(query)
    np.testing.assert_array_equal(np.argmax(scores, -1), want)
    dist = cdist(query, x, 'sqeuclidean')
    want = -np.stack([dist[:, y == c].min(1) for c in range(4)], 1)
    np.testing.assert_allclose(scores, want, rtol=1e-4, atol=1e-5)


def test_nearest_per_class_without_items_is_minus_infinity():
    got = nearest_per_class(np.array([[1.0, 2]], np.float32), np.array([0, 2]), 3)
    np.testing.assert_array_equal(got, [[1, -np.inf, 2]])


@ragged
@pytest.mark.parametrize('seed', range(3))
def test_attention_is_that_of_a_loop(counts, seed):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    sim = 5 * normal(3, len(y), seed=seed)
    got = np.asarray(attention(sim, y, len(counts)))
    for c, n in enumerate(counts):
        if n:
            want = logsumexp(sim[:, y == c], axis=1) - logsumexp(sim, axis=1)
            np.testing.assert_allclose(got[:, c], want, atol=1e-4)
        else:
            assert (got[:, c] < -1e29).all()
    np.testing.assert_allclose(np.exp(got).sum(1), 1, atol=1e-5)


def test_attention_on_an_absent_class_has_finite_gradients():
    grad = jax.grad(lambda s: attention(s, jnp.array([0, 2]), 3)[:, 0].sum())
    assert np.isfinite(grad(jnp.array([[1.0, 2.0]]))).all()


@pytest.mark.parametrize(
    'call',
    [
        lambda: class_means(np.ones((4, 2)), np.zeros((4, 1), int), 2),
        lambda: nearest_per_class(np.ones((3, 4)), np.zeros(3, int), 2),
        lambda: attention(np.ones((3, 4)), np.zeros(3, int), 2),
        lambda: sinkhorn(np.ones((3, 2)), np.ones((3, 1)), np.ones(2)),
        lambda: contrastive(np.ones((3, 3)), np.ones((3, 1), bool), 0.5),
        lambda: cosine_graph(np.ones((1, 3)), neighbours=1, power=1, self_weight=1.0),
    ],
    ids=['class_means', 'nearest', 'attention', 'sinkhorn', 'contrastive', 'graph'],
)
def test_shapes_that_would_be_broadcast_are_refused(call):
    with pytest.raises(AssertionError, match=r'shape'):
        call()
