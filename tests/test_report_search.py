"""The retrieval part of the report: which answers it shows, and its ROC."""

import re

import jax
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from anyshot_jax import config as configs
from anyshot_jax.report import search
from anyshot_jax.types import Data, from_arrays

EVIL = '<b onclick="x">&'


@pytest.mark.parametrize('levels', [0, 3])
def test_roc_is_sklearns(levels):
    rng = np.random.default_rng(levels)
    same = rng.random(200) < 0.3
    score = rng.normal(size=200) + same
    score = np.round(score * levels / 3) if levels else score
    false, true = search.roc(score, same)
    assert np.trapezoid(true, false) == pytest.approx(roc_auc_score(same, score))
    want = roc_curve(same, score, drop_intermediate=False)
    np.testing.assert_allclose([false, true], want[:2])


def part(num=60, classes=6, group=None, same=False, noise=0.8):
    """The HTML of a nearest-neighbour method on noisy classes, and the items."""
    rng = np.random.default_rng(1)
    label = np.arange(num) // (num // classes)
    x = rng.normal(size=(classes, 4))[label] + noise * rng.normal(size=(num, 4))
    x = np.ones_like(x) if same else x
    names = (EVIL, *(f'class {c}' for c in range(1, classes)))
    dataset = from_arrays(x.astype(np.float32), label, names, group=group)
    config = configs.defaults('knn', 'synthetic')
    config.num_steps = 0
    config.eval.tasks = ()
    method = configs.find('methods', 'knn').build(config, Data({'test': dataset}))
    data = jax.device_put(Data({'test': dataset}))
    state = method.init(jax.random.key(0), data)
    html = search.results(method, state, data.roles['test'], None, np.random.default_rng(0))
    return html, x, label


@pytest.mark.parametrize('groups', [False, True])
def test_answers_are_the_nearest_items(groups):
    """How many of the first ten are right, by a sorted list of distances, class by class."""
    group = np.arange(60) % 7 if groups else None
    html, x, label = part(group=group)
    own = np.arange(60) if group is None else group
    rows = re.findall(r'<h3>(.*?)</h3><p>(\d+) of 10 right, (\d+) there are', html)
    assert len(rows) == 6 and html.count('answer: ') == 60
    frames = [len(re.findall(s, html)) for s in ('class="query"', 'class="query wrong"')]
    assert frames == [sum(int(r[1]) for r in rows), 60 - sum(int(r[1]) for r in rows)]
    dist = ((x[:, None] - x[None]) ** 2).sum(-1)
    for name, right, there in rows:
        c = 0 if 'onclick' in name else int(re.search(r'class (\d)', name)[1])
        possible = set()
        for q in np.flatnonzero(label == c):
            allowed = np.flatnonzero(own != own[q])
            first = allowed[np.argsort(dist[q, allowed])][:10]
            possible.add((int((label[first] == c).sum()), int((label[allowed] == c).sum())))
        assert (int(right), int(there)) in possible
    assert EVIL not in html and 'ROC, area 0.' in html
    assert ('without those of their own group' in html) == groups


def test_items_all_alike_are_all_wrong():
    html, *_ = part(same=True)
    assert re.findall(r'<p>(\d+) of 10 right', html) == ['0'] * 6 and 'area 0.500' in html


def test_nothing_to_find_is_a_line():
    html, *_ = part(group=np.zeros(60))
    assert 'class="note"' in html and 'no query has an answer' in html
