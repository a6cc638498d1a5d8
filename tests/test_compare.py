"""Encoders compared on one's own images: figures by hand, heads as the lines to copy build them."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('sklearn')
pytest.importorskip('tokenizers', reason='the extra pretrained')
import tiny_joint
from PIL import Image
from sklearn.linear_model import LogisticRegression

from anyshot_jax.classify import feature_store
from anyshot_jax.classify.classifier import AnyShotClassifier
from anyshot_jax.compare import comparison
from anyshot_jax.compare import folder as folders
from anyshot_jax.compare.comparison import Comparison, Curve, Row, compare
from anyshot_jax.compare.folder import labelled
from anyshot_jax.compare.heads import HEADS
from anyshot_jax.compare.page import page
from anyshot_jax.data.readers.images import open_image
from anyshot_jax.encoders import catalogue
from anyshot_jax.types import InputError

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalogue.VITS, 'tiny_siglip', tiny_joint.VIT)
        yield tiny_joint.write(tmp_path_factory.mktemp('tiny') / 'siglip')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Colours told by everyone: 3 classes of 6, 6 and 4 images, and one of one."""
    root, rng = tmp_path_factory.mktemp('colours'), np.random.default_rng(0)
    for name, (colour, number) in {
        'blue': ((0, 0, 255), 6), 'green': ((0, 200, 0), 6), 'red': ((255, 0, 0), 4),
        'white': ((255, 255, 255), 1),
    }.items():  # fmt: skip
        (root / name).mkdir()
        for i in range(number):
            x = np.array(colour) * rng.uniform(0.7, 1, (32, 32, 1))
            Image.fromarray(x.astype(np.uint8)).save(root / name / f'{i}.png')
    (root / 'notes.txt').write_text('x')
    return root


def features(shots=5, classes=4, dim=12):
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(classes), shots)
    centre = rng.uniform(0, 1, (classes, dim))
    return (centre[y] + rng.uniform(0, 0.8, (len(y), dim))).astype(np.float32), y


@pytest.mark.parametrize('name', list(HEADS))
def test_a_head_answers_as_its_line_does(name):
    x, y = features()
    q = features(9)[0][::2]
    how = {'power': 0.5, 'normalise': True}
    if name == 'logistic regression':
        powered = np.sign(x) * np.abs(x) ** 0.5, np.sign(q) * np.abs(q) ** 0.5
        centred = [a - powered[0].mean(0) for a in powered]
        unit = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in centred]
        want = LogisticRegression(C=10, max_iter=300).fit(unit[0], y).predict(unit[1])
    else:
        shrink = {'shrink': 1.0} if name == 'nearest mean' else {}
        want = AnyShotClassifier(**how, **shrink).fit(x, y).predict(q)
    np.testing.assert_array_equal(HEADS[name].answer(x, y, q), want)


def test_a_class_without_support_is_no_answer():
    x, y = features()
    answer = HEADS['LDA'].answer(x[y != 2], y[y != 2], x)
    assert 2 not in answer


def test_every_image_of_a_class_of_two_is_held_out_once():
    y = np.array([0] * 7 + [1] + [2] * 2)
    parts = comparison.folds(y)
    assert sorted(np.concatenate(parts).tolist()) == [0, 1, 2, 3, 4, 5, 6, 8, 9]
    for part in parts:
        assert set(np.setdiff1d(np.arange(10), part)) >= {7}
        assert {0, 1, 2} == set(y[np.setdiff1d(np.arange(10), part)])


def test_intervals_by_hand():
    # Wilson, 8 of 10, z = 1.96: centre (0.8 + z^2 / 20) / (1 + z^2 / 10).
    low, high = comparison.wilson(8, 10)
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)
    gain, half = comparison.paired(np.array([1, 1, 1, 0], bool), np.array([1, 0, 0, 0], bool))
    assert gain == 0.5 and half == pytest.approx(1.96 * (1 / 3) ** 0.5 / 2)


def test_a_power_law_is_followed():
    shots = [1, 2, 5, 10]
    curve = Curve('e', shots, [1 - 0.4 * s**-0.5 for s in shots], [0] * 4)
    assert comparison.extrapolated(curve, 40) == pytest.approx(1 - 0.4 * 40**-0.5)
    falling = Curve('e', [1, 2], [0.9, 0.8], [0, 0])
    assert comparison.extrapolated(falling, 50) <= 0.9


def test_advice_says_what_the_images_can_show():
    right = lambda share: np.arange(200) < 200 * share
    row = lambda e, share: Row(e, 'LDA', share, 0, 1, right(share), f'line of {e}')
    curve = Curve('big', [1, 2], [1 - 0.2, 1 - 0.2 / 2**0.5], [0, 0])
    usual = comparison.DEFAULT
    whole = lambda rows: Comparison(rows, [curve], {}, {}, 200, 4, 4, 0, {})
    said = whole([row('big', 0.9), row(usual, 0.8)]).advice()
    assert 'points better, so take it' in said and '10.0 ±' in said
    # 0.2 (4^-0.5 - 5^-0.5) = 1.06 points, 0.2 (4^-0.5 - 8^-0.5) = 2.9.
    assert 'one more image a class would help by about 1.1 points' in said
    assert 'twice as many by about 2.9' in said
    same = whole([row('big', 0.805), row(usual, 0.8)]).advice()
    assert f'so keep {usual}' in same and 'could show' in same


