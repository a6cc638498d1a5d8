"""Measures of retrieval against scikit-learn and a plain ranking, and the search around them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from anyshot_jax import config as configs
from anyshot_jax.episodes import retrieval
from anyshot_jax.ops import metric
from anyshot_jax.ops.distance import cosine
from anyshot_jax.types import Data, InputError, from_arrays

pytestmark = pytest.mark.slow

MEASURE = partial(retrieval.measures, at=(1, 3))


def dot(params, a, b):
    return a @ b.T


def items(z, label, group=None):
    label = np.asarray(label)
    return retrieval.Items(
        np.asarray(z, np.float32), label, np.arange(len(label)) if group is None else group
    )


def ranked(sim, right):
    """The measures by a sorted list, wrong items first where they tie: (name -> value)."""
    order = np.lexsort((right, -sim))
    hit, r = right[order].astype(float), int(right.sum())
    precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
    return {
        'mAP': average_precision_score(right, sim),
        'mAP@R': (precision * hit)[:r].sum() / r,
        'R-precision': hit[:r].mean(),
        'recall@1': hit[0],
        'recall@3': hit[:3].max(),
        'precision@3': hit[:3].sum() / 3,
    }


def oracle(query, gallery, sims):
    """Mean of each measure over the queries that have an answer, and how many have none."""
    rows, without = [], 0
    for sim, label, group in zip(sims, query.label, query.group, strict=True):
        ask = gallery.group != group
        right = gallery.label[ask] == label
        if right.any():
            rows.append(ranked(sim[ask], right))
        else:
            without += 1
    return rows, without


CASES = {  # items, classes, groups, distinct values of a feature (0: all differ)
    'each its own group': (60, 7, 0, 0),
    'many ties': (60, 7, 0, 2),
    'groups': (80, 9, 5, 0),
    'groups and ties': (80, 9, 4, 3),
    'a large class': (400, 2, 0, 0),  # more answers than are compared one by one
    'a large class and ties': (400, 2, 3, 3),
}


@pytest.mark.parametrize('num, classes, groups, levels', CASES.values(), ids=CASES)
def test_leave_one_out_is_sklearns_and_a_plain_ranking(num, classes, groups, levels):
    rng = np.random.default_rng(num + levels)
    z = rng.integers(0, levels, (num, 5)) if levels else rng.normal(size=(num, 5))
    label = rng.integers(0, classes, num)
    own = items(z, label, rng.integers(0, groups, num) if groups else None)
    got = retrieval.evaluate(own, own, dot, measure=MEASURE)
    rows, without = oracle(own, own, own.z.astype(np.float32) @ own.z.astype(np.float32).T)
    assert without == (got[retrieval.NO_ANSWER].sum() if retrieval.NO_ANSWER in got else 0)
    for name in retrieval.names((1, 3)):
        np.testing.assert_allclose(got[name], [r[name] for r in rows], atol=1e-6, err_msg=name)


def test_a_gallery_of_its_own_in_any_order_on_two_devices():
    rng = np.random.default_rng(0)
    query = items(rng.normal(size=(37, 4)), rng.integers(0, 8, 37), np.full(37, -1))
    gallery = items(rng.normal(size=(90, 4)), rng.integers(0, 6, 90), np.zeros(90, int))
    sims = query.z @ gallery.z.T
    rows, without = oracle(query, gallery, sims)
    assert without  # classes 6 and 7 are in no gallery
    devices = tuple(jax.devices())
    assert len(devices) == 2
    got = retrieval.evaluate(query, gallery, dot, measure=MEASURE, devices=devices)
    assert got[retrieval.NO_ANSWER].sum() == without and len(got['mAP']) == 37 - without
    for name in retrieval.names((1, 3)):
        np.testing.assert_allclose(got[name], [r[name] for r in rows], atol=1e-6, err_msg=name)


def test_rows_in_chunks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    own = items(rng.normal(size=(50, 4)), rng.integers(0, 5, 50))
    want = retrieval.evaluate(own, own, dot, measure=MEASURE)
    monkeypatch.setattr(retrieval, 'ROWS', 7)
    got = retrieval.evaluate(own, own, dot, measure=MEASURE)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), got, want)


def test_a_similarity_that_knows_nothing_reaches_the_share_of_right_answers():
    label = np.repeat(np.arange(10), 4)
    own = items(np.ones((40, 3)), label)
    got = retrieval.evaluate(own, own, dot, measure=MEASURE)
    np.testing.assert_allclose(got['mAP'], 3 / 39, atol=1e-6)
    assert got['recall@3'].max() == got['R-precision'].max() == 0


def test_by_hand():
    # Ranks 1, 3 and 6 of 7: precisions 1/1, 2/3, 3/6.
    hits = metric.hits(
        jnp.array([0.9, 0.2, 0.7, -jnp.inf]), jnp.array([0.8, 0.6, 0.5, 0.1]), jnp.array(3)
    )
    assert hits.rank[:3].tolist() == [1, 3, 6]
    np.testing.assert_allclose(metric.average_precision(hits), (1 + 2 / 3 + 3 / 6) / 3, rtol=1e-6)
    np.testing.assert_allclose(metric.average_precision_at_r(hits), (1 + 2 / 3) / 3, rtol=1e-6)
    np.testing.assert_allclose(metric.r_precision(hits), 2 / 3, rtol=1e-6)
    curve = metric.precision_curve(hits, jnp.array([0, 1 / 3, 0.5, 2 / 3, 1.0]))
    np.testing.assert_allclose(curve, [1, 1, 2 / 3, 2 / 3, 0.5], rtol=1e-6)


@pytest.mark.parametrize('query, gallery, message', [
    (items(np.ones((0, 2)), []), items(np.ones((3, 2)), [0, 0, 1]), '0 queries'),
    (items(np.ones((3, 2)), [0, 0, 1]), items(np.ones((0, 2)), []), 'a gallery of 0'),
    (items(np.ones((2, 2)), [5, 6]), items(np.ones((3, 2)), [0, 0, 1], [7, 8, 9]), 'no query has'),
    (items(np.ones((2, 2)), [0, 0], [4, 4]), items(np.ones((2, 2)), [0, 0], [4, 4]), 'groups'),
])  # fmt: skip
def test_what_can_not_be_searched_is_said(query, gallery, message):
    with pytest.raises(InputError, match=message):
        retrieval.evaluate(query, gallery, dot, measure=MEASURE)


def test_a_method_is_judged_by_retrieval():
    """The values of a run are those of its embedding, searched by hand; rotated classes too."""
    rng = np.random.default_rng(0)
    label, group = np.repeat(np.arange(6), 5), np.tile(np.arange(5) // 2, 6)
    x = rng.integers(0, 256, (30, 6, 6, 1), np.uint8)
    dataset = from_arrays(x, label, group=group, turns=4)
    data = jax.device_put(Data(dict.fromkeys(('train', 'val', 'test'), dataset)))
    config = configs.defaults('knn', 'synthetic')
    config.num_steps = 0
    config.method.distance = 'cosine'
    config.eval.update({'tasks': (), 'retrieval': True, 'retrieval_at': (1, 3)})
    method = configs.find('methods', 'knn').build(config, data)
    state = method.init(jax.random.key(0), data)
    got = method.evaluate(state, data, jax.random.key(1), 'test')
    assert list(got) == list(retrieval.names((1, 3)))
    turned = np.concatenate([np.rot90(x, k, axes=(1, 2)) for k in range(4)]).reshape(120, -1)
    own = items(turned, np.concatenate([label + 6 * k for k in range(4)]), np.tile(group, 4))
    rows, without = oracle(own, own, np.asarray(cosine(own.z, own.z)))
    assert not without
    np.testing.assert_allclose(got['mAP'], [r['mAP'] for r in rows], atol=1e-5)


@pytest.mark.parametrize('label, group, message', [
    ([0, 1, 2], None, 'no class of test has two items, so'),
    ([0, 0, 1, 1], [3, 3, 4, 4], 'no class of test has two items of different groups'),
])  # fmt: skip
def test_data_without_answers_are_refused_before_any_work(label, group, message):
    config = configs.defaults('knn', 'synthetic')
    config.num_steps = 0
    config.eval.update({'tasks': (), 'retrieval': True})
    data = Data({'test': from_arrays(np.ones((len(label), 2)), np.array(label), group=group)})
    with pytest.raises(InputError, match=message):
        configs.find('methods', 'knn').build(config, data)
    test = from_arrays(np.ones((3, 2)), np.array([0, 0, 1]), group=np.array([1, 2, 1]))
    data = Data({'test': test})
    configs.find('methods', 'knn').build(config, data)


def test_features_of_a_batch_are_not_searched():
    config = configs.defaults('protonet', 'synthetic', 'conv4')
    config.eval.retrieval = True
    config.method.batch_norm = 'transductive'
    data = configs.find('data', 'synthetic').load(config.data)
    with pytest.raises(InputError, match="batch_norm='inductive'"):
        configs.find('methods', 'protonet').build(config, data)
