"""Classes of synthetic defects: which there are, what is held out, textures, and the object."""

import logging
import sys

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image
from scipy import ndimage

from anyshot_jax.data.pseudo import classes, foreground, paint, shapes, textures
from anyshot_jax.types import InputError

PLENTY = 10**6


def fields_of(**fields):
    given = ConfigDict(classes.FIELDS)
    given.update({'classes': 4, 'val_classes': 2, 'per_class': 3, **fields})
    return given


def make(good, **fields):
    return classes.make(good, fields_of(**fields), PLENTY)


@pytest.fixture(scope='module')
def good():
    """Five grey images in three channels, all different."""
    rng = np.random.default_rng(0)
    grey = rng.integers(60, 190, (5, 32, 32, 1), dtype=np.uint8)
    return np.repeat(grey, 3, -1)


@pytest.fixture
def folder(tmp_path):
    """Six categories a..f of three textures; image i of category c is red 40 c + 10 i."""
    for c, category in enumerate('abcdef'):
        for i in range(3):
            file = tmp_path / 'dtd' / 'images' / category / f'{category}_{i}.png'
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new('RGB', (10, 6), (40 * c + 10 * i, 0, 0)).save(file)
    return tmp_path / 'dtd'


def plan(textures_in='', **fields):
    return classes.plan(fields_of(**fields), textures.find_textures(str(textures_in)))


@pytest.mark.parametrize('kind', ['mixed', 'texture'])
def test_validation_is_held_out(kind):
    classes = plan(kind=kind, classes=60, val_classes=20)
    assert {r: len(c) for r, c in classes.items()} == {'train': 60, 'val': 20}
    train, val = (classes[r] for r in ('train', 'val'))
    pasted = lambda some: {t.category for c in some for t in c.textures}
    assert pasted(train) and pasted(val) and not pasted(train) & pasted(val)
    pairs = lambda some: {(c.shape, c.appearance) for c in some}
    names = [c.name for role in classes.values() for c in role]
    if kind == 'mixed':
        assert len(pairs(train)) == 29 and len(pairs(val)) == 7  # of 6 x 6, a fifth
        assert not pairs(train) & pairs(val)
        assert {c.shape for c in val} == set(shapes.SHAPES)
        assert {c.appearance for c in val} == set(paint.APPEARANCES)
    assert len(set(names)) == 80
    # The seed draws them.
    assert plan(kind=kind, classes=60, val_classes=20) == classes
    assert plan(kind=kind, classes=60, val_classes=20, seed=1) != classes


@pytest.mark.parametrize('kind', classes.KINDS)
def test_more_classes_add_to_fewer(kind):
    few, more = plan(kind=kind, classes=2), plan(kind=kind, classes=8)
    assert more['train'][:2] == few['train'] and more['val'] == few['val']


def test_kinds_of_pasted_classes(folder):
    """Of six categories one is val's; three images a category, corners 3 to 6."""
    num = {'texture': (15, 3), 'category': (5, 1), 'polygon': (20, 4)}
    for kind, (train, val) in num.items():
        classes = plan(folder, kind=kind, classes=train, val_classes=val)
        of_class = {len(c.textures) for c in classes['train']}
        assert of_class == {1 if kind == 'texture' else 3}
        corners = {c.corners for c in classes['train']}
        assert corners == ({3, 4, 5, 6} if kind == 'polygon' else {0})
        assert all(len({t.category for t in c.textures}) == 1 for c in classes['train'])
        with pytest.raises(InputError, match=rf"classes = {train + 1}, but kind='{kind}' and the "
                           rf'textures of 6 categories make {train} for train'):  # fmt: skip
            plan(folder, kind=kind, classes=train + 1, val_classes=val)
        with pytest.raises(InputError, match=rf'val_classes = {val + 1}, .* {val} for val'):
            plan(folder, kind=kind, classes=train, val_classes=val + 1)
    some = plan(folder, kind='polygon', classes=5, val_classes=0)
    assert not some['val'] and len({c.corners for c in some['train']}) > 1


def test_the_same_image_in_a_set(good):
    data = make(good, classes=2, val_classes=1)
    assert set(data) == {'train', 'val'}
    train = data['train']
    assert train.x.shape == (6, 32, 32, 3) and train.x.dtype == np.uint8
    assert train.count.tolist() == [3] * 2 and len(data['val'].x) == 3
    # Item j of each class is made on the same image, and val's are, too.
    rows = train.group[:3]
    assert len(set(rows.tolist())) == 3
    np.testing.assert_array_equal(train.group, np.tile(rows, 2))
    np.testing.assert_array_equal(data['val'].group, rows)
    for d in data.values():
        np.testing.assert_array_equal(d.x[~d.mask], good[d.group][~d.mask])
        assert d.mask.any((1, 2)).all()
        changed = (d.x != good[d.group]).any(-1)
        assert (changed.sum((1, 2)) > 0.3 * d.mask.sum((1, 2))).all()
    assert make(good, classes=1, val_classes=0).keys() == {'train'}


