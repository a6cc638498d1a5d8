"""Rejection of unknown classes, beside a slow restatement and by what it promises."""

import numpy as np
import pytest

from anyshot_jax.ops import open_set


def slow_familiarity(row, level):
    """Of one item: the best score, less half the mean of the next five, less the class's level."""
    order = sorted(range(len(row)), key=lambda c: -row[c])
    after = [row[c] for c in order[1:6]]
    return row[order[0]] - 0.5 * sum(after) / len(after) - level[order[0]]


@pytest.fixture
def scored():
    """Scores of nine classes, of which each has its own level and its own crowd."""
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(9), 4)
    score = rng.normal(0, 0.1, (36, 9))
    score[np.arange(36), label] += rng.uniform(0.2, 0.9, 9)[label]
    return score, label


def test_every_item_and_every_class_left_out_in_turn(scored):
    score, label = scored
    fitted = open_set.fit_rejection(score, label, 0.1)
    own = [[score[i, c] for i in range(36) if label[i] == c] for c in range(9)]
    level = [0.25 * np.mean(values) for values in own]
    np.testing.assert_allclose(fitted.level, level, rtol=1e-6)
    known, unseen = [], []
    for i in range(36):
        c = label[i]
        without = [s for j, s in zip(np.flatnonzero(label == c), own[c], strict=True) if j != i]
        levels = [0.25 * np.mean(without) if k == c else level[k] for k in range(9)]
        known.append(slow_familiarity(score[i], levels))
        others = [k for k in range(9) if k != c]
        unseen.append(slow_familiarity(score[i, others], [level[k] for k in others]))
    assert fitted.threshold == pytest.approx(sorted(known)[2])  # 10 % of 37, rounded down
    assert fitted.false_alarm == pytest.approx(3 / 37)
    assert fitted.detected == np.mean(np.array(unseen) < fitted.threshold)
    assert 0 < fitted.detected < 1
    found = open_set.familiarity(score, fitted.level, fitted.crowd)
    np.testing.assert_allclose(found, [slow_familiarity(s, level) for s in score], atol=1e-6)


def test_few_classes_and_one_example():
    """Six classes have too few others to be a crowd; a class that wasn't held out has the mean."""
    rng = np.random.default_rng(1)
    score, label = rng.normal(size=(10, 6)), np.repeat(np.arange(5), 2)
    fitted = open_set.fit_rejection(score, label, 0.2)
    own = score[np.arange(10), label]
    assert fitted.crowd == 0 and fitted.level[5] == pytest.approx(0.25 * own.mean())
    one = open_set.fit_rejection(score[:, :1], np.zeros(10, int), 0.2)
    assert one.detected is None and np.isfinite(one.threshold)


def test_what_is_promised_of_unseen_classes_is_kept():
    """Gaussian classes of different width; a third of them is never shown."""
    rng = np.random.default_rng(2)
    mean, width = rng.normal(size=(60, 12)) * 0.8, rng.uniform(0.5, 1.2, 60)
    label = np.repeat(np.arange(60), 20)
    x = mean[label] + width[label][:, None] * rng.normal(size=(1200, 12))
    shown, rest = label < 40, np.arange(1200) % 20 >= 10
    score = -((x[:, None] - mean[None, :40]) ** 2).sum(-1)
    fit = shown & ~rest
    fitted = open_set.fit_rejection(score[fit], label[fit], 0.05)
    below = open_set.familiarity(score, fitted.level, fitted.crowd) < fitted.threshold
    assert np.mean(below[shown & rest]) == pytest.approx(0.05, abs=0.03)
    assert np.mean(below[~shown]) == pytest.approx(fitted.detected, abs=0.08)
