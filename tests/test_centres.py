"""Class centres drawn towards the queries, against a plain loop."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from anyshot_jax.ops.graph import centre_groups, graph_embedding
from anyshot_jax.ops.prototype import class_centres, class_means
from anyshot_jax.ops.transport import sinkhorn

WAYS, SHOTS, QUERIES, DIM = 3, 2, 4, 6
ONES = {'rows': np.ones(WAYS * QUERIES, np.float32), 'columns': np.ones(WAYS, np.float32)}
compiled = jax.jit(class_centres)


def run(*args, step=0.2, sharpness=10.0, **sums):
    """One program for all tests: compiling takes longer than anything else here."""
    return compiled(*args, **ONES | sums, step=step, sharpness=sharpness)


def oracle(x_s, weight_s, x_q, columns, rounds=20, step=0.2):
    """As the specification has it, in double precision, row by row."""
    x_s, weight_s, x_q = (np.asarray(a, float) for a in (x_s, weight_s, x_q))
    columns = np.asarray(columns, float) * len(x_q) / np.sum(columns)

    def plan(mu):
        p = np.exp(-10 * cdist(x_q, mu, 'sqeuclidean'))
        p /= p.sum()
        while np.abs(p.sum(1) - 1).max() > 1e-5:
            p /= p.sum(1, keepdims=True)
            p *= columns / p.sum(0)
        return p

    ways = weight_s.shape[1]
    path = [np.stack([np.average(x_s, axis=0, weights=weight_s[:, n]) for n in range(ways)])]
    for _ in range(rounds):
        x, p = np.concatenate([x_s, x_q]), np.concatenate([weight_s, plan(path[-1])])
        target = [sum(p[j, n] * x[j] for j in range(len(x))) / p[:, n].sum() for n in range(ways)]
        path.append(path[-1] + step * (np.stack(target) - path[-1]))
    return np.stack(path), plan(path[-1])


def task(seed=0, spread=0.7, dim=DIM, length=0.4):
    """Support and queries of one length, class by class; the support's weights.

    The longer they are, the more rounds a plan takes: at 0.4 up to 34, at 1 thousands.
    """
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=(WAYS, 1, dim)) * spread
    draw = lambda num: (middle + 0.5 * rng.normal(size=(WAYS, num, dim))).reshape(-1, dim)
    x_s, x_q = (draw(num).astype(np.float32) for num in (SHOTS, QUERIES))
    scaled = lambda a: length * a / np.linalg.norm(a, axis=1, keepdims=True)
    weight = np.repeat(np.eye(WAYS, dtype=np.float32), SHOTS, axis=0)
    return scaled(x_s), weight, scaled(x_q)


@pytest.mark.parametrize('columns', [(1, 1, 1), (4, 4, 8)], ids=str)
@pytest.mark.parametrize('weighted', [False, True])
def test_centres_are_those_of_a_loop(columns, weighted):
    x_s, weight, x_q = task()
    if weighted:
        weight = weight * np.array([1, 0.3, 0.2, 1, 0.5, 0.5], np.float32)[:, None]
    path, plan = run(x_s, weight, x_q, columns=np.array(columns, np.float32))
    assert path.shape == (21, WAYS, DIM)
    want_path, want_plan = oracle(x_s, weight, x_q, columns)
    np.testing.assert_allclose(path, want_path, atol=1e-4)
    np.testing.assert_allclose(plan, want_plan, atol=1e-3)


def test_no_step_is_the_nearest_centre_under_the_marginals():
    x_s, weight, x_q = task(1)
    path, plan = run(x_s, weight, x_q, step=0.0, sharpness=200.0)
    means = np.asarray(class_means(x_s, weight.argmax(1), WAYS))
    np.testing.assert_allclose(path, np.broadcast_to(means, path.shape), atol=1e-6)
    cost = cdist(x_q, means, 'sqeuclidean')
    # Sharp enough, the plan is the cheapest of all that give every class as many queries.
    places = np.repeat(np.arange(WAYS), QUERIES)
    query, place = linear_sum_assignment(cost[:, places])
    np.testing.assert_array_equal(np.argmax(plan, 1)[query], places[place])
    plan = run(x_s, weight, x_q, step=0.0)[1]
    want = sinkhorn(cost.astype(np.float32), *ONES.values())[0]
    np.testing.assert_allclose(plan, want, atol=1e-4)


@settings(max_examples=10)
@given(st.permutations(range(WAYS * QUERIES)), st.integers(0, 99))
def test_answers_move_with_the_queries(order, seed):
    x_s, weight, x_q = task(seed)
    path, plan = run(x_s, weight, x_q)
    path_of, plan_of = run(x_s, weight, x_q[np.array(order)])
    np.testing.assert_allclose(plan_of, np.asarray(plan)[np.array(order)], atol=1e-3)
    np.testing.assert_allclose(path_of, path, atol=1e-4)


@pytest.mark.parametrize('graph', [False, True])
def test_classes_far_apart_are_all_told_apart(graph):
    x_s, weight, x_q = task(2, spread=3.0)
    if graph:
        x = np.concatenate([x_s, x_q])
        x = graph_embedding(x, neighbours=2, power=1, self_weight=0.75)
        x = centre_groups(x, np.int32(np.arange(len(x)) >= len(x_s)), 2)
        x_s, x_q = x[: len(x_s)], x[len(x_s) :]
    plan = np.asarray(run(x_s, weight, x_q)[1])
    np.testing.assert_array_equal(plan.argmax(1), np.repeat(np.arange(WAYS), QUERIES))
    np.testing.assert_allclose(plan.sum(0), QUERIES, rtol=1e-4)


def test_rows_of_weight_zero_change_nothing():
    x_s, weight, x_q = task()
    weight[[1, 4]] = 0
    want = run(x_s, weight, x_q)
    x_s[[1, 4]] = 100
    for a, b in zip(run(x_s, weight, x_q), want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    there = weight.any(1)
    want_path, want_plan = oracle(x_s[there], weight[there], x_q, (1, 1, 1))
    np.testing.assert_allclose(want[0], want_path, atol=1e-4)
    np.testing.assert_allclose(want[1], want_plan, atol=1e-3)


def test_a_class_without_support_starts_at_zero_and_is_drawn_by_the_plan():
    x_s, weight, x_q = task(spread=3.0)
    weight[:SHOTS] = 0
    path, plan = run(x_s, weight, x_q)
    assert not np.asarray(path[0, 0]).any() and np.isfinite(path).all()
    # It goes to the mean of its queries alone.
    mean = x_q[:QUERIES].mean(0)
    np.testing.assert_allclose(path[-1, 0], mean, atol=0.05)
    np.testing.assert_array_equal(np.argmax(plan, 1), np.repeat(np.arange(WAYS), QUERIES))


def test_queries_that_are_not_there_change_nothing():
    x_s, weight, x_q = task()
    there = np.arange(len(x_q)) % 4 > 0
    path, plan = run(x_s, weight, np.where(there[:, None], x_q, 50), rows=np.float32(there))
    want_path, want_plan = oracle(x_s, weight, x_q[there], (1, 1, 1))
    np.testing.assert_allclose(path, want_path, atol=1e-4)
    np.testing.assert_allclose(np.asarray(plan)[there], want_plan, atol=1e-3)
    assert not np.asarray(plan)[~there].any()


def test_vmap_is_one_by_one():
    tasks = [task(seed) for seed in range(3)]
    together = jax.jit(jax.vmap(class_centres))(*map(np.stack, zip(*tasks, strict=True)))
    one_by_one = [run(*one) for one in tasks]
    for got, want in zip(together, zip(*one_by_one, strict=True), strict=True):
        np.testing.assert_allclose(got, np.stack(want), atol=1e-5)
