"""Sinkhorn's plans, against POT and against rounds in double precision."""

from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from anyshot_jax.ops.transport import sinkhorn

pytestmark = pytest.mark.slow


@partial(jax.jit, static_argnames='max_rounds')
def plan(*args, **limits):
    return sinkhorn(*args, **limits)[0]


def oracle(cost, rows, columns, sharpness=10.0, rounds=3000):
    """Many rounds in logarithms and doubles, masked rows taken out first."""
    rows, columns = np.asarray(rows, float), np.asarray(columns, float)
    logits = -sharpness * np.asarray(cost, float)[rows > 0]
    f, g = np.log(rows[rows > 0]), np.zeros(len(columns))
    for _ in range(rounds):
        u = f - logsumexp(logits + g, axis=1)
        g = np.log(columns) - logsumexp(logits + u[:, None], axis=0)
    full = np.zeros(cost.shape)
    full[rows > 0] = np.exp(logits + u[:, None] + g)
    return full


def costs(num=15, ways=3, seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).random((num, ways))).astype(np.float32)


def check_sums(got, rows, columns, atol=3e-5):
    got = np.asarray(got)
    assert got.min() >= 0
    np.testing.assert_allclose(got.sum(1), rows, atol=atol)
    np.testing.assert_allclose(got.sum(0), columns, rtol=1e-5, atol=1e-5)


@pytest.mark.originals
@pytest.mark.parametrize('columns', [(5, 5, 5), (1, 6, 8)], ids=str)
@pytest.mark.parametrize('scale', [0.1, 2.0])
def test_plan_is_pots(columns, scale):
    ot = pytest.importorskip('ot')
    cost, rows = costs(scale=scale), np.ones(15, np.float32)
    args = np.ones(15) / 15, np.array(columns) / 15, cost.astype(float), 0.1
    want = 15 * ot.sinkhorn(*args, method='sinkhorn_log', stopThr=1e-8)
    got = plan(cost, rows, np.array(columns, np.float32))
    np.testing.assert_allclose(got, want, atol=1e-4)
    check_sums(got, rows, columns)


@settings(max_examples=25)
@given(
    st.integers(0, 10**6),
    st.lists(st.booleans(), min_size=15, max_size=15).filter(any),
    st.lists(st.integers(1, 9), min_size=3, max_size=3),
    st.sampled_from([0.0, 0.3, 3.0]),
)
def test_sums_are_those_asked_for(seed, there, columns, scale):
    rows = np.array(there, np.float32)
    got = plan(costs(seed=seed, scale=scale), rows, np.array(columns, np.float32))
    columns = np.array(columns) * rows.sum() / sum(columns)
    check_sums(got, rows, columns)
    assert not np.asarray(got)[rows == 0].any()


@pytest.mark.parametrize('far', [5.0, 30.0, 1e3])
@pytest.mark.parametrize('where', ['column', 'columns', 'row', 'block'])
def test_costs_may_lie_far_apart(far, where):
    cost, rows = costs(), np.ones(15, np.float32)
    places = {'column': np.s_[:, 1], 'columns': np.s_[:, 1:], 'row': 4, 'block': np.s_[:7, 1:]}
    cost[places[where]] += far
    columns = np.array([8, 3, 4] if where == 'block' else [5, 5, 5], np.float32)
    got = plan(cost, rows, columns)
    check_sums(got, rows, columns)
    # A float holds 1000 to 6e-5, ten times that in the exponent.
    np.testing.assert_allclose(got, oracle(cost, rows, columns), atol=1e-4 + 2e-6 * far)


def test_what_does_not_converge_stops_and_is_finite():
    cost, rows, columns = costs(scale=1e3), np.ones(15, np.float32), np.full(3, 5, np.float32)
    for rounds in (1, 30, 1000):
        got = np.asarray(plan(cost, rows, columns, max_rounds=rounds))
        assert np.isfinite(got).all()
    np.testing.assert_allclose(got.sum(0), columns, rtol=1e-4)


def test_rounds_stop_at_their_maximum():
    cost, rows, columns = costs(), np.ones(15, np.float32), np.full(3, 5, np.float32)
    got = plan(cost, rows, columns, max_rounds=2)
    np.testing.assert_allclose(got, oracle(cost, rows, columns, rounds=2), rtol=1e-4)
    assert np.abs(got.sum(1) - 1).max() > 1e-3


def test_rows_that_are_not_there_are_not_there():
    cost, rows = costs(seed=3), np.array([1, 0, 1, 1, 0] * 3, np.float32)
    cost[rows == 0] = 1e6
    got = plan(cost, rows, np.ones(3, np.float32))
    np.testing.assert_allclose(got, oracle(cost, rows, np.full(3, 3)), atol=1e-4)
    assert not np.asarray(plan(cost, 0 * rows, np.ones(3, np.float32))).any()


@pytest.mark.parametrize('far', [0, 100])
def test_a_class_nobody_is_expected_in_gets_nobody(far):
    cost, rows = costs() + np.float32([0, -1000, far]), np.ones(15, np.float32)  # 1 is the nearest
    got = np.asarray(plan(cost, rows, np.array([10, 0, 5], np.float32)))
    want = oracle(cost[:, [0, 2]], rows, [10, 5])
    np.testing.assert_allclose(got[:, [0, 2]], want, atol=1e-3)
    assert not got[:, 1].any()


def test_a_row_counts_by_its_differences():
    cost, rows, columns = costs(), np.ones(15, np.float32), np.full(3, 5, np.float32)
    moved = cost + 50 * np.arange(15, dtype=np.float32)[:, None]
    np.testing.assert_allclose(plan(moved, rows, columns), plan(cost, rows, columns), atol=5e-4)


def test_vmap_is_one_by_one():
    cost = np.stack([costs(seed=s, scale=scale) for s, scale in enumerate([0.1, 1, 4, 40])])
    rows = np.random.default_rng(0).integers(0, 2, (4, 15)).astype(np.float32)
    columns = np.array([[1, 2, 3], [5, 5, 5], [1, 1, 9], [2, 1, 1]], np.float32)
    one_by_one = [plan(*args) for args in zip(cost, rows, columns, strict=True)]
    got = jax.jit(jax.vmap(plan))(cost, rows, columns)
    np.testing.assert_allclose(got, one_by_one, atol=1e-5)