def test_a_folder_is_compared_and_nothing_is_embedded_twice(tiny, folder, monkeypatch):
    paths, labels, skipped = labelled(folder, skip=False)
    assert len(paths) == 17 and skipped == 0
    both = [tiny, f'{tiny}+colours']
    found = compare(paths, labels, both)
    assert (found.images, found.classes, found.typical, found.alone) == (17, 4, 5, 1)
    assert len(found.rows) == 6 and found.best().accuracy == max(r.accuracy for r in found.rows)
    for r in found.rows:
        assert len(r.right) == 16 and r.accuracy == r.right.mean()
        assert r.low <= r.accuracy <= r.high
    assert found.best().accuracy > 0.9
    assert repr(found.best().encoder) in found.best().line
    assert [c.shots for c in found.curves] == [[1, 2, 3, 5]] * 2
    assert all(len(line.split()) > 4 for line in found.table().splitlines()[1:])
    monkeypatch.setattr(feature_store.FeatureStore, '_embedded', None)  # would fail if called
    again = compare(paths, labels, both)
    assert [r.accuracy for r in again.rows] == [r.accuracy for r in found.rows]
    assert again.curves == found.curves
    text = page(found, '<b>x</b>', {'support': 'here'})
    assert '<b>x' not in text and 'one image, which is never asked for' in text
    assert text.count('<polyline') == 2


def test_what_can_not_be_compared(tiny, folder, tmp_path):
    x = np.zeros((3, 32, 32, 3), np.uint8)
    with pytest.raises(InputError, match='two classes, one of them with two images'):
        compare(x, ['a', 'a', 'a'], [tiny])
    with pytest.raises(InputError, match='two classes, one of them with two images'):
        compare(x, ['a', 'b', 'c'], [tiny])
    with pytest.raises(InputError, match='3 images, but labels of shape'):
        compare(x, ['a', 'b'], [tiny])
    with pytest.raises(InputError, match='named twice'):
        compare(x, ['a', 'b', 'b'], [tiny, tiny])
    with pytest.raises(InputError, match='no encoder of that name'):
        compare(x, ['a', 'b', 'b'], ['efficientnet_lite9'])
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / 'x.png').write_bytes(b'\x89PNG\r\n\x1a\n')
    with pytest.raises(InputError, match=r'x\.png .*on_error=skip'):
        labelled(tmp_path, skip=False)
    with pytest.raises(InputError, match='holds no class folder with images'):
        labelled(tmp_path, skip=True)


COMMAND = """
import sys
import tiny_joint
from anyshot_jax.compare import cli
from anyshot_jax.data.readers.images import open_image
from anyshot_jax.encoders import catalogue
catalogue.VITS['tiny_siglip'] = tiny_joint.VIT
cli()
"""


def test_many_files_that_are_no_images_are_soon_told(tmp_path, monkeypatch, caplog):
    """The first of them ends it before the rest is opened; passed over, some are named."""
    (tmp_path / 'a').mkdir()
    for i in range(600):
        (tmp_path / 'a' / f'{i}.png').touch()
    Image.new('RGB', (4, 4)).save(tmp_path / 'a' / 'good.png')
    opened = []
    count = lambda *args: opened.append(args) or open_image(*args)
    monkeypatch.setattr(folders, 'open_image', count)
    with pytest.raises(InputError, match=r'0\.png is not an image .*on_error=skip'):
        labelled(tmp_path, skip=False)
    assert len(opened) <= 256
    paths, labels, skipped = labelled(tmp_path, skip=True)
    assert (paths, labels, skipped) == ([tmp_path / 'a' / 'good.png'], ['a'], 600)
    assert caplog.text.count('skipped: ') == 10


def test_the_out_folder_is_tried_before_the_work(tmp_path, python, folder):
    (tmp_path / 'file').write_text('')
    ended = python(
        '-m', 'anyshot_jax.compare', f'--support={folder}', f'--out={tmp_path}/file/out'
    )  # fmt: skip
    assert ended.returncode == 2 and '...' not in ended.stdout
    assert ended.stderr.startswith(f'error: {tmp_path}/file/out cannot be written')


def test_the_command_prints_the_line_and_writes_the_page(python, tiny, folder, tmp_path):
    (tmp_path / 'x.py').write_text(COMMAND)
    here = str(Path(__file__).parent)
    run = lambda *flags: python(
        str(tmp_path / 'x.py'), *flags,
        PYTHONPATH=os.pathsep.join([here, str(Path(here).parent), *sys.path]),
    )  # fmt: skip
    ask = f'--support={folder}', f'--out={tmp_path}', f'--encoders={tiny}'
    done = run(*ask)
    assert done.returncode == 0, done.stderr
    assert f'AnyShotClassifier({tiny!r}' in done.stdout
    assert 'one more image a class would help by about' in done.stdout
    assert tiny in (tmp_path / 'report.html').read_text()
    done = run(*ask)
    assert done.returncode == 2 and 'report.html is there already' in done.stderr
    done = run()
    assert done.returncode == 2 and '--support=DIR is missing' in done.stderr
