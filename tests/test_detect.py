"""The detector on a net of one convolution, against patches taken all at once in NumPy."""

import copy
import json
import math
import os

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_maps
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from scipy import ndimage
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score

from anyshot_jax import AnomalyDetector
from anyshot_jax.defects import memory_bank
from anyshot_jax.detect import (
    defect_net,
    knowledge,
    model_file,
    normal,
    objects,
    pretraining,
    program,
    seeing,
    synthetic,
    views,
)
from anyshot_jax.detect.defect_types import UNKNOWN
from anyshot_jax.detect.verdicts import how_far
from anyshot_jax.types import InputError, from_arrays

pytestmark = pytest.mark.slow

LAYERS = ('stride2', 'stride4')


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """One eye for all tests of a size: its programs are compiled once."""
    monkeypatch.setattr(memory_bank, 'load', tiny_maps.net)


def detector(**fields):
    return AnomalyDetector('tiny', **{'layers': LAYERS, 'size': 16} | fields)


@pytest.fixture(scope='module')
def images():
    return (
        tiny_maps.bright_squares(60, 1)[0],
        tiny_maps.bright_squares(12, 2)[0],
        *tiny_maps.bright_squares(12, 3, bright=90),
    )


@pytest.fixture(scope='module')
def fitted(images):
    with pytest.MonkeyPatch.context() as m:
        m.setattr(memory_bank, 'load', tiny_maps.net)
        return detector().fit(images[0])


def patches(x):
    eye = seeing.eye('tiny', LAYERS, 16)
    x = np.repeat(x, 3, -1) if x.shape[-1] == 1 else x
    return np.asarray(eye.patcher.apply(eye.params, x)).reshape(len(x), -1, eye.dim)


def far(x, bank):
    """[N, P] distances to the nearest of the bank, by differences."""
    return np.stack([np.linalg.norm(p[:, None] - bank[None], axis=-1).min(1) for p in x])


def described(found, image, mask=None):
    """What the types of defects in an image are told by, [1, D]."""
    return knowledge.vectors(found._known(), [image], None, [mask])


def map_of(found, image):
    ((_, _, one),) = found.each([image])
    return one.dist


def test_scores_are_those_of_all_patches(fitted, images):
    good, _, bad, _ = images
    (known,) = fitted.normal_.values()
    every = patches(good)
    bank = every.reshape(-1, 9)  # 60 * 64 of 10,000 that may be kept
    np.testing.assert_allclose(
        fitted.score_samples(bad[:3]), -far(patches(bad[:3]), bank).max(1), rtol=1e-4
    )
    # Held out: by the images of all other folds.
    held = known.held_out
    for i in (0, 31, 59):
        at = held.number[i]
        others = every[known.fold_of != known.fold_of[at]].reshape(-1, 9)
        np.testing.assert_allclose(held.score[i], far(every[at : at + 1], others).max(), rtol=1e-4)
    assert fitted.threshold_ == pytest.approx(held.score.max())  # 60 are too few for 1 %
    assert fitted.promise_.loose and fitted.promise_.expected == pytest.approx(1 / 61)


def test_scikit_learn_conventions(fitted, images):
    good, new, bad, _ = images
    score = fitted.score_samples(np.concatenate([new, bad]))
    assert roc_auc_score([1] * 12 + [0] * 12, score) > 0.98
    np.testing.assert_allclose(fitted.decision_function(new), score[:12] - fitted.offset_)
    assert set(fitted.predict(bad)) == {'defect'} and set(fitted.predict(new)) == {'normal'}
    said = detector(false_alarm=0.1).fit_predict([*good, bad[0]])
    assert said[-1] == -1 and (said[:-1] == 1).mean() > 0.85
    copy = clone(fitted)
    assert copy.get_params()['layers'] == LAYERS
    with pytest.raises(NotFittedError):
        copy.predict(new)


