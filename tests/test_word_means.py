"""Means from words: ridge regression written out, and classes left out by fitting again."""

import numpy as np
import pytest

from anyshot_jax.classify import fitting, word_means
from anyshot_jax.classify.nearest_mean import unit
from anyshot_jax.classify.word_means import OWN_WEIGHT, PENALTY, Known
from anyshot_jax.types import InputError


def world(classes=8, words=5, dim=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(classes, words)), rng.normal(size=(classes, dim))


def ridge(x, y, weight, asked, penalty=PENALTY):
    """The minimum of the weighted squares and the penalty, by its normal equations."""
    w = np.diag(weight)
    return asked @ np.linalg.inv(x.T @ w @ x + penalty * np.eye(x.shape[1])) @ x.T @ w @ y


@pytest.mark.parametrize('with_known', [False, True])
def test_means_and_those_left_out(with_known):
    words, means = world()
    has = np.array([1, 1, 0, 1, 1, 0, 1, 1], bool)
    rng = np.random.default_rng(1)
    known = Known(rng.normal(size=(20, 5)), rng.normal(size=(20, 4))) if with_known else None
    found = word_means.fit_means(words, has, means, known)
    a, m = unit(words - words.mean(0)), unit(means)
    x, y, weight = a[has], m[has], np.full(6, OWN_WEIGHT)
    if known:
        x = np.concatenate([x, unit(known.words - known.words.mean(0))])
        y, weight = np.concatenate([y, unit(known.directions)]), np.append(weight, np.ones(20))
    np.testing.assert_allclose(found.means, unit(ridge(x, y, weight, a[~has])), rtol=1e-6)
    for i in range(6):
        keep = np.arange(len(x)) != i
        want = unit(ridge(x[keep], y[keep], weight[keep], x[i : i + 1]))
        np.testing.assert_allclose(found.left_out[i : i + 1], want, rtol=1e-6)


def test_a_class_of_words_wins_its_own_items():
    """Words that say where a class lies; without the bias its scores are too low to win often."""
    rng = np.random.default_rng(0)
    classes, dim = 24, 8
    words = rng.normal(size=(classes, dim)).astype(np.float32)
    centre = unit(words @ rng.normal(size=(dim, dim)))
    draw = lambda c, n: centre[c] + 0.15 * rng.normal(size=(n, dim))
    label = np.repeat(np.arange(classes - 4), 5)
    x = np.concatenate([draw(c, 5) for c in range(classes - 4)]).astype(np.float32)
    how = {'power': 1.0, 'normalise': True, 'shrink': 0.5}
    head, _ = fitting.fit(x, label, classes, how=how, words=words)
    assert (head.bias[-4:] > 0.01).all() and not head.bias[:-4].any()
    from anyshot_jax.classify.nearest_mean import place, scores

    asked = np.concatenate([draw(c, 50) for c in range(classes)]).astype(np.float32)
    truth = np.repeat(np.arange(classes), 50)
    right = scores(head, place(head.space, asked)).argmax(1) == truth
    without = scores(head._replace(bias=0 * head.bias), place(head.space, asked)).argmax(1) == truth
    new = truth >= classes - 4
    assert right[new].mean() > 0.5 and right[~new].mean() > 0.7
    assert right[new].mean() > without[new].mean()


def test_the_bias_has_the_best_harmonic_mean():
    """Of all that tell items apart, by loops over items and classes."""
    rng = np.random.default_rng(5)
    of_words = np.array([0, 0, 0, 0, 1, 1], bool)
    y = np.repeat(np.arange(4), [9, 5, 7, 3])
    score = rng.normal(size=(24, 6)) * np.where(of_words, 0.2, 0.3)
    score[np.arange(24), y] += 0.6
    said = 0.25 + 0.15 * rng.normal(size=24)

    def mean(bias):
        seen, unseen = {c: [] for c in range(4)}, {c: [] for c in range(4)}
        for row, word, c in zip(score, said, y, strict=True):
            others = [
                v + bias * w for i, (v, w) in enumerate(zip(row, of_words, strict=True)) if i != c
            ]
            seen[c].append(row[c] > max(others))
            unseen[c].append(word + bias > max(others))
        s, u = (np.mean([np.mean(v) for v in kind.values()]) for kind in (seen, unseen))
        return 2 * s * u / max(s + u, 1e-12)

    got = fitting.choose_bias(score, said, y, of_words)
    best = max(mean(b) for b in np.linspace(0, 2, 2001))
    assert mean(got) > best - 0.02 and best > mean(0) + 0.05


def test_the_penalty_is_the_classes_own():
    """The one that names classes left out best by more than chance, beside a loop."""
    rng = np.random.default_rng(0)
    words = rng.normal(size=(60, 40))
    strength = np.where(np.arange(40) < 4, 1.0, 0.02)  # a few words in faint differences
    means = (words * strength) @ rng.normal(size=(40, 30))
    has = np.arange(60) < 55
    found = word_means.fit_means(words, has, means[has], None)
    a, m = unit(words - words.mean(0)), unit(means[has])

    def shares(penalty):
        values = []
        for i in range(55):
            keep = np.flatnonzero(np.arange(55) != i)
            weight = np.full(54, OWN_WEIGHT)
            guess = ridge(a[:55][keep], m[keep], weight, a[i : i + 1], penalty)
            sim = (unit(guess) @ m.T)[0]
            values.append(np.mean([sim[i] > sim[j] for j in keep]))
        return np.array(values)

    tried = {t * PENALTY: shares(t * PENALTY) for t in (1.0, *word_means.TIMES)}
    best = max(tried, key=lambda p: tried[p].mean())
    gain = tried[best] - tried[PENALTY]
    assert best != PENALTY and gain.mean() > 1.96 * gain.std(ddof=1) / 55**0.5
    assert found.penalty == pytest.approx(best)
    few = word_means.fit_means(words[:13], np.arange(13) < 11, means[:11], None)
    assert few.penalty == PENALTY  # too few classes to choose by


def test_nothing_to_learn_from():
    words, means = world(2)
    with pytest.raises(InputError, match='give images of at least one class'):
        word_means.fit_means(words, np.zeros(2, bool), means, None)


def test_words_by_tfidf():
    got = word_means.class_words(['red-apple', 'green_apple', 'pear'], ['sweet', '', ''], 'tfidf')
    assert got.shape[0] == 3
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, rtol=1e-6)
    like = got @ got.T
    assert like[0, 1] > 0.1 and like[0, 2] == like[1, 2] == 0  # they share a word
    assert word_means.imagenet(np.zeros((1000, 3)), 'tfidf') is None


def test_all_of_imagenets_classes_have_names():
    from pathlib import Path

    path = Path(word_means.__file__).parent / 'imagenet_classes.txt'
    names = path.read_text().splitlines()
    assert len(names) == 1000 and names[0] == 'tench' and names[-1] == 'toilet tissue'
