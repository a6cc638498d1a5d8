"""The judge of web labels: planted among base classes, and what is taken where that can't be."""

import jax
import numpy as np
import pytest

from anyshot_jax.data import planted
from anyshot_jax.data.noise import plant
from anyshot_jax.ops.label_evidence import vote_evidence
from anyshot_jax.stages.similarity import Similarity
from anyshot_jax.types import InputError, from_arrays


def classes(num, each, seed=0, spread=1.0):
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(num), each)
    x = 2 * rng.normal(size=(num, 8))[label] + spread * rng.normal(size=(len(label), 8))
    return from_arrays(x.astype(np.float32), label)


def test_planted_labels_are_known():
    label = np.repeat(np.arange(6), [9, 9, 9, 9, 9, 2])
    p = plant(np.random.default_rng(0), label, ways=3, each=8, share=0.5)
    assert len(p.row) == len(set(p.row.tolist())) == 24
    of = {int(c): set(label[p.row[p.clean & (p.label == c)]].tolist()) for c in range(3)}
    assert all(len(true) == 1 for true in of.values()) and len(set.union(*of.values())) == 3
    assert not set.union(*of.values()) & {5}  # it has too few items to be drawn
    np.testing.assert_array_equal(
        p.clean, [label[r] in of[int(y)] for r, y in zip(p.row, p.label, strict=True)]
    )
    assert (~p.clean).sum() == 12


def test_a_share_that_the_others_are_too_few_for_is_lowered():
    p = plant(np.random.default_rng(0), np.repeat(np.arange(3), 10), ways=2, each=10, share=0.9)
    assert 0 < (~p.clean).sum() < 18


def test_the_share_of_wrong_labels_of_the_web_is_found():
    web = classes(3, 20, seed=1)
    label = np.asarray(web.label).copy()
    label[::5] = (label[::5] + 1) % 3  # a fifth, some of each class
    noisy = from_arrays(web.x, label)
    clean = np.argsort(label, kind='stable') % 5 != 0
    choice = planted.choose(classes(8, 20), noisy, None, np.arange(0))
    chance, within, more = planted.chances(choice, None, noisy)
    assert 0.1 < more['wrong'] < 0.3
    assert chance[clean].min() > chance[~clean].max()
    assert within.shape == (60, np.bincount(label).max())
    assert planted.chances(choice, None, web)[2]['wrong'] < 0.05
    best = choice.tried[np.argmin([c.loss.mean() for c in choice.tried])]
    assert choice.best is best


def simnet_of(right):
    """A similarity that knows the classes of `classes` by their coordinates, or the contrary."""
    sign = 1 if right else -1
    pairs = lambda params, a, b: jax.nn.sigmoid(sign * (4 - ((a[:, None] - b[None]) ** 2).mean(-1)))
    return Similarity({}, lambda params, x: x, pairs)


@pytest.mark.parametrize(('right', 'unseen'), [(True, 8), (False, 8), (True, 3)])
def test_simnet_is_taken_where_it_is_better(right, unseen):
    base, web = classes(12, 10, spread=1.5), classes(3, 10, seed=1)
    choice = planted.choose(base, web, simnet_of(right), np.arange(unseen))
    if right and unseen >= planted.LEAST_UNSEEN:
        assert choice.best.mix == 1 and 'better than cosine' in choice.why
        assert {c.mix for c in choice.tried} == {0, 0.5, 1}
    else:
        assert choice.best.mix == 0
        assert ('3 base classes were kept from SimNet' in choice.why) == (unseen == 3)


@pytest.mark.parametrize('base', [None, classes(3, 20), classes(9, 3)])
def test_too_few_base_classes_take_the_default_and_say_so(base, caplog):
    choice = planted.choose(base, classes(3, 10), None, np.arange(0))
    assert choice.best is planted.DEFAULT and not choice.tried
    assert 'there are' in choice.why and choice.why in caplog.text


def test_cosine_is_about_the_mean_of_the_items():
    x = np.array([[5.0, 1.0], [5.0, -1.0], [5.0, 3.0]], np.float32)
    got, none = planted.parts(None, x, learnt=False)
    np.testing.assert_allclose(got, [[0, 0, 0], [0, 1, -1], [0, -1, 1]], atol=1e-6)
    assert none is None
    assert vote_evidence(got, np.array([0, 1, 1]), 2, 0.4).shape == (3, 2)


def test_more_pairs_than_fit_are_refused_before_they_are_made(monkeypatch):
    web = classes(3, 20, seed=1)
    choice = planted.choose(None, web, None, np.arange(0))
    planted.chances(choice, None, web)
    monkeypatch.setattr(planted, 'MOST_BYTES', 50_000)  # 4 arrays of 60 x 60 take 57,600
    with pytest.raises(InputError, match=r'60 web images.*every pair.*config\.data\.per_class'):
        planted.chances(choice, None, web)