def test_where_and_why(fitted, images):
    good, _, bad, masks = images
    for x, mask in list(zip(bad, masks, strict=True))[:4]:
        heat = fitted.heat_map(x)
        assert heat.shape == (16, 16)
        assert heat[mask].mean() > 2 * heat[~mask].mean()
        (verdict,) = fitted.judge([x])
        left, top, right, bottom = verdict.place
        assert (right - left, bottom - top) == (2, 2)
        assert mask[max(top - 2, 0) : bottom + 2, max(left - 2, 0) : right + 2].any()
        why = fitted.explain(x)
        number = int(why.normal[1:])
        left, top = why.normal_place[:2]
        nearest = patches(good[number : number + 1])[0].reshape(8, 8, -1)[top // 2, left // 2]
        own = patches(x[None])[0].reshape(8, 8, -1)[why.place[1] // 2, why.place[0] // 2]
        assert np.linalg.norm(own - nearest) == pytest.approx(why.distance, rel=1e-4)


def test_more_normal_images(images):
    good = images[0]
    found = detector().fit(good[:30]).add_normal(good[30:])
    known = found.normal_['']
    assert len(known.names) == 60 and found.promise_.images == 60
    # The old images' scores are upper bounds of what they would be now.
    bank = normal.bank_of(known)
    rows, every = np.asarray(bank.rows), patches(good)
    for i in range(0, 60, 6):
        others = rows[(bank.fold >= 0) & (bank.fold != known.fold_of[i])]
        at = int(np.flatnonzero(known.held_out.number == i)[0])
        assert known.held_out.score[at] > far(every[i : i + 1], others).max() - 1e-4
    assert (known.held_out.score < known.held_out.first - 1e-4).any()
    whole = detector().fit(good)
    assert abs(whole.threshold_ - found.threshold_) < 0.2 * whole.threshold_
    small = detector(memory=500).fit(good[:30]).add_normal(good[30:]).normal_['']
    assert sum(len(f.rows) for f in small.folds) == 500


def test_a_failed_addition_leaves_no_trace(fitted, images, tmp_path):
    before = fitted.score_samples(images[2])
    (tmp_path / 'x.png').write_bytes(b'no image')
    with pytest.raises(InputError, match=r'x\.png is not an image'):
        fitted.add_normal([images[0][0], tmp_path / 'x.png'])
    np.testing.assert_array_equal(fitted.score_samples(images[2]), before)


def stripes(n, seed, axis):
    """Bars along one axis, which a type of defect is."""
    rng = np.random.default_rng(seed)
    x = rng.normal(128, 8, (n, 16, 16, 1))
    for image, at in zip(x, rng.integers(1, 11, n), strict=True):
        image[(slice(at, at + 4),) if axis == 0 else (slice(None), slice(at, at + 4))] += (
            90 if axis == 0 else -90
        )
    return np.clip(x, 0, 255).astype(np.uint8)


@pytest.mark.parametrize('shots', [1, 5])
def test_types_from_few_images(fitted, shots):
    found = detector().fit(tiny_maps.bright_squares(60, 1)[0])
    for axis, name in enumerate(('bright', 'dark')):
        found.add_type(name, stripes(shots, 10 + axis, axis))
    assert found.types_ == ['bright', 'dark']
    for axis, name in enumerate(found.types_):
        p = found.predict_type_proba(stripes(10, 20 + axis, axis))
        np.testing.assert_allclose(p.sum(1), 1)
        assert (p.argmax(1) == axis).mean() >= 0.9
        said = found.predict_type(stripes(10, 20 + axis, axis))
        assert set(said) <= {name, UNKNOWN} and (said == name).mean() >= (0.9 if shots < 2 else 0.5)
    verdict = found.judge(stripes(1, 30, 1))[0]
    assert verdict.type in ('dark', UNKNOWN) and verdict.defect
    assert found.remove_type('dark').types_ == ['bright']


def test_an_answer_prepares_no_memory_again(fitted, images, monkeypatch):
    want = fitted.score_samples(images[2][:1])
    monkeypatch.setattr(normal, 'bank_of', None)
    np.testing.assert_array_equal(fitted.score_samples(images[2][:1]), want)
    assert fitted.heat_map(images[2][0]).shape == (16, 16)


def test_a_mask_says_which_place_is_meant(images):
    good, new, bad, _ = images
    found = detector().fit(good)
    dark, mask = new[0].copy(), np.zeros((16, 16), bool)
    mask[11:, :5] = True
    dark[mask] = 0
    x = np.where(mask[..., None], dark, bad[0])  # a brighter square beside it is the worst place
    vectors = lambda image, mask: described(found, image, mask)[0]
    meant = vectors(dark, None)
    assert vectors(x, mask) @ meant > 0.9 > vectors(x, None) @ meant
    small = np.zeros((8, 8), bool)
    small[6:, :2] = True  # at half the size
    assert vectors(x, small) @ meant > 0.9
    with pytest.raises(InputError, match='mask of #0 has 12 x 8 pixels, but its image 16 x 16'):
        found.add_type('spot', [x], masks=[np.ones((8, 12), bool)])
    with pytest.raises(InputError, match='mask of #0 is empty'):
        found.add_type('spot', [x], masks=[np.zeros((16, 16), bool)])


def test_a_defect_is_not_another_product(images):
    """By hand: normal images at 7.0 to 7.4 hardly differ, so that the margin decides: 11.1."""
    good, _, bad, _ = images
    found = detector().fit(good)
    (known,) = found.normal_.values()
    known = known._replace(held_out=known.held_out._replace(low=np.array([7.0, 7.2, 7.4])))
    ((_, _, one),) = found.each(bad[:1])
    for low, share in ((7.7, 7.7 / 11.1), (11.3, 11.3 / 11.1)):
        assert how_far(known, one._replace(low=low)) == pytest.approx(share)
    known = known._replace(held_out=known.held_out._replace(low=np.array([1.0, 2.0, 4.0])))
    assert how_far(known, one._replace(low=3.0)) == pytest.approx(0.5)  # of twice 4 less 2
    held = normal.HeldOut(*(a[:3] for a in known.held_out))
    known = known._replace(held_out=held._replace(low=np.zeros(3), score=np.full(3, 5)))
    assert how_far(known, one._replace(low=0.5)) == pytest.approx(0.4)  # of a quarter of 5


def test_another_product_is_told_by_distances_not_by_what_a_net_says(images):
    """A net that finds the same in all images, and counts distances in tenths, changes nothing."""
    good, _, bad, _ = images
    found = detector().fit(good[:6])
    (known,), ((_, _, one),) = found.normal_.values(), found.each(bad[:1])
    held = known.held_out._replace(low=np.full(6, 0.1))
    of_net = held._replace(score=10 * held.score + 7, more=held.more + 7)
    want = how_far(known._replace(held_out=held), one)
    assert how_far(known._replace(held_out=of_net, per=0.1), one) == pytest.approx(want, rel=1e-5)


def test_a_little_noise_is_not_another_product():
    """Screws drawn on a ground that is the same in all images, and one with the noise of JPEG."""
    rng = np.random.default_rng(0)
    good = np.full((24, 32, 32), 220, np.uint8)
    for x, (row, column) in zip(good, rng.integers(4, 20, (24, 2)), strict=True):
        x[row : row + 4, column : column + 8] = 90
    found = detector(size=32).fit(good[:23])
    assert np.median(found.normal_[''].held_out.low) < 1e-6
    noisy = np.clip(good[23] + rng.normal(0, 1, (32, 32)), 0, 255).astype(np.uint8)
    assert found.judge([noisy])[0].product == ''


def test_products_are_told_apart(images):
    good, new, bad, _ = images
    dark = good // 4
    found = detector().fit([*good, *dark], product=['light'] * 60 + ['dark'] * 60)
    assert found.products_ == ['light', 'dark'] and set(found.threshold_) == {'light', 'dark'}
    verdicts = found.judge([*new[:4], *(new[:4] // 4)])
    assert [v.product for v in verdicts] == ['light'] * 4 + ['dark'] * 4
    assert not any(v.defect for v in verdicts)
    assert found.judge(bad[:1], product='light')[0].defect
    assert found.judge(new[:1], product='dark')[0].defect
    (other,) = found.judge([np.full((16, 16), 250, np.uint8)])
    assert other.product is None and other.defect
    with pytest.raises(InputError, match="no product 'lite'; did you mean 'light'"):
        found.judge(new[:1], product='lite')
    with pytest.raises(InputError, match='product is missing'):
        found.add_normal(good[:1])


def test_saved_and_read(tmp_path, images):
    good, new, bad, _ = images
    found = detector(false_alarm=0.05).fit(good).add_type('spot', bad[:3])
    found.save(tmp_path / 'm.safetensors')
    again = AnomalyDetector.load(tmp_path / 'm.safetensors')
    assert again.get_params() == found.get_params()
    assert again.judge([*new[:2], *bad]) == found.judge([*new[:2], *bad])
    assert again.promise_ == found.promise_ and again.explain(bad[0]) == found.explain(bad[0])
    assert again.add_normal(new).threshold_ == found.add_normal(new).threshold_
    with pytest.raises(InputError, match='a model is a'):
        found.save(tmp_path / 'm.npz')


def test_what_can_be_fitted_can_be_kept(tmp_path, images, caplog):
    """A product of one image beside types of another's defects; names of bytes that are no text."""
    good, _, bad, _ = images
    path = tmp_path / 'm.safetensors'
    found = detector().fit(good[:5], product='a').add_type('spot', bad[:1])
    found.add_normal(good[5:6], product='b').save(path)
    again = AnomalyDetector.load(path)
    assert again.types_ == ['spot'] and again.products_ == ['a', 'b']
    assert again.judge(bad[:2]) == found.judge(bad[:2])
    names = [os.fsdecode(os.fsencode(tmp_path) + b'/\xff%d.png' % i) for i in range(4)]
    for name, x in zip(names, good, strict=False):
        with open(name, 'wb') as f:
            Image.fromarray(x[..., 0]).save(f, 'png')
    detector().fit(names).save(path)
    assert AnomalyDetector.load(path).normal_[''].names[0].endswith('/\\udcff0.png')
    with pytest.raises(InputError, match='cannot be kept: it is no text'):
        detector().fit(names, product=names[0]).save(path)
    assert all(r.getMessage().isprintable() for r in caplog.records)


def test_damaged_models_are_refused(tmp_path, images):
    from safetensors.numpy import load_file, save_file

    path = tmp_path / 'm.safetensors'
    found = detector(max_pixels=10**18).fit(images[0][:4]).add_type('spot', images[2][:1])
    found.save(path)
    assert AnomalyDetector.load(path).max_pixels == AnomalyDetector().max_pixels
    arrays = load_file(path)
    raw = path.read_bytes()
    said = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], 'little')])['__metadata__']
    for name, wrong in (
        ('product0.rows', arrays['product0.rows'][:-1]),
        ('product0.image', arrays['product0.image'] + 9),
        ('product0.score', arrays['product0.score'] * np.nan),
        ('product0.fold_of', arrays['product0.fold_of'].astype(np.int64)),
        ('product0.rows', np.full_like(arrays['product0.rows'], 3e38)),
    ):
        save_file(arrays | {name: wrong}, path, said)
        with pytest.raises(InputError, match='does not fit the rest'):
            AnomalyDetector.load(path)
    for part, name, wrong in (
        ('params', 'size', 16.5), ('params', 'memory', True), ('params', 'encoder', '\ud800'),
        ('products', 'names', ['\ud800'] * 4), ('products', 'radius', [-1.0] * 4),
        ('types', 'names', ['\ud800']), ('types', 'threshold', math.nan),
        ('types', 'false_alarm', 7),
    ):  # fmt: skip
        of_file = json.loads(said['anyshot_jax_detector'])
        section = of_file[part][0] if part == 'products' else of_file[part]
        section[name] = wrong
        save_file(arrays, path, {'anyshot_jax_detector': json.dumps(of_file)})
        with pytest.raises(InputError, match='does not fit the rest'):
            AnomalyDetector.load(path)
    save_file(arrays, path)
    with pytest.raises(InputError, match='no detector of this package'):
        AnomalyDetector.load(path)
    path.write_bytes(raw[:200])
    with pytest.raises(InputError, match='damaged'):
        AnomalyDetector.load(path)
    with pytest.raises(InputError, match='no model'):
        AnomalyDetector.load(tmp_path / 'other.safetensors')


def test_what_normal_images_can_be(images, tmp_path):
    good = images[0]
    Image.fromarray(good[0, ..., 0]).save(tmp_path / 'a.png')
    wide = Image.fromarray(np.repeat(np.repeat(good[1, ..., 0], 2, 1)[..., None], 3, -1))
    found = detector().fit([tmp_path / 'a.png', wide, good[2, ..., 0], good[3]])
    assert any('3 of 4 normal images are grey' in note for note in found.notes())
    assert any('loose' in note for note in found.notes())
    for wrong, says in (
        ([], 'X is empty'),
        ('none.png', 'none.png: there is no such file'),
        (['none.png'], 'none.png: there is no such file'),
        (np.zeros((2, 8)), r'normal images: give a folder, or .* got float64 \(2, 8\)'),
        ([3], 'normal images: give a folder'),
        ([good[0]] * 5, 'all 5 normal images are the same'),
    ):
        with pytest.raises(InputError, match=says):
            detector().fit(wrong)
    for field, value in (('false_alarm', 0), ('size', 3), ('tile', 100), ('memory', 1)):
        with pytest.raises(InputError, match=field):
            detector(**{field: value}).fit(good)
    with pytest.raises(InputError, match='2 images, but 1 groups'):
        detector().fit(good[:2], groups=['a'])


def test_one_normal_image_gives_scores_and_no_threshold(images):
    good, new, bad, _ = images
    found = detector().fit(good[:1])
    assert found.threshold_ is None and 'no threshold' in found.notes()[0]
    assert found.score_samples(bad).max() < found.score_samples(new).min()
    with pytest.raises(InputError, match='one normal image gives no threshold'):
        found.predict(new)
    assert found.judge(new[:1])[0].defect is None
    assert found.add_normal(good[1:20]).threshold_ is not None


def test_a_defect_among_the_normal_images_is_named(images):
    good, _, bad, _ = images
    found = detector().fit([*good[:30], bad[0]])
    assert [name for name, *_ in found.strange()] == ['#30']
    assert any('#30 is unlike the other normal images' in note for note in found.notes())
    assert detector().fit(good[:30]).strange() == []


def test_a_removed_image_is_as_if_it_had_never_been_there(images, tmp_path):
    """No patch is left out here, so that the answers are those of a fit on the others."""
    good, new, bad, _ = images
    found = detector().fit([*good[:20], bad[0]])
    (strange,) = found.strange()
    before = found.score_samples(bad[:2])
    found.remove_normal(strange.name)
    want = detector().fit(good[:20])
    np.testing.assert_allclose(found.score_samples(bad), want.score_samples(bad), rtol=1e-5)
    assert found.score_samples(bad[:1]) < before[0] and found.strange() == []
    assert found.promise_ == want.promise_
    # The folds are others with 21 images than with 20, and so are held-out scores; a little.
    assert found.threshold_ == pytest.approx(want.threshold_, rel=0.05)
    found.save(tmp_path / 'm.safetensors')
    again = AnomalyDetector.load(tmp_path / 'm.safetensors')
    assert again.threshold_ == found.threshold_ and again.explain(new[0]) == found.explain(new[0])
    with pytest.raises(InputError, match="no normal image '#20'"):
        found.remove_normal('#20')
    two = detector().fit(good[:2]).remove_normal('#0')
    assert two.threshold_ is None and two.explain(bad[0]).normal == '#1'
    with pytest.raises(InputError, match='#1 is the only normal image'):
        two.remove_normal('#1')


def test_what_has_nothing_to_be_compared_with_gives_no_threshold(images):
    """Near copies of which one is all that is remembered, and one that all others are copies of."""
    good = images[0]
    found = detector(memory=10).fit(good[:3], groups=['a', 'a', 'b'])
    known = found.normal_['']
    first = known.folds[0]  # of 'a', as if only the first image's patches had been kept
    own = first._replace(image=np.zeros_like(first.image))
    left = normal.without(known._replace(folds=(own, known.folds[1])), '#0')
    # The other copy beside 'b'; of that, nothing is there to hold it out from.
    assert left.held_out.number.tolist() == [0]
    found = detector().fit(good[:2], groups=['a', 'b']).remove_normal('#1')
    found.add_normal(good[2:4], groups=['a', 'a'])
    assert found.threshold_ is None and len(found.normal_[''].held_out.number) == 0


def test_held_out_scores_follow_a_removal(images):
    """An image that only the removed one resembled is unlike the others afterwards."""
    good, _, bad, _ = images
    found = detector().fit([bad[0], *good[:18], np.roll(bad[0], 2, 1)])
    held = lambda: dict(zip((found.normal_[''].names[i] for i in found.normal_[''].held_out.number),
                            found.normal_[''].held_out.score, strict=True))  # fmt: skip
    before = held()
    found.remove_normal('#0')
    after = held()
    assert '#0' not in after and after['#19'] > 1.5 * before['#19']


def test_types_are_told_after_synthetic_ones(images, tmp_path, monkeypatch):
    """What is appended is the descriptions' image under the learnt map; kept in the file."""
    monkeypatch.setattr(pretraining, 'CLASSES', 10)
    monkeypatch.setattr(pretraining, 'PER_CLASS', 7)

    def make(good, fields, max_pixels):
        """A bar at one of ten places."""
        assert good.shape == (7, 16, 16, 3) and fields.classes == 10
        x = np.tile(good[None], (10, 1, 1, 1, 1))
        for i, of_class in enumerate(x):
            of_class[:, :, i : i + 4] = 255
        train = from_arrays(x.reshape(70, 16, 16, 3), np.repeat(range(10), 7), tuple('abcdefghij'))
        return {'train': train}

    monkeypatch.setattr(synthetic.classes, 'make', make)
    plain = detector().fit(images[0][:12])
    found = detector(pretrain=True).fit(images[0][:12])
    z, own = described(plain, images[2][0]), described(found, images[2][0])
    more = z @ found.types_of_.kernel
    more /= np.linalg.norm(more)
    want = np.concatenate([z, more / 2], 1) / 1.25**0.5  # of length 1
    np.testing.assert_allclose(own, want, rtol=1e-5, atol=1e-6)
    for axis, name in enumerate(('bright', 'dark')):
        found.add_type(name, stripes(5, 10 + axis, axis))
    found.save(tmp_path / 'm.safetensors')
    again = AnomalyDetector.load(tmp_path / 'm.safetensors')
    new = [*stripes(5, 20, 0), *stripes(5, 21, 1)]
    p = again.predict_type_proba(new)
    np.testing.assert_array_equal(p, found.predict_type_proba(new))
    assert p.argmax(1).tolist() == [0] * 5 + [1] * 5
    # In files of format 2 both parts of an example counted alike.
    arrays = load_file(tmp_path / 'm.safetensors')
    with safe_open(tmp_path / 'm.safetensors', 'np') as f:
        said = json.loads(f.metadata()[model_file.KEY])
    of = np.split(arrays['types.z'], [len(found.types_of_.kernel)], axis=1)
    arrays['types.z'] = np.concatenate([x / np.linalg.norm(x, axis=1)[:, None] for x in of], 1)
    arrays['types.z'] /= np.float32(2**0.5)
    said['format'] = 2
    save_file(arrays, tmp_path / 'old.safetensors', {model_file.KEY: json.dumps(said)})
    old = AnomalyDetector.load(tmp_path / 'old.safetensors')
    np.testing.assert_allclose(old.types_of_.z, found.types_of_.z, atol=1e-6)
    again.remove_type('bright').remove_type('dark')
    assert again.types_of_.kernel is not None


def test_synthetic_defects_are_of_the_product_that_they_are_made_on(images, monkeypatch):
    """Dark images of one product and bright ones of another; classes are made as they ever are."""
    monkeypatch.setattr(pretraining, 'CLASSES', 2)
    monkeypatch.setattr(pretraining, 'PER_CLASS', 20)
    monkeypatch.setattr(pretraining, 'trained', lambda z, seed: z)
    x = [np.full((16, 16), 60 + 100 * (i % 2), np.uint8) for i in range(8)]
    of = ['dark', 'bright'] * 4
    eye, looks = detector()._eye(), detector()._looks()

    def describe(made, product):
        said = [np.median(image) > 110 for image in made]
        assert said == [name == 'bright' for name in product]
        return np.zeros((len(made), 3))

    pretraining.kernel(eye, looks, x, of, describe, seed=0)


def test_the_learnt_map_tells_types_apart_that_noise_hides():
    """Types differ in 4 of 64 numbers; in the others all differ more, within each type, too."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(20, 4))

    def items(n):
        noise = rng.normal(size=(20, n, 60))
        small = means[:, None] + 0.2 * rng.normal(size=(20, n, 4))
        z = np.concatenate([small, noise], -1)
        return (z / np.linalg.norm(z, axis=-1, keepdims=True)).astype(np.float32)

    def right(kernel):
        z = (items(60).reshape(-1, 64) @ kernel).reshape(20, 60, -1)
        centre = z[:, :20].mean(1)
        dist = np.linalg.norm(z[:, 20:, None] - centre, axis=-1)
        return (dist.argmin(-1) == np.arange(20)[:, None]).mean()

    monkey = pytest.MonkeyPatch()
    with monkey.context() as m:
        m.setattr(pretraining, 'RATE', 1e-2)  # so that a few steps do
        kernel = np.asarray(pretraining.trained.__wrapped__(jnp.asarray(items(20)), 0))
    assert kernel.shape == (64, 128)
    assert right(kernel) > right(np.eye(64)) + 0.1


@pytest.fixture(scope='module')
def learnt(images):
    """A detector whose net has learnt dots of 2x2, which are one cell of it and a quarter of one
    that is remembered."""

    def make(good, fields, max_pixels):
        x = np.tile(good[None], (fields.classes, 1, 1, 1, 1))
        mask = np.zeros(x.shape[:-1], bool)
        at = np.random.default_rng(0).integers(0, 8, (2, *x.shape[:2]))
        for i, j in np.ndindex(x.shape[:2]):
            spot = tuple(slice(2 * k, 2 * k + 2) for k in at[:, i, j])
            x[i, j][spot] = np.minimum(x[i, j][spot], 205) + 50
            mask[i, j][spot] = True
        num = len(good) * fields.classes
        label = np.repeat(range(fields.classes), len(good))
        names = tuple(map(str, range(fields.classes)))
        flat = x.reshape(num, 16, 16, 3), label, names
        return {'train': from_arrays(*flat, mask=mask.reshape(num, 16, 16))}

    with pytest.MonkeyPatch.context() as m:
        m.setattr(seeing, 'NET_LAYERS', ('stride2', 'stride4'))
        m.setattr(synthetic.classes, 'make', make)
        m.setattr(memory_bank, 'load', tiny_maps.unshuffled)
        seeing.eye.cache_clear()
        yield detector(layers=('stride4',), learnt=True).fit(images[0])
    seeing.eye.cache_clear()


@pytest.fixture
def far_apart(monkeypatch):
    monkeypatch.setattr(memory_bank, 'load', tiny_maps.unshuffled)
    monkeypatch.setattr(seeing, 'NET_LAYERS', ('stride2', 'stride4'))


def dots(n, seed):
    x = tiny_maps.bright_squares(n, seed)[0]
    for image, at in zip(x, 2 * np.random.default_rng(seed).integers(0, 8, (n, 2)), strict=True):
        spot = tuple(slice(k, k + 2) for k in at)
        image[spot] = np.minimum(image[spot], 205) + 50
    return x


@pytest.mark.usefixtures('far_apart')
def test_a_net_adds_what_it_has_learnt(learnt):
    """The value of a place by hand, and what the net says of dots."""
    net, bad = learnt.net_, dots(12, 5)
    known = learnt._known()
    seen = known.eye.see(known.eye.params, np.repeat(bad[:4], 3, -1))
    near, x = np.asarray(seen.patches), (np.asarray(seen.fine) - net.mean) / net.deviation
    for i, (kernel, bias) in enumerate(net.layers):
        x = (np.maximum(x, 0) if i else x) @ kernel + bias
    said = np.maximum((x[..., 0] - net.usual) / net.spread + 4, 0)
    bank = np.concatenate([f.rows for f in learnt.normal_[''].folds])
    dist = far(near.reshape(4, 16, -1), bank).reshape(4, 4, 4) / net.far
    want = np.kron(dist, np.ones((2, 2))) + said
    assert want.shape == (4, 8, 8)
    np.testing.assert_allclose(map_of(learnt, bad[0]), want[0], rtol=1e-3)
    np.testing.assert_allclose(-learnt.score_samples(bad[:4]), want.max((1, 2)), rtol=1e-3)
    plain = tiny_maps.bright_squares(12, 5)[0][:4]
    spots = (bad[:4] != plain)[:, ::2, ::2, 0]  # of 8 x 8 cells
    near = ndimage.maximum_filter(spots, (1, 3, 3))  # patches are means of 3 x 3 cells
    assert spots.sum() == 4 and roc_auc_score(near.reshape(-1), said.reshape(-1)) > 0.75


@pytest.mark.usefixtures('far_apart')
def test_a_net_sees_the_object_alone(learnt, monkeypatch):
    """Of a cell of the patches that shows the object all four of the net's count."""
    own = np.arange(16, dtype=np.float32).reshape(4, 4) % 3
    monkeypatch.setattr(objects, 'in_patches', lambda patches: own)
    image = Image.new('RGB', (16, 16))
    parts = seeing.parts([(0, image)], learnt._looks().view, 8, 'pca')
    (((part,), _),) = seeing.encode(learnt._eye(), parts, 'pca')
    np.testing.assert_array_equal(part.weight, own.repeat(2, 0).repeat(2, 1))


@pytest.mark.usefixtures('far_apart')
def test_the_threshold_rests_on_images_that_the_net_has_not_seen(learnt, images):
    held = learnt.normal_[''].held_out
    assert len(learnt.normal_[''].names) == 60 and learnt.promise_.images == 60 - 18
    rows = defect_net.spared(range(60), [''] * 60, 0)
    assert not set(held.number) & set(np.concatenate(rows)) and list(map(len, rows)) == [12, 6]
    assert held.score.min() > 0 and (learnt.predict(images[1]) == 'normal').mean() > 0.8
    with pytest.raises(InputError, match='19 different ones are too few, give 20 or more'):
        detector(layers=('stride4',), learnt=True).fit(images[0][:19])


@pytest.mark.usefixtures('far_apart')
def test_what_was_learnt_is_kept_added_to_and_exported(learnt, images, tmp_path):
    from jax import export as jax_export

    from anyshot_jax import export

    bad = dots(3, 6)
    learnt.save(tmp_path / 'm.safetensors')
    again = AnomalyDetector.load(tmp_path / 'm.safetensors')
    assert again.judge(bad) == learnt.judge(bad) and again.threshold_ == learnt.threshold_
    export.write(again, tmp_path / 'm.stablehlo', ['cpu'])
    program = jax_export.deserialize(bytearray((tmp_path / 'm.stablehlo').read_bytes()))
    score, _, maps = program.call(np.repeat(bad, 3, -1))
    np.testing.assert_allclose(score, -learnt.score_samples(bad), rtol=1e-3)
    np.testing.assert_allclose(maps[1], map_of(learnt, bad[1]), rtol=1e-3)
    before = again.normal_[''].held_out
    again.add_normal(images[1])
    after = again.normal_[''].held_out
    assert again.promise_.images == 42 + 12
    # What the net says of a place stays, its distance may only shrink.
    assert (after.score[:42] <= before.score + 1e-3).all()
    assert (after.score[:42] < before.score - 1e-3).any()
    assert (after.score[:42] >= before.more.max(1)).all()
    name = again.normal_[''].names[int(after.number[0])]
    again.remove_normal(name)
    assert name not in again.normal_[''].names and again.promise_.images == 42 + 12 - 1


def test_copies_are_one_image(images):
    good = images[0]
    found = detector().fit([*good[:20], good[0], good[0]])
    assert found.promise_.groups == 20 and found.promise_.images == 22
    assert any('2 of 22 normal images are copies' in note for note in found.notes())
    known = found.normal_['']
    assert len(set(known.fold_of[[0, 20, 21]])) == 1


def test_tiles_see_what_the_whole_image_shows():
    """A patch of this net looks 6 pixels around itself: tiles that overlap by 32 change nothing."""
    rng = np.random.default_rng(0)
    x = [rng.integers(0, 256, (128, 128, 3), dtype=np.uint8) for _ in range(3)]
    whole = detector(size=0, tile=128, overlap=32, memory=300).fit(x[:2])
    tiled = copy.copy(whole).set_params(tile=96, overlap=32)
    maps = [map_of(d, x[2]) for d in (tiled, whole)]
    assert maps[0].shape == (64, 64)
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-4)
    assert tiled.heat_map(x[2]).shape == (128, 128)
    place = tiled.judge([x[2]])[0].place
    assert (place[0] // 2, place[1] // 2) == np.unravel_index(maps[0].argmax(), (64, 64))[::-1]


def test_turned_copies_are_remembered(images):
    good = images[0]
    found = detector(turns=3).fit(good[:5])
    assert sum(len(f.rows) for f in found.normal_[''].folds) == 4 * 5 * 64
    np.testing.assert_allclose(found.score_samples(np.rot90(good[:5], axes=(1, 2))), 0, atol=1e-3)
    x = Image.fromarray(good[0, ..., 0])
    for k, copy_ in enumerate(views.copies(x, 3)):
        np.testing.assert_array_equal(np.asarray(copy_), np.rot90(good[0, ..., 0], k))
    flat = Image.new('RGB', (40, 30), (9, 8, 7))
    tilted = views.copies(flat, 7)
    assert len(tilted) == 8 and tilted[1].size == (40, 30)
    assert np.ptp(np.asarray(tilted[1]), axis=(0, 1)).max() <= 1  # no empty corners


@pytest.mark.parametrize('foreground', ['pca', 'flood'])
def test_what_is_beside_the_object_does_not_count(foreground):
    """Bright squares on black: a stain beside them is no defect, one on them is."""
    if foreground == 'flood':
        pytest.importorskip('cv2', reason='the extra anomaly')
    rng = np.random.default_rng(0)
    good = np.full((6, 32, 32), 8, np.uint8)
    good[:, 16:26, 16:26] = rng.normal(128, 8, (6, 10, 10))
    found = detector(foreground=foreground, size=32).fit(good)
    # A cell more around the object, by its patches; what it covers, by its pixels.
    assert sum(len(f.rows) for f in found.normal_[''].folds) <= 6 * 9**2
    beside, on = good[:1].copy(), good[:1].copy()
    beside[:, :3, :3], on[:, 20:23, 20:23] = 60, 255
    usual = found.score_samples(good[:1])
    np.testing.assert_allclose(found.score_samples(beside), usual, atol=1e-4)
    assert detector(size=32).fit(good).score_samples(beside) < usual - 0.1
    assert found.score_samples(on) < usual - 0.1


def test_an_exported_program_says_the_same(fitted, images, tmp_path):
    from jax import export as jax_export

    from anyshot_jax import export

    export.write(fitted, tmp_path / 'm.stablehlo', ['cpu'])
    said = json.loads((tmp_path / 'm.stablehlo.json').read_text())
    assert said['input']['shape'] == ['n', 16, 16, 3] and said['threshold'] == fitted.threshold_
    program = jax_export.deserialize(bytearray((tmp_path / 'm.stablehlo').read_bytes()))
    x = np.repeat(np.concatenate([images[1][:2], images[2][:3]]), 3, -1)
    score, defect, maps = program.call(x)
    np.testing.assert_allclose(score, -fitted.score_samples(x), rtol=1e-5)
    assert defect.tolist() == [False] * 2 + [True] * 3
    np.testing.assert_allclose(maps[4], map_of(fitted, x[4]), rtol=1e-4, atol=1e-5)


def test_an_onnx_program_says_the_same(fitted, images, tmp_path):
    """Of any number of squares, by onnxruntime alone; one with other patches isn't written."""
    pytest.importorskip('jax2onnx', reason='the extra onnx')
    onnxruntime = pytest.importorskip('onnxruntime', reason='the extra onnx')
    from anyshot_jax import export

    assert 'scores and maps differ by' in export.write(fitted, tmp_path / 'm.onnx')
    session = onnxruntime.InferenceSession(tmp_path / 'm.onnx')
    x = np.repeat(np.concatenate([images[1][:2], images[2][:3]]), 3, -1)
    for n in (1, 5):
        score, defect, maps = session.run(['score', 'defect', 'map'], {'images': x[:n]})
    np.testing.assert_allclose(score, -fitted.score_samples(x), rtol=1e-4)
    assert defect.tolist() == [False] * 2 + [True] * 3 and maps.shape == (5, 8, 8)
    np.testing.assert_allclose(maps[4], map_of(fitted, x[4]), rtol=1e-4, atol=1e-5)
    other = detector().fit(images[0][:20])
    with pytest.raises(InputError, match='answers otherwise than the detector'):
        program.difference(other, (tmp_path / 'm.onnx').read_bytes(), 1e-4)


def test_the_centre_alone_is_looked_at(images, tmp_path):
    """As if the images had been cut by hand; places are those of the whole image."""
    good, _, bad, masks = images
    beside = lambda x: np.concatenate([x[:, :, :5] // 2, x, x[:, :, :5] // 3], 2)  # 16 x 26
    by_hand, found = detector().fit(good[:12]), detector(crop='centre').fit(beside(good[:12]))
    (want,), (said,) = by_hand.judge(bad[:1]), found.judge(beside(bad[:1]))
    assert said.score == want.score and found.threshold_ == by_hand.threshold_
    left, top, right, bottom = want.place
    assert said.place == (left + 5, top, right + 5, bottom)
    heat = found.heat_map(beside(bad[:1])[0])
    np.testing.assert_array_equal(heat[:, 5:21], by_hand.heat_map(bad[0]))
    assert heat.shape == (16, 26) and not heat[:, :5].any() and not heat[:, 21:].any()
    wide = np.pad(masks[0], ((0, 0), (5, 5)))
    z = described
    np.testing.assert_array_equal(z(found, beside(bad[:1])[0], wide), z(by_hand, bad[0], masks[0]))
    with pytest.raises(InputError, match='the mask of #0 is empty'):  # what is outside counts not
        z(found, beside(bad[:1])[0], np.pad(np.zeros((16, 16), bool), ((0, 0), (5, 5)),
                                            constant_values=True))  # fmt: skip
    found.save(tmp_path / 'm.safetensors')
    again = AnomalyDetector.load(tmp_path / 'm.safetensors')
    assert again.judge(beside(bad[:1]))[0].place == said.place
    with pytest.raises(InputError, match='such as tile=256'):
        detector(crop='tiles').fit(good[:2])


def test_images_are_read_as_the_classifier_reads_them(images, tmp_path):
    """A folder, floats, 16 bits by their range, a mask of ids: all are the same images."""
    good, _, bad, masks = images
    for i, x in enumerate(good[:6]):
        Image.fromarray(x[..., 0]).save(tmp_path / f'{i}.png')
    want = detector().fit(good[:6]).score_samples(bad[:1])
    found = detector(range=(1000, 1255)).fit(tmp_path)
    np.testing.assert_array_equal(found.score_samples(bad[:1]), want)
    sixteen = bad[0, ..., 0].astype(np.uint16) + 1000
    np.testing.assert_array_equal(found.score_samples([sixteen]), want)
    found = detector().fit(good[:6] / 255)
    np.testing.assert_array_equal(found.score_samples(bad[0] / 255), want)
    Image.fromarray(masks[0].astype(np.uint8) * 3).save(tmp_path / 'mask.png')
    by_id = described(found, bad[0], tmp_path / 'mask.png')
    np.testing.assert_array_equal(by_id, described(found, bad[0], masks[0]))


def test_images_of_one_colour_are_told(images, caplog):
    with caplog.at_level('WARNING'):
        detector().fit([*images[0][:3], np.full((16, 16), 9, np.uint8)])
    assert 'among the normal images: 1 images of one colour (#3)' in caplog.text
