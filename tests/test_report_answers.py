"""What the page of predict counts, shows and leaves out; numbers by hand."""

import numpy as np
import pytest
from PIL import Image
from test_report import EVIL, Page

from anyshot_jax import AnyShotClassifier
from anyshot_jax.data.readers.notes import Notes
from anyshot_jax.predict.answers import Answer, Tally
from anyshot_jax.predict.page import page
from anyshot_jax.predict.page_classes import Support


def fitted(labels, points=None, **options):
    """On features: a cluster for every label, or these points."""
    labels = np.array(labels)
    if points is None:
        centre = 10 * np.eye(len(set(labels)))[np.unique(labels, return_inverse=True)[1]]
        points = centre + np.random.default_rng(0).normal(size=centre.shape)
    return AnyShotClassifier(**options).fit(points, labels)


def support_of(classifier):
    """Each example an image of its own grey."""
    num = len(classifier.support_labels_)
    grey = (np.arange(num) * 5 + 20).astype(np.uint8)[:, None, None, None]
    images = np.broadcast_to(grey, (num, 8, 8, 3))
    labels = [str(c) for c in classifier.support_labels_]
    return Support([f'{c}/{i}.png' for i, c in enumerate(labels)], labels, images)


def answer(path, prediction='a', probability=0.9, label=None, **fields):
    fields = {'second': 'b', 'second_probability': 0.05, 'nearest': 0, 'similarity': 0.5, **fields}
    return Answer(path, label, prediction, probability, **fields)


def tally_of(found, names=('a', 'b'), **options):
    tally = Tally(names, **options)
    for a in found:
        tally.add(a)
    return tally


def shown(tmp_path, tally, classifier, support=None, paint=True):
    for a in [*tally.unsure, *tally.strange, *tally.wrong] if paint else ():
        Image.new('RGB', (9, 9), 'red').save(tmp_path / a.path, 'png')
    support = support or support_of(classifier)
    return Page(page(tally, classifier, support, tmp_path, {'query': EVIL}, 75.0, Notes()))


@pytest.fixture
def two():
    return fitted(['a', 'a', 'b', 'b'])


def test_the_least_sure_first_and_how_many_are_left_out(tmp_path, two):
    chances = np.random.default_rng(0).permutation(300) / 1000 + 0.5
    found = [answer(f'{int(p * 1000)}.png', probability=p) for p in chances]
    tally = tally_of(found)
    assert [a.probability for a in tally.unsure] == sorted(chances)[:200]
    text = shown(tmp_path, tally, two).text
    assert '100 more are not shown' in text and '300' in text
    assert tally.below_sure == 300
    assert text.index('500.png') < text.index('501.png') < text.index('699.png')
    assert 'Samples of each class' in text
    drawn = tally.samples('a')
    assert len(drawn) >= 1 and min(a.probability for a in drawn) >= 0.7
    again = tally_of(found[::-1])
    assert again.samples('a') == drawn and tally.samples('b') == []


def test_counts_of_a_labelled_folder(tmp_path, two):
    """a: 3 of 4 right, b: 1 of 2; 3 strangers of which 2 are unknown."""
    found = [answer(f'a{i}.png', label='a') for i in range(3)]
    found += [answer('a3.png', 'b', 0.8, label='a'), answer('b0.png', 'b', label='b')]
    found += [answer('b1.png', 'a', 0.99, label='b')]
    found += [answer(f'c{i}.png', label='c', unknown=i > 0) for i in range(3)]
    found += [Answer('bad.png', 'a', error='bad.png is damaged')]
    tally = tally_of(found)
    assert tally.accuracy == 4 / 6 and tally.total == 10 and tally.failed == 1
    assert (tally.strangers, tally.strangers_found, tally.unknown) == (3, 2, 2)
    assert [a.path for a in tally.wrong] == ['b1.png', 'a3.png']
    result = shown(tmp_path, tally, two)
    for text in (
        '66.67 %', 'of 6 whose class is known', '1 unreadable', '1 min 15 s',
        '3 images lie in folders that name no class here; 2 of them',
        '75.00 %75.00 %',  # a: recall 3 of 4, precision 3 of 4
        '50.00 %50.00 %',  # b
        '2 answers are not the name of the folder', 'bad.png is damaged',
    ):  # fmt: skip
        assert text in result.text, text
    assert result.ids == [
        'examples', 'classes', 'wrong', 'unsure', 'unknown', 'samples', 'confusion', 'unreadable',
        'settings',
    ]  # fmt: skip
    assert result.text.count('✗') == 5  # two, in the lists of wrong and unsure; a stranger


def test_without_labels_nothing_is_right_or_wrong(tmp_path, two):
    result = shown(tmp_path, tally_of([answer('x.png'), answer('y.png', 'b')]), two)
    assert '✗' not in result.text and '✓' not in result.text and 'recall' not in result.text
    assert result.ids == ['examples', 'classes', 'samples', 'settings']


