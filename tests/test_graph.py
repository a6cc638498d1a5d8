"""The graph of an episode's samples, against loops over single entries."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from anyshot_jax.ops.graph import centre_groups, graph_embedding, largest

embed = jax.jit(graph_embedding, static_argnames=('neighbours', 'power', 'self_weight'))
SETTING = {'neighbours': 3, 'power': 2, 'self_weight': 0.6}


def oracle(x, neighbours, power, self_weight):
    """Entry by entry, in double precision."""
    num = len(x)
    x = np.asarray(x, np.float64)
    sim = np.zeros((num, num))
    for i in range(num):
        for j in range(num):
            if i != j:
                sim[i, j] = x[i] @ x[j] / np.sqrt((x[i] @ x[i]) * (x[j] @ x[j]))
    edge = np.zeros((num, num), bool)
    for i in range(num):
        for j in sorted(range(num), key=lambda j: (-sim[i, j], j))[:neighbours]:
            edge[i, j] = edge[j, i] = True
    sim *= edge
    degree = sim.sum(0)
    walk = self_weight * np.eye(num)
    for i in range(num):
        for j in range(num):
            if degree[i] > 1e-6 and degree[j] > 1e-6:
                walk[i, j] += sim[i, j] / np.sqrt(degree[i] * degree[j])
    return softmax(np.linalg.matrix_power(walk, power), axis=1)


def samples(num=12, dim=7, seed=0, offset=1.0):
    x = np.random.default_rng(seed).normal(offset, 1, (num, dim))
    return x.astype(np.float32)


@pytest.mark.parametrize(
    ('neighbours', 'power', 'self_weight'),
    [(4, 1, 0.75), (10, 9, 0.4), (1, 3, 0), (11, 2, 0.5), (12, 2, 0.5), (50, 1, 0.3)],
)
@pytest.mark.parametrize('offset', [1.0, 0.3])
def test_embedding_is_that_of_a_loop(neighbours, power, self_weight, offset):
    x = samples(offset=offset)
    kwargs = {'neighbours': neighbours, 'power': power, 'self_weight': self_weight}
    got = np.asarray(embed(x, **kwargs))
    np.testing.assert_allclose(got, oracle(x, **kwargs), atol=2e-5, rtol=1e-3)
    np.testing.assert_allclose(got.sum(1), 1, atol=1e-6)


def test_all_others_is_the_most_that_there_are():
    x = samples(6)
    kwargs = {'power': 1, 'self_weight': 0.5}
    few, many = (graph_embedding(x, neighbours=k, **kwargs) for k in (6, 600))
    np.testing.assert_array_equal(few, many)


def test_embedding_survives_the_triangular_factor():
    """The released code first replaces X by the R of a QR of its transpose."""
    x = samples(dim=40)
    r = np.linalg.qr(x.T)[1].T
    assert r.shape == (12, 12)
    np.testing.assert_allclose(embed(r, **SETTING), embed(x, **SETTING), atol=1e-5)


def test_samples_without_similar_ones_have_no_edges():
    x = np.array([[1.0, 0], [-1, 0]], np.float32)  # degree -1 where both are kept, else 0
    for neighbours in (1, 2):
        got = embed(x, neighbours=neighbours, power=2, self_weight=0.5)
        np.testing.assert_allclose(got, softmax(0.25 * np.eye(2), axis=1), atol=1e-6)
    got = np.asarray(embed(np.zeros((3, 2), np.float32), **SETTING))
    np.testing.assert_allclose(got, softmax(0.36 * np.eye(3), axis=1), atol=1e-6)


def test_exactly_k_neighbours_where_many_tie():
    x = np.eye(3, dtype=np.float32)[[0, 1, 0, 0, 1, 0, 2, 0]]  # similarities exactly 0 or 1
    for neighbours in (1, 2, 3):
        kwargs = {'neighbours': neighbours, 'power': 1, 'self_weight': 0.5}
        np.testing.assert_allclose(embed(x, **kwargs), oracle(x, **kwargs), atol=1e-6)


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.integers(-1, 2), min_size=5, max_size=5), min_size=6, max_size=6),
    st.sampled_from([1, 3, 6, 9]),
)
def test_largest_of_each_column_the_upper_first(values, k):
    sim = np.array(values, np.float32)
    sim[sim < 0] = -np.inf
    got = np.asarray(largest(jnp.array(sim), k))
    want = np.zeros_like(got)
    np.put_along_axis(want, np.argsort(-sim, axis=0, kind='stable')[:k], True, 0)
    want |= sim == -np.inf
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize('neighbours', [3, 10, 12])  # 10: more than there are
@pytest.mark.parametrize('seed', range(2))
def test_rows_that_are_not_valid_are_not_there(neighbours, seed):
    valid = np.random.default_rng(seed).permutation(12) < 8
    x = samples(seed=seed)
    x[~valid] *= 1e3 * np.sign(x[~valid])  # as similar as can be to all
    setting = SETTING | {'neighbours': neighbours}
    got = np.asarray(embed(x, **setting, valid=valid))
    np.testing.assert_allclose(got[np.ix_(valid, valid)], embed(x[valid], **setting), atol=1e-6)
    assert not got[~valid].any() and not got[:, ~valid].any()


def test_order_of_samples_moves_with_them():
    x, order = samples(), np.random.default_rng(0).permutation(12)
    got = embed(x[order], **SETTING)
    np.testing.assert_allclose(got, np.asarray(embed(x, **SETTING))[order][:, order], atol=1e-6)


def test_vmap_is_one_by_one():
    x = np.stack([samples(seed=s) for s in range(3)])
    valid = np.random.default_rng(0).random((3, 12)) < 0.7
    run = lambda x, valid: graph_embedding(x, **SETTING, valid=valid)
    one_by_one = [embed(a, **SETTING, valid=v) for a, v in zip(x, valid, strict=True)]
    np.testing.assert_allclose(jax.jit(jax.vmap(run))(x, valid), one_by_one, atol=1e-6)


def test_groups_are_centred_apart():
    x, group = samples(9), np.array([0, 1, 1, 0, 1, 0, 1, 1, 2])
    got = np.asarray(centre_groups(x, group, 3))
    length = lambda a: np.linalg.norm(a, axis=1, keepdims=True)
    for g in (0, 1):
        rows = x[group == g] / length(x[group == g])
        rows = rows - rows.mean(0)
        np.testing.assert_allclose(got[group == g], rows / length(rows), atol=1e-5)
    assert np.abs(got[8]).max() < 1e-3  # the mean of one row is the row


def test_centring_leaves_out_rows_that_are_not_valid():
    x, group = samples(9), np.array([0, 1, 1, 0, 1, 0, 1, 1, 0])
    valid = np.array([1, 1, 0, 1, 1, 1, 0, 1, 0], bool)
    centre = partial(centre_groups, num_groups=2)
    got = np.asarray(jax.jit(centre)(x, group, valid=valid))
    np.testing.assert_allclose(got[valid], centre(x[valid], group[valid]), atol=1e-6)
    assert not got[~valid].any()
