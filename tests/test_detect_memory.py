"""The bounded memory against a plain greedy coreset, and the threshold against simulations."""

import numpy as np
import pytest

from anyshot_jax.detect import memory, threshold


def plain_greedy(x, num):
    """Farthest points one by one, from the first on: the radius that num of them leave."""
    dist = np.linalg.norm(x - x[0], axis=1)
    for _ in range(num - 1):
        dist = np.minimum(dist, np.linalg.norm(x - x[dist.argmax()], axis=1))
    return dist.max()


def streamed(x, most, chunk=20):
    fold, matrix = memory.empty(x.shape[1]), memory.projection(x.shape[1], 0)
    for i in range(0, len(x), chunk):
        part = x[i : i + chunk]
        cell = np.stack([np.arange(len(part)), np.zeros(len(part))], 1)
        fold = memory.remember(fold, part, i // chunk, cell, matrix, most, 0)
        assert len(fold.rows) <= 2 * most
    return memory.thin(fold, most, 0)


def test_a_stream_of_any_length_leaves_few_patches_that_cover_it():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(12, 5)) * 20
    x = (centres[rng.integers(0, 12, 3000)] + rng.normal(size=(3000, 5))).astype(np.float32)
    fold = streamed(x, most=30)
    assert len(fold.rows) == 30
    cover = np.sqrt(memory.squared(x, fold.rows).min(1).max())
    # Greedy is at most twice the best there is; one pass costs little more than all at once.
    assert cover < 1.5 * plain_greedy(x, 30)
    assert np.sqrt(memory.squared(centres, fold.rows).min(1).max()) < 5  # none is forgotten
    # Where they are from is where they are.
    np.testing.assert_array_equal(x[fold.image * 20 + fold.cell[:, 0]], fold.rows)


def test_what_fits_is_kept_whole():
    x = np.random.default_rng(1).normal(size=(50, 5)).astype(np.float32)
    np.testing.assert_array_equal(streamed(x, most=50).rows, x)


def test_groups_stay_together_and_new_ones_fill_the_smallest_folds():
    groups = np.repeat(np.arange(30), 3)
    fold = memory.assign_folds(groups, [])
    assert set(fold) == set(range(memory.FOLDS))
    assert all(len(set(fold[groups == g])) == 1 for g in range(30))
    assert (np.diff(fold) >= 0).all()  # neighbours in one fold
    assert memory.assign_folds(np.array(['a', 'b', 'a']), []).tolist() == [0, 1, 0]
    assert memory.assign_folds(np.array(['a', 'b']), [4, 1]).tolist() == [2, 3]
    assert memory.assign_folds(np.array(['a']), [4, 1, 3] + [9] * 7).tolist() == [1]


def test_thresholds_by_hand():
    score = np.arange(1.0, 200)  # 199 images
    limit, promise = threshold.fit_threshold(score, np.arange(199), 10, 0.01)
    assert limit == 198 and promise.expected == pytest.approx(0.01) and not promise.loose
    # At most `likely` in 9 of 10 draws: of 199 uniform scores the second largest falls short by it.
    drawn = np.sort(np.random.default_rng(0).random((20_000, 199)), 1)[:, -2]
    assert promise.likely == pytest.approx(1 - np.quantile(drawn, 0.1), rel=0.03)
    limit, promise = threshold.fit_threshold(score[:20], np.arange(20), 10, 0.01)
    assert limit == 20 and promise.expected == pytest.approx(1 / 21)
    assert promise.loose and promise.needed == 99 and '99 or more' in str(promise)
    # Two copies of an image weigh as one: 0.5 each, so that 10 and 11 together are one of 3 + 1.
    limit, promise = threshold.fit_threshold(np.array([1, 10, 2, 11.0]), list('axbx'), 2, 0.3)
    assert limit == 11 and promise.groups == 3 and promise.expected == pytest.approx(0.25)
    held = np.array([1.0, 2, 3])
    got = threshold.as_unlike(np.array([0, 2, 5]), held, np.arange(3))
    np.testing.assert_allclose(got, [1, 3 / 4, 1 / 4])  # the new image counts itself


@pytest.mark.parametrize('copies', [1, 4])
def test_false_alarms_stay_within_the_promise(copies):
    """Points on a noisy ring, near copies of each; new ones are judged by all that is known."""
    rng = np.random.default_rng(copies)
    matrix = memory.projection(3, 0)

    def points(n):
        x = rng.normal(size=(n, 1, 3))
        x = x / np.linalg.norm(x, axis=-1, keepdims=True) * rng.gamma(9, 1 / 9, (n, 1, 1))
        return (x + 0.01 * rng.normal(size=(n, copies, 3))).reshape(-1, 3).astype(np.float32)

    def rates(group, order=slice(None)):
        alarms = []
        for _ in range(40):
            x = points(60)[order]
            fold_of = memory.assign_folds(group, [])
            folds = [memory.empty(3) for _ in range(fold_of.max() + 1)]
            for row, k in zip(x, fold_of, strict=True):
                folds[k] = memory.remember(folds[k], row[None], 0, [[0, 0]], matrix, 100, 0)
            bank = np.concatenate([f.rows for f in folds])
            owner = np.repeat(np.arange(len(folds)), [len(f.rows) for f in folds])
            dist = memory.squared(x, bank)
            held = np.where(owner[None] == fold_of[:, None], np.inf, dist).min(1)
            limit, promise = threshold.fit_threshold(held, group, len(folds), 0.05)
            assert promise.expected <= 0.05 <= promise.proven
            alarms.append((memory.squared(points(100), bank).min(1) > limit).mean())
        return np.mean(alarms), np.std(alarms) / 40**0.5

    mean, error = rates(np.repeat(np.arange(60), copies))
    assert 0.01 < mean < 0.05 + 2 * error
    if copies > 1:  # near copies in other folds make everything look unusual
        assert rates(np.arange(240))[0] < 0.1  # neighbours are held out together all the same
        assert rates(np.arange(240), rng.permutation(240))[0] > 0.5
