"""Settings by leaving seen classes out: beside loops in NumPy, and sets that must not be broken."""

import jax
import numpy as np
import pytest

from anyshot_jax.ops.colour import COLOURS
from anyshot_jax.stages import left_out
from anyshot_jax.stages.left_out import choose, fixed, said
from anyshot_jax.types import from_arrays

CLASSES, DIM, WORDS = 8, 10, 6


def seen(tells, *, classes=CLASSES, grey=False, seed=0):
    """Items whose main part is told by the words, whose colours are told by those named, or both.

    Of grey items all colours are grey, and the words name grey and blue as it comes.
    """
    rng = np.random.default_rng(seed)
    words = rng.normal(size=(classes, WORDS))
    means = words @ rng.normal(size=(WORDS, DIM)) if 'words' in tells else np.zeros((classes, DIM))
    named = np.eye(len(COLOURS))[3 + np.arange(classes) % 8]
    shown = named - named.mean(0) if 'colours' in tells else np.zeros((classes, len(COLOURS)))
    label = np.repeat(np.arange(classes), 10)
    noise = lambda d: 0.3 * rng.normal(size=(len(label), d))
    colours = shown[label] + noise(len(COLOURS))
    if grey:
        colours[:, 3:] = 0
    x = np.concatenate([means[label] + noise(DIM), colours], 1).astype(np.float32)
    extras = {'attribute': words.astype(np.float32), 'colours': named.astype(np.float32)}
    return from_arrays(x, label, extras=extras)


def chosen(data, new=3, start=(0.5, 1.0, 0.0), **how):
    start = fixed(*start, len(data.count))
    return jax.jit(lambda d: choose(d, new, start, **how))(data)


def unit(a):
    return a / np.maximum(np.linalg.norm(a, axis=-1, keepdims=True), 1e-6)


def accuracy(data, weight, penalty, size):
    """[C] by loops: each class left out with others, among which its items are named."""
    main, rest = unit(data.x[:, :DIM].astype(float)), unit(data.x[:, DIM:].astype(float))
    raw, named = data.x[:, :DIM].astype(float), data.extras['colours'].astype(float)
    words = unit(data.extras['attribute'].astype(float))
    if weight:
        words = np.concatenate([words, 0.7 * unit(named)], 1)
    right, times = np.zeros(CLASSES), np.zeros(CLASSES)
    for ask in np.asarray(left_out.draws(CLASSES, size)):
        keep = [c for c in range(CLASSES) if c not in ask]
        among = np.isin(data.label, keep)
        means = np.stack([raw[data.label == c].mean(0) for c in keep])
        shown = np.stack([rest[data.label == c].mean(0) for c in keep])
        a, b = unit(words[keep] - words[keep].mean(0)), unit(words[ask] - words[keep].mean(0))
        # The normal equations, not the dual form.
        slope = np.linalg.solve(
            a.T @ a + penalty * np.eye(a.shape[1]), a.T @ (means - means.mean(0))
        )
        sim = main @ unit(means.mean(0) + b @ slope).T
        spread = sim[among].std(0)
        score = (sim - sim[among].mean(0)) / spread * spread.mean()
        says = named - named[keep].mean(0)
        by = (says[keep] * shown).sum() / (says[keep] ** 2).sum()
        score = score + weight**2 * rest @ unit(by * says[ask]).T
        for place, c in enumerate(ask):
            right[c] += (score[data.label == c].argmax(1) == place).mean()
            times[c] += 1
    return right / times


@pytest.mark.parametrize('weight', [0.0, 0.5])
def test_accuracy_of_classes_left_out_beside_loops(weight):
    data = seen(('words', 'colours'))
    got = chosen(data, start=(0.5, 1.0, 0.0))
    alone, with_colours = (accuracy(data, w, 1.0, 2) for w in (0.0, 0.5))
    np.testing.assert_allclose(got.words_alone, alone.mean(), atol=1e-5)
    if weight:  # the start, or what is better beyond its interval
        gain = with_colours - alone
        assert got.colours > 0 and got.accuracy >= with_colours.mean() - 1e-5
        if float(got.colours) == 0.5 and float(got.penalty) == 1.0:
            np.testing.assert_allclose(got.half, 1.96 * gain.std(ddof=1) / 8**0.5, atol=1e-5)


def test_colours_that_tell_classes_apart_are_taken():
    got = chosen(seen(('colours',)))
    assert got.colours > 0 and got.accuracy > got.words_alone + 0.2
    assert f'of {CLASSES} seen classes out' in said(got) and 'weight of colours' in said(got)


def test_colours_that_tell_nothing_are_left():
    data = seen(('words',), seed=3)
    wrong = np.roll(np.asarray(data.extras['colours']), 1, 0)
    shown = seen(('colours', 'words'), seed=3)  # the words name another class's colour
    for given in (data, shown.replace(extras={**shown.extras, 'colours': wrong})):
        got = chosen(given)
        assert got.accuracy >= got.words_alone - 1e-6


def test_grey_images_go_by_words_alone_whatever_seen_classes_say():
    got = chosen(seen(('words', 'colours'), grey=True))
    assert got.colours == 0 and got.chromatic == 0
    assert got.accuracy >= got.words_alone - 1e-6
    assert 'words alone, no colours' in said(got)


def test_too_few_classes_to_choose_by():
    got = chosen(seen(('words', 'colours'), classes=5), start=(0.5, 2.0, 0.1))
    assert (float(got.colours), float(got.penalty)) == (0, 2) and np.isnan(got.accuracy)
    assert '5 seen classes are too few' in said(got)


def test_classes_of_few_items_are_asked_by_their_last():
    data = seen(('words', 'colours'))
    few = np.arange(len(data.label)) % 10 < 4
    few[-9:] = False  # the last class has one item, and is not asked
    got = chosen(from_arrays(data.x[few], data.label[few], extras=data.extras))
    assert got.calibration > 0 and 'nan' not in said(got)


def test_many_seen_classes_of_which_few_are_left_out():
    """24 draws of two: of 60 classes some are never asked, which says nothing of the others."""
    data = seen(('colours',), classes=60)
    left = np.unique(left_out.draws(60, 2))
    assert len(left) < 60
    got = chosen(data, new=2)
    assert got.colours > 0 and got.accuracy > got.words_alone + 0.2 and 'nan' not in said(got)


def test_calibration_shrinks_with_the_likeness_of_new_items():
    data = seen(('words', 'colours'), seed=1)
    whole, half = chosen(data), chosen(data, likeness=0.5)
    assert whole.calibration > 0
    np.testing.assert_allclose(half.calibration, whole.calibration / 2)


def test_rows_that_are_not_there_change_nothing():
    data = seen(('words', 'colours'))
    more = data.replace(
        x=np.pad(data.x, ((0, 7), (0, 0))), label=np.pad(data.label, (0, 7), constant_values=-1)
    )
    for a, b in zip(chosen(data), chosen(more), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_every_class_is_left_out_about_as_often():
    times = np.bincount(np.asarray(left_out.draws(15, 5)).ravel(), minlength=15)
    assert times.min() == times.max() == 8
    assert (left_out.draws(7, 2)[:, 0] < left_out.draws(7, 2)[:, 1]).all()
