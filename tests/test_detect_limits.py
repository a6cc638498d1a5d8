"""What a detector refuses or says of its images, names and settings, by small features."""

import json

import numpy as np
import pytest
import tiny_maps

from anyshot_jax import AnomalyDetector
from anyshot_jax.defects import memory_bank
from anyshot_jax.detect import defect_net, normal, synthetic, views
from anyshot_jax.types import InputError

GOOD = tiny_maps.bright_squares(8, 1)[0]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(memory_bank, 'load', tiny_maps.net)


def detector(**fields):
    return AnomalyDetector('tiny', **{'layers': ('stride4',), 'size': 16} | fields)


def test_images_without_names_are_numbered_on():
    found = detector().fit(GOOD[:3]).add_normal(GOOD[3:5])
    assert found.normal_[''].names == ('#0', '#1', '#2', '#3', '#4')
    found.remove_normal('#0').add_normal(GOOD[5:6])  # five are left, but #4 is taken
    assert found.normal_[''].names == ('#1', '#2', '#3', '#4', '#5')
    found.add_normal(GOOD[6:8], product=['other', ''])
    assert found.normal_['other'].names == ('#6',) and found.normal_[''].names[-1] == '#7'


def test_grey_images_are_counted_after_some_are_forgotten(tmp_path):
    from safetensors.numpy import load_file, save_file

    path = tmp_path / 'm.safetensors'
    said = lambda found: [note for note in found.notes() if 'grey' in note]
    coloured = np.repeat(GOOD[:2], 3, -1)
    found = detector().fit([GOOD[2], *coloured])
    assert said(found) == ['1 of 3 normal images are grey, the others in colour']
    found.save(path)
    again = AnomalyDetector.load(path)
    assert said(again) == said(found) and said(again.remove_normal('#0')) == []
    again.add_normal(GOOD[3:4])
    assert said(again) == ['1 of 3 normal images are grey, the others in colour']

    # Files that have the number alone say nothing where they don't know.
    arrays, raw = load_file(path), path.read_bytes()
    of_file = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], 'little')])['__metadata__']
    of_file = json.loads(of_file['anyshot_jax_detector']) | {'format': 2}

    def with_number(grey, more=()):
        of_file['products'][0]['grey'] = grey
        kept = {k: v for k, v in arrays.items() if k != 'product0.grey'} | dict(more)
        save_file(kept, path, {'anyshot_jax_detector': json.dumps(of_file)})
        return AnomalyDetector.load(path)

    assert said(with_number(1)) == [] and said(with_number(1).remove_normal('#0')) == []
    assert said(with_number(0).add_normal(GOOD[3:4]))[0].startswith('1 of 4')
    assert said(with_number(3).add_normal(coloured[:1] + 1))[0].startswith('3 of 4')
    with pytest.raises(InputError, match='a product does not fit'):
        with_number(0, {'product0.grey': np.full(3, 2, np.int32)})


@pytest.mark.parametrize(
    ('field', 'wrong'), [('tile', 4128), ('tile', 32 * 10**6), ('seed', -1), ('seed', 2**32)]
)
def test_settings_beyond_their_limits_are_refused_in_files_too(tmp_path, field, wrong):
    with pytest.raises(InputError, match=f'{field}={wrong}: need'):
        detector(**{field: wrong}).fit(GOOD[:2])
    path = tmp_path / 'm.safetensors'
    found = detector().fit(GOOD[:2])
    found.set_params(**{field: wrong})._eye = lambda: detector()._eye()  # of the size alone
    found.save(path)
    with pytest.raises(InputError, match=f'{field}={wrong}: need'):
        AnomalyDetector.load(path)


@pytest.mark.parametrize('size', [4, 8])
def test_an_object_is_not_looked_for_among_too_few_patches(monkeypatch, size):
    """Of maps of 1 x 1 and 2 x 2 places none lies inside."""
    monkeypatch.setattr(views, 'LEAST', 4)
    with pytest.raises(InputError, match=f'here are {size // 4} x {size // 4}: raise size'):
        detector(size=size, foreground='pca').fit(GOOD[:2])
    assert detector(size=12, foreground='pca').fit(GOOD[:2]).threshold_ is not None