def test_rows_of_images():
    """Each as often as any other, or once more."""
    assert sorted(classes.source_rows(5, 5, 0).tolist()) == [0, 1, 2, 3, 4]
    assert np.bincount(classes.source_rows(5, 13, 0)).tolist().count(3) == 3
    assert len(set(classes.source_rows(100, 40, 0).tolist())) == 40
    assert classes.source_rows(100, 40, 0).tolist() != classes.source_rows(100, 40, 1).tolist()


def test_seeds_and_more_classes(good):
    """The same bits again; what fewer classes had stays; another seed is another set."""
    first, again = (make(good, kind='texture') for _ in range(2))
    for role in first:
        for a, b in zip(jax.tree.leaves(first[role]), jax.tree.leaves(again[role]), strict=True):
            np.testing.assert_array_equal(a, b)
    more = make(good, kind='texture', classes=6)
    np.testing.assert_array_equal(more['train'].x[:12], first['train'].x)
    np.testing.assert_array_equal(more['val'].x, first['val'].x)
    other = make(good, kind='texture', seed=1)
    assert (other['train'].x != first['train'].x).any()


@pytest.mark.parametrize('kind', ['texture', 'category', 'polygon'])
def test_textures_are_those_of_the_class(good, folder, kind):
    """With beta = 0 the texture itself stands in the mask, one of the class's."""
    train = make(good, kind=kind, textures=str(folder), beta=0.0, classes=3, val_classes=0)['train']
    items = zip(train.x, train.mask, train.label, strict=True)
    found = [(train.names[c], np.unique(x[mask], axis=0).tolist()) for x, mask, c in items]
    for name, colours in found:
        reds = [40 * 'abcdef'.index(name[0]) + 10 * i for i in range(3)]
        if kind == 'texture':
            assert colours == [[reds[int(name[-1])], 0, 0]]
        else:
            assert colours in [[[red, 0, 0]] for red in reds]
    if kind != 'texture':  # any of the category's
        assert len({str(of_item) for of_item in found}) > 3


def test_no_paint_on_grey_images(good, folder):
    """Of 'mixed'; the published kinds paste colours on grey, too."""
    first = lambda seed: plan(folder, classes=1, seed=seed)['train'][0]
    seed = next(s for s in range(99) if first(s).appearance == 'texture')
    of = lambda kind: make(
        good, kind=kind, classes=1, val_classes=0, textures=str(folder), seed=seed
    )['train'].x.astype(int)
    assert np.ptp(of('mixed'), axis=-1).max() <= 1
    assert np.ptp(of('texture'), axis=-1).max() > 20


@pytest.mark.parametrize('fields, message', [
    ({'kind': 'mix'}, "kind='mix' is unknown; did you mean 'mixed'"),
    ({'classes': -1}, 'classes = -1'),
    ({'val_classes': -1}, 'val_classes = -1'),
    ({'per_class': 0}, 'per_class = 0'),
    ({'seed': -1}, 'seed = -1'),
    ({'beta': 1.0}, 'beta = 1.0'),
    ({'foreground': 'sam'}, "foreground = 'sam': need none, grabcut or flood"),
])  # fmt: skip
def test_bad_fields(fields, message):
    with pytest.raises(InputError, match=message):
        classes.check(fields_of(**fields))


# Textures.


def test_folders_of_textures(folder, monkeypatch):
    found = textures.find_textures(str(folder))
    assert [t.name for t in found[:4]] == ['a_0', 'a_1', 'a_2', 'b_0'] and len(found) == 18
    assert textures.find_textures(str(folder / 'images')) == found
    monkeypatch.setenv('ANYSHOT_DATA_DIR', str(folder.parent))
    assert textures.find_textures('dtd') == found
    x = textures.read_textures(found[3:5], 8, 3, PLENTY)
    np.testing.assert_array_equal(x, np.full((2, 8, 8, 3), [[[[40, 0, 0]]], [[[50, 0, 0]]]]))
    assert textures.read_textures(found[:1], 8, 1, PLENTY).shape == (1, 8, 8, 1)
    with pytest.raises(InputError, match='has 10 x 6 pixels'):
        textures.read_textures(found, 8, 3, 59)
    found[2].file.write_bytes(b'x')
    with pytest.raises(InputError, match=r'a_2\.png is not an image'):
        textures.read_textures(found, 8, 3, PLENTY)


def test_folders_without_textures(tmp_path):
    with pytest.raises(InputError, match=r'textures: .*gone is no folder; expected <category>'):
        textures.find_textures(str(tmp_path / 'gone'))
    with pytest.raises(InputError, match='holds no texture'):
        textures.find_textures(str(tmp_path))


