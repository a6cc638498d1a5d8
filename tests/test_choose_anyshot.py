"""How the any-shot settings are chosen: never by a new class, by the mean, the first of equals."""

import sys
from pathlib import Path

import numpy as np
import pytest

from anyshot_jax.data import industrial
from anyshot_jax.methods import lda

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'experiments'))
import anyshot_trials as trials
import choose_anyshot

# Those of set A last, as `whole` has them.
NEW_IN_A = ('Rs', 'Sca', 'dirty_spot', 'jet_flow', 'rub_mark')
NAMES = (*(n for n in industrial.MSD if n not in NEW_IN_A), *NEW_IN_A)
SIZES = {'features': 6, 'stride8': 4, 'stride16': 4, 'stride32': 4, 'colours': 11}


@pytest.fixture(scope='module')
def items() -> trials.Items:
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(20), 20 + np.arange(20) % 7)
    dim = sum(SIZES.values())
    x = rng.normal(size=(20, dim))[label] + 0.7 * rng.normal(size=(len(label), dim))
    columns = np.split(np.arange(dim), np.cumsum(list(SIZES.values()))[:-1])
    parts = dict(zip(SIZES, columns, strict=True))
    texts = tuple(f'a {c} mark' for c in ('red', 'blue', 'grey', 'green', 'black') * 4)
    return trials.Items(x.astype(np.float32), label, NAMES, texts, parts)


def test_common_classes_are_new_in_no_published_set(items):
    common = choose_anyshot.seen_in(items, 'common')
    assert len(common) == 11
    for new in (NEW_IN_A, industrial.NOVEL['B'], industrial.NOVEL['D']):
        assert not set(common) & set(new)
    new = {'dirty_spot', 'indentation', 'jet_flow', 'orange_peel', 'rub_mark'}
    assert set(choose_anyshot.seen_in(items, 'B')) == set(NAMES) - new


def test_folds_are_those_of_the_recipes_val_seed(items):
    seen = sorted(choose_anyshot.seen_in(items, 'A'))
    for seed, fold in enumerate(choose_anyshot.folds(seen, 3)):
        config = {'classes': 'A', 'val': 5, 'val_seed': seed}
        of = industrial._roles({n: n not in NEW_IN_A for n in sorted(NAMES)}, _Fields(config))
        assert fold.val == [n for n in seen if of[n] == 'val']
        assert fold.train == [n for n in seen if of[n] == 'train']


class _Fields(dict):
    __getattr__ = dict.__getitem__


def test_the_best_mean_wins_and_of_equals_the_first(items, monkeypatch):
    values = {('a',): (10, 50), ('b',): (40, 40), ('c',): (40, 40), ('d',): (70, 0)}
    calls = []

    def attempt(items, fold, best, embed):
        calls.append(dict(best))
        for setting, per_seed in values.items():
            yield setting, per_seed[len(calls) % 2 - 1] / 100

    monkeypatch.setattr(choose_anyshot, 'TRY', {'embed': attempt, 'refine': attempt})
    found = choose_anyshot.chosen_among(
        items, choose_anyshot.seen_in(items, 'A'), val_seeds=2, steps=('embed', 'refine')
    )
    assert found == {'embed': ('b',), 'refine': ('b',)}
    assert calls == [{}, {}, {'embed': ('b',)}, {'embed': ('b',)}]


def test_filling_up_changes_no_feature(items):
    [fold] = choose_anyshot.folds(choose_anyshot.seen_in(items, 'A'), 1)
    best = {'embed': (('stride8',), 0.5, 0.3)}
    train, val = trials.whitened(items, fold, best)
    columns, sizes = trials.select(items, ('stride8',), 'colours')
    rows = np.isin(items.label, [NAMES.index(n) for n in fold.train])
    label = np.searchsorted(np.unique(items.label[rows]), items.label[rows])
    how = {'power': 0.5, 'colours': 11}
    x = items.x[:, columns]
    fitted = lda.fit(x[rows], label, len(fold.train), sizes, shrink=0.3, **how)
    there = np.flatnonzero(val.label >= 0)
    want = [x[items.label == NAMES.index(n)] for n in fold.val]
    want = lda.embed(fitted, np.concatenate(want), sizes, **how)
    np.testing.assert_allclose(np.asarray(val.x)[there], want, atol=1e-4)
    assert (np.asarray(train.label) >= 0).sum() == rows.sum()


def test_turned_features_keep_all_distances(items):
    [fold] = choose_anyshot.folds(choose_anyshot.seen_in(items, 'A'), 1)
    parts = [trials.dataset(items, names) for names in fold]
    [z] = trials.space(items, ('stride8',), 0.5, *parts, [0.3])
    val = trials.whitened(items, fold, {'embed': (('stride8',), 0.5, 0.3)})[1]
    there = np.flatnonzero(val.label >= 0)
    main = np.asarray(val.x)[there, :-11]
    z = np.asarray(z)[there]
    np.testing.assert_allclose(z @ z.T, main @ main.T + 1e-5 * np.eye(len(main)), atol=1e-5)