def test_masks_of_another_size_are_told(caplog):
    found = detector().fit(GOOD[:4])
    part = lambda n: np.arange(n * n).reshape(n, n) > 0
    found.add_type('spot', GOOD[4:7], masks=[part(16), part(8), part(2)])
    assert (
        "among the images of type 'spot': 2 masks of another size, stretched to their images "
        '(#1: 8 x 8 for 16 x 16, #2: 2 x 2 for 16 x 16)'
    ) in caplog.text
    caplog.clear()
    found.add_type('spot', GOOD[4:6], masks=[part(16), None])
    assert 'another size' not in caplog.text


def test_images_that_were_not_judged_are_counted(caplog, monkeypatch):
    monkeypatch.setattr(normal, 'HELD_OUT', 5)
    assert detector().fit_predict(GOOD).tolist() == [1] * 8
    assert '3 of 8 images were not judged and are answered 1' in caplog.text
    caplog.clear()
    detector().fit_predict(GOOD[:5])
    assert 'not judged' not in caplog.text


def test_a_net_leaves_every_product_some_images():
    """3 in 10 groups of each; of one product they are the first of one draw."""
    groups, product = [*range(40), *range(40, 50), 50, 51, 52, 53, 54], ['a'] * 40 + ['b'] * 10
    product += ['c'] * 3 + ['d'] * 2
    for seed in range(5):
        learning, usual = defect_net.spared(groups, product, seed)
        gone = [product[i] for i in (*learning, *usual)]
        assert [gone.count(name) for name in 'abcd'] == [12, 3, 1, 0]
        assert (len(learning), len(usual)) == (10, 6) and not set(learning) & set(usual)
        draw = np.random.default_rng(seed).permutation(40)[:12]
        learning, usual = defect_net.spared(groups[:40], product[:40], seed)
        assert sorted(draw[:8]) == learning.tolist() and sorted(draw[8:]) == usual.tolist()


def test_near_copies_are_spared_together_in_all_products():
    """Each of 30 groups is in both products: 9 of them, none of which stays in either."""
    groups, product = [*range(30)] * 2, ['a'] * 30 + ['b'] * 30
    gone = np.concatenate(defect_net.spared(groups, product, 0))
    assert len(gone) == 18 and len(set(gone % 30)) == 9
    with pytest.raises(InputError, match='2 of a product stay: give more of each'):
        defect_net.spared(range(40), [i // 2 for i in range(40)], 0)
    with pytest.raises(InputError, match='20 images, but 3 products'):
        detector(learnt=True).fit(np.repeat(GOOD, 3, 0)[:20], groups=range(20), product=['a'] * 3)


def test_the_only_product_need_not_be_named():
    found = detector().fit(GOOD[:5], product='nut')
    found.add_normal(GOOD[5:6]).remove_normal('#0')
    assert found.normal_['nut'].names == ('#1', '#2', '#3', '#4', '#5') and found.strange() == []
    found.add_normal(GOOD[6:8], product='bolt').remove_normal('#6', 'bolt')
    assert found.normal_['bolt'].names == ('#7',)
    for ask in (found.strange, lambda: found.remove_normal('#1')):
        with pytest.raises(InputError, match='product is missing: of nut, bolt'):
            ask()
    with pytest.raises(InputError, match="no product 'nuts'; did you mean 'nut'"):
        found.remove_normal('#1', 'nuts')


@pytest.mark.parametrize('how', ['pca', 'flood', 'none'])
def test_synthetic_defects_beside_the_object_are_told(caplog, monkeypatch, how):
    monkeypatch.setattr(
        synthetic.classes, 'make', lambda x, fields, most: {'train': fields.foreground}
    )
    looks = detector(foreground=how)._looks()
    assert synthetic.defects(GOOD, looks, 2, 0) == ('none' if how == 'pca' else how)
    assert ("foreground='pca' is not found in pixels" in caplog.text) == (how == 'pca')


def test_near_copies_alone_are_not_called_one_image():
    found = detector().fit(GOOD[:2], groups=['a', 'a'])
    assert found.notes()[0].startswith('2 near copies of a normal image say nothing')


def test_a_line_of_pixels_is_enlarged_within_bounds():
    view = views.View(size=256, tile=256, overlap=32)
    assert views.seen_size((2048, 512), view) == (1024, 256)
    assert views.seen_size((300, 3), view) == (25600, 256)
    width, height = views.seen_size((100_000, 1), view)
    assert width * height <= 1.01 * views.MOST_SEEN and abs(width / height / 1e5 - 1) < 0.02
    assert views.seen_size((10**9, 1), view) == (10**9, 1)  # nor made smaller
