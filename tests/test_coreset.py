"""Coresets against the plain greedy loop, neighbours against scipy's k-d tree; both in float64."""

import jax
import numpy as np
import pytest
from scipy.spatial import cKDTree

from anyshot_jax.ops import coreset, neighbours

KEY = jax.random.key(3)


def vectors(n, d=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def plain_greedy(x, starts, num):
    """As written in the specification: one scan of all distances a choice."""
    x = x.astype(float)
    score = np.mean([np.linalg.norm(x - x[s], axis=1) for s in starts], 0)
    chosen = []
    for _ in range(num):
        chosen.append(int(np.argmax(score)))
        score = np.minimum(score, np.linalg.norm(x - x[chosen[-1]], axis=1))
        score[chosen[-1]] = -1
    return chosen


def start_rows(n, starts=10):
    return np.asarray(jax.random.choice(KEY, n, (min(n, starts),), replace=False))


@pytest.mark.parametrize(('n', 'num'), [(100, 30), (64, 1), (331, 200), (7, 7), (1, 1)])
@pytest.mark.parametrize('block', [16, 2048])
def test_greedy_is_the_plain_loop(monkeypatch, n, num, block):
    """Blocks that divide n and that don't; more choices between two looks than a batch holds."""
    monkeypatch.setattr(coreset, 'BLOCK', block)
    monkeypatch.setattr(coreset, 'BATCH', 4)
    coreset._greedy.clear_cache()
    x = vectors(n) + 100  # far from the origin: digits are lost there if not centred
    got = np.asarray(coreset.greedy_coreset(KEY, x, num))
    coreset._greedy.clear_cache()
    assert got.tolist() == plain_greedy(x, start_rows(n), num)


def test_first_choice_is_by_the_mean_distance():
    """Four rows are all starts. Mean distances on a line: 0 -> 4, 1 -> 3.5, 2 -> 3.5, 13 -> 9."""
    x = np.array([[0.0], [1], [2], [13]], np.float32)
    assert np.asarray(coreset.greedy_coreset(KEY, x, 3)).tolist() == [3, 0, 2]


@pytest.mark.parametrize('block', [16, 2048])
def test_equal_rows_are_chosen_in_order_and_once(monkeypatch, block):
    """Also where the last block has rows of the one before it."""
    monkeypatch.setattr(coreset, 'BLOCK', block)
    x = np.zeros((50, 3), np.float32)
    assert np.asarray(coreset.greedy_coreset(KEY, x, 50)).tolist() == list(range(50))


def test_greedy_covers_within_twice_the_optimum():
    """Gonzalez's bound, on points whose best 5 centres are known: 5 tight clusters."""
    centre = 50 * vectors(5, seed=1)
    x = np.concatenate([c + 0.1 * vectors(40, seed=i) for i, c in enumerate(centre)])
    chosen = np.asarray(coreset.greedy_coreset(KEY, x, 6))
    assert set(chosen // 40) == set(range(5))


@pytest.mark.parametrize('num', [0, 8])
def test_more_than_there_are(num):
    with pytest.raises(ValueError, match=r'must be 1\.\.7'):
        coreset.greedy_coreset(KEY, vectors(7), num)


def test_projection_keeps_distances_on_average():
    x = vectors(200, 64)
    y = x @ coreset.random_projection(KEY, 64, 32)
    pairs = np.arange(100), np.arange(100, 200)
    ratio = [np.square(z[pairs[0]] - z[pairs[1]]).sum(1).mean() for z in (np.asarray(y), x)]
    assert ratio[0] / ratio[1] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize('k', [1, 3, 37])
@pytest.mark.parametrize(('queries', 'bank'), [(16, 8), (512, 2048), (11, 37)])
def test_neighbours_are_the_trees(monkeypatch, k, queries, bank):
    monkeypatch.setattr(neighbours, 'QUERIES', queries)
    monkeypatch.setattr(neighbours, 'BANK', bank)
    x, kept = vectors(45), vectors(37, seed=1)
    dist, index = neighbours.nearest(x, kept, k)
    want_dist, want = cKDTree(kept.astype(float)).query(x.astype(float), k)
    np.testing.assert_array_equal(index, want.reshape(45, k))
    np.testing.assert_allclose(dist, want_dist.reshape(45, k) ** 2, rtol=1e-5)


def test_what_is_in_the_bank_has_distance_zero():
    kept = vectors(100) + 1000
    dist, index = neighbours.nearest(kept, kept)
    assert not np.asarray(dist).any()
    np.testing.assert_array_equal(index[:, 0], np.arange(100))


def test_more_neighbours_than_the_bank_has():
    with pytest.raises(ValueError, match=r'k=5 must be 1\.\.4'):
        neighbours.nearest(vectors(3), vectors(4), 5)