def test_the_unknown_has_a_row(tmp_path, two):
    found = [
        answer('x.png', label='a'),
        answer('y.png', 'none', label='none', unknown=True),
        answer('z.png', 'none', label='a', unknown=True, similarity=0.1),
    ]
    tally = tally_of(found, unknown='none')
    assert tally.accuracy == 2 / 3 and [a.path for a in tally.strange] == ['z.png', 'y.png']
    assert 'none' in shown(tmp_path, tally, two).text


def test_a_wrong_label_is_listed_beside_its_like(tmp_path):
    """Row 3 lies among the b but is called a; row 4 is the b nearest to it."""
    points = [[0, 0], [0.1, 0], [0, 0.1], [10, 10], [10.1, 10], [10, 10.6], [10.6, 10], [10.7, 11]]
    classifier = fitted(list('aaaabbbb'), np.array(points, float))
    result = shown(tmp_path, tally_of([answer('x.png')]), classifier)
    assert 'suspicious' in result.ids
    # Eight examples are too few to speak of wrong labels.
    part = result.text[result.text.index('Examples that are hard1 of 8') :]
    assert 'a/3.png' in part and 'label: ' not in part
    assert 'most like b/4.png of b' in part


def test_planted_label_errors_are_called_so(tmp_path):
    """Eight of 160 lie among another class; of hard examples without any none is called so."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(160, 8)) + np.repeat(np.eye(8) * 5, 20, 0)
    labels = np.repeat(list('abcdefgh'), 20)
    clean = shown(tmp_path, tally_of([answer('x.png')], 'abcdefgh'), fitted(labels, points))
    assert 'label error' not in clean.text and 'of 160 examples (' in clean.text
    labels[::20] = np.roll(labels[::20], 3)
    classifier = fitted(labels, points)
    result = shown(tmp_path, tally_of([answer('x.png')], 'abcdefgh'), classifier)
    part = result.text[result.text.index('Possible label errors among the examples') :]
    listed = np.flatnonzero(classifier.label_errors().wrong >= 0.5)
    assert sum(listed % 20 == 0) >= 6 and sum(listed % 20 > 0) <= 2
    assert all(f'{classifier.support_labels_[i]}/{i}.png' in part for i in listed)


def test_copies_of_examples_are_told(tmp_path, two):
    tally = tally_of([answer('x.png', similarity=1.0), answer('y.png')])
    assert '1 images are examples themselves' in shown(tmp_path, tally, two).text


def test_many_classes_have_pairs_for_a_matrix(tmp_path):
    names = [f'c{i:02d}' for i in range(45)]
    classifier = fitted(np.repeat(names, 2))
    found = [answer(f'{c}.png', c, label=c, second='') for c in names]
    found += [answer(f'x{i}.png', 'c01', label='c00') for i in range(3)]
    found += [answer('y.png', 'c03', label='c02')]
    result = shown(tmp_path, tally_of(found, names), classifier)
    assert '45 classes are too many for a matrix: the most frequent confusions of 2' in result.text
    assert 'c00c01375.00 %' in result.text and 'c02c03150.00 %' in result.text
    result = shown(tmp_path, tally_of(found[:40], names), classifier)
    assert 'matrix: ' not in result.text and '100.0' in result.text


def test_strings_of_others_are_text(tmp_path):
    classifier = fitted([EVIL, EVIL, 'b', 'b'])
    classifier.descriptions_ = {EVIL: EVIL}
    found = [
        answer('x.png', EVIL, label=EVIL, second=EVIL),
        answer('y.png', 'b', label=EVIL, unknown=True),
        Answer(EVIL, EVIL, error=EVIL),
    ]
    result = shown(tmp_path, tally_of(found, (EVIL, 'b')), classifier)
    assert '<script' not in result.source and EVIL.replace('\ud800', '?') in result.text
    assert not {'script', 'link', 'iframe', 'object'} & set(result.tags)
    assert all(load.startswith(('#', 'data:image/jpeg;base64,')) for load in result.loads)
    assert '://' not in result.source and "default-src 'none'" in result.source


def test_a_image_that_is_gone_leaves_a_gap(tmp_path, two):
    result = shown(tmp_path, tally_of([answer('gone.png')]), two, paint=False)
    assert 'gone.png' in result.text and '<span class="item"></span>' in result.source


def test_descriptions_only(tmp_path, two):
    none = Support([], [], np.zeros((0, 64, 64, 3), np.uint8))
    two.support_features_ = two.support_features_[:0]
    two.held_out_, two.support_labels_ = two.held_out_[:0], two.support_labels_[:0]
    result = shown(tmp_path, tally_of([answer('x.png', nearest=-1)]), two, none)
    assert 'nearest:' not in result.text and 'x.png' in result.text