def test_drawn_textures():
    """All visible, all different, the same every time; grey ones too."""
    found = textures.find_textures('')
    categories = {t.category for t in found}
    assert len(found) == 400 and len(categories) == 10
    some = [t for t in found if int(t.name.split()[1]) < 3]
    x = textures.read_textures(some, 48, 3, PLENTY)
    assert x.std((1, 2, 3)).min() > 12 and len({a.tobytes() for a in x}) == 30
    assert textures.read_textures(some[:2], 48, 3, PLENTY).tobytes() == x[:2].tobytes()
    assert textures.read_textures(some[:2], 48, 1, PLENTY).shape == (2, 48, 48, 1)


# The object.


@pytest.fixture(scope='module')
def discs():
    """A bright disc on black with a little noise, and where it is."""
    rng = np.random.default_rng(0)
    row, col = np.mgrid[:64, :64]
    x, inside = np.empty((3, 64, 64, 3), np.uint8), np.empty((3, 64, 64), bool)
    for i in range(3):
        inside[i] = np.hypot(row - 30, col - 32 + 3 * i) < 18
        grain = rng.normal(0, 4, (64, 64, 3))
        x[i] = np.clip(np.where(inside[i][..., None], 190, 25) + grain, 0, 255)
    return x, inside


@pytest.mark.parametrize('how', foreground.WAYS)
def test_the_object_is_found(discs, how):
    pytest.importorskip('cv2')
    x, inside = discs
    for images in (x, x[..., :1]):
        found = foreground.find(images, how)
        shared, either = (found & inside).sum((1, 2)), (found | inside).sum((1, 2))
        assert (shared / either).min() > 0.95
        np.testing.assert_array_equal(foreground.find(images, how), found)
    assert foreground.find(x, 'none').all()


def test_flood_by_hand():
    """From both corners, values within 80 below and 50 above the corner's own, 4-connected."""
    cv2 = pytest.importorskip('cv2')
    assert cv2.__version__
    x = np.full((1, 6, 6, 1), 100, np.uint8)
    x[0, 1, 1:5] = 150  # reached: 50 above
    x[0, 2, 1:5] = 151  # not
    x[0, 3, 1:5] = 20  # reached: 80 below
    x[0, 4, 1:5] = 19  # not
    x[0, 4, 1] = 100  # reached
    x[0, 5, 0], x[0, 4, 0], x[0, 5, 1] = 100, 200, 200  # shut off, but for that one, diagonally
    want = np.zeros((6, 6), bool)
    want[2, 1:5] = want[4, 2:5] = want[5, 0] = want[4, 0] = want[5, 1] = True
    np.testing.assert_array_equal(foreground.find(x, 'flood')[0], want)


def test_defects_lie_on_the_object(discs):
    pytest.importorskip('cv2')
    x, inside = discs
    data = make(x, classes=1, val_classes=0, foreground='flood', kind='category')['train']
    outside = ~ndimage.binary_dilation(inside, np.ones((1, 3, 3)))[data.group]
    assert not (data.mask & outside).any() and data.mask.any((1, 2)).all()


def test_where_nothing_is_found_all_is_taken(caplog):
    pytest.importorskip('cv2')
    x = np.full((2, 16, 16, 3), 90, np.uint8)
    with caplog.at_level(logging.WARNING, 'absl'):
        assert foreground.find(x, 'flood').all()
    assert "foreground='flood' found nothing in 2 of 2 images" in caplog.text


def test_without_opencv(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cv2', None)
    classes.check(fields_of())
    with pytest.raises(InputError, match=r"needs OpenCV: pip install 'anyshot-jax\[anomaly\]'"):
        classes.check(fields_of(foreground='flood'))
    assert foreground.find(np.zeros((1, 4, 4, 1), np.uint8), 'none').all()


def test_sources_are_held_out_by_groups():
    group = np.repeat(np.arange(10), 4)
    rows = classes.sources_of(40, fields_of(per_class=50, held_out=0.3), group)
    val, train = (set(group[rows[role]]) for role in ('val', 'train'))
    assert len(val) == 3 and len(train) == 7 and not val & train
    # Every image of a role as often as any other, or once more.
    assert set(np.unique(rows['val'], return_counts=True)[1]) == {4, 5}
    same = classes.sources_of(40, fields_of(per_class=50), group)
    np.testing.assert_array_equal(same['train'], classes.source_rows(40, 50, 0))
    np.testing.assert_array_equal(same['val'], same['train'])
    with pytest.raises(InputError, match='all normal images are of one group'):
        classes.sources_of(4, fields_of(held_out=0.1), np.zeros(4, int))
