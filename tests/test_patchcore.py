"""The detector on flat images with a bright square, whose patches are known."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny_maps
from PIL import Image
from scipy.special import logsumexp
from sklearn.metrics import roc_auc_score
from tiny_maps import bright_squares

from anyshot_jax import config as configs
from anyshot_jax.defects import memory_bank
from anyshot_jax.defects.detector import false_alarms, score_patches
from anyshot_jax.methods import patchcore
from anyshot_jax.runtime.devices import on_all_devices
from anyshot_jax.training import loop
from anyshot_jax.types import Data, InputError, from_arrays

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(memory_bank, 'load', tiny_maps.net)


def make(bright=60, **fields):
    config = configs.defaults('patchcore', 'synthetic')
    config.num_steps = 0
    given = {'layers': ('stride2', 'stride4'), 'size': 16, 'smooth': 1.0, 'encoder': 'tiny'}
    config.method.update(given | fields)
    one = lambda n, seed: from_arrays(bright_squares(n, seed)[0], np.zeros(n, int), ('good',))
    x, mask = bright_squares(12, 3, bright)
    test = from_arrays(x, np.repeat([0, 1], 6), ('big', 'small'))
    test = dataclasses.replace(test, mask=mask)
    data = Data({'good': one(10, 1), 'good_test': one(9, 2), 'test': test})
    return config, data


def evaluated(config, data, role='test'):
    method = patchcore.build(config, data)
    data = on_all_devices(data)
    return method.evaluate(jax.jit(method.init)(KEY, data), data, KEY, role)


def test_bright_squares_are_found():
    values = evaluated(*make())
    assert list(values) == ['image AUROC', 'pixel AUROC', 'PRO']
    assert [len(v) for v in values.values()] == [12, 12, 12]
    assert values['image AUROC'].mean() == 1
    assert values['pixel AUROC'].mean() > 0.95 and 0.8 < values['PRO'].mean() <= 1


def test_good_images_are_told_from_good_ones_at_chance():
    """400 images that differ in nothing; no masks, so the only value is that of images."""
    config, data = make()
    for role, seed in (('good_test', 4), ('test', 5)):
        data.roles[role] = from_arrays(bright_squares(200, seed)[0], np.zeros(200, int), ('good',))
    values = evaluated(config, data)
    assert list(values) == ['image AUROC']
    assert abs(values['image AUROC'].mean() - 0.5) < 0.09  # 3 standard errors


def test_scores_are_distances_to_the_bank():
    config, data = make(neighbours=3)
    bank = np.asarray(patchcore.build(config, data).init(KEY, data).extra['bank'])
    assert bank.shape == (64, 9)  # a tenth of 10 images of 8x8 patches, 3 + 6 channels
    patcher = memory_bank.load_patcher('tiny', config.method.layers, size=16)
    got = score_patches(patcher, patcher.params, data.roles['test'].x, bank, k=3)
    patches = np.asarray(patcher.apply(patcher.params, data.roles['test'].x), float)
    dist = np.linalg.norm(patches[..., None, :] - bank, axis=-1)
    want = np.sort(dist, -1)[..., :3].mean(-1)
    np.testing.assert_allclose(got['map'], want, atol=1e-5)
    np.testing.assert_allclose(got['image'], want.max((1, 2)), atol=1e-5)
    # The whole: the measures of what these scores are.
    good = np.asarray(patcher.apply(patcher.params, data.roles['good_test'].x), float)
    good = np.sort(np.linalg.norm(good[..., None, :] - bank, axis=-1), -1)[..., :3].mean(-1)
    auroc = roc_auc_score([1] * 12 + [0] * 9, [*want.max((1, 2)), *good.max((1, 2))])
    assert evaluated(config, data)['image AUROC'].mean() == pytest.approx(auroc)


def test_reweighting():
    """Equation 7 in its own words, patch by patch."""
    config, data = make()
    bank = np.asarray(patchcore.build(config, data).init(KEY, data).extra['bank'])
    patcher = memory_bank.load_patcher('tiny', config.method.layers, size=16)
    got = score_patches(patcher, patcher.params, data.roles['test'].x, bank, reweight=4)
    for x, score in zip(data.roles['test'].x, got['image'], strict=True):
        patches = np.asarray(patcher.apply(patcher.params, x[None]), float).reshape(-1, 9)
        dist = np.linalg.norm(patches[:, None] - bank, axis=-1)
        q = patches[dist.min(1).argmax()]
        m = bank[np.linalg.norm(q - bank, axis=1).argmin()]
        around = bank[np.linalg.norm(m - bank, axis=1).argsort()[:4]]
        d = np.linalg.norm(q - m)
        weight = 1 - np.exp(d - logsumexp(np.linalg.norm(q - around, axis=1)))
        assert score == pytest.approx(weight * d, abs=1e-5)


def test_same_seed_same_values():
    first, again = (evaluated(*make(bright=12)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, again)


def test_a_run_leaves_a_result_and_a_report(tmp_path, monkeypatch):
    config, data = make()
    monkeypatch.setattr(configs.find('data', 'synthetic'), 'load', lambda fields: data)
    means = loop.run(config, tmp_path).means
    assert means['image AUROC'] == 1 and (tmp_path / 'report.html').exists()
    assert '"area under the curve"' in (tmp_path / 'result.json').read_text()


def folders(root, names, masks):
    """Normal images and one type of defect in folders of these names; masks as they are called."""
    good, types = (bright_squares(12, 1)[0], bright_squares(4, 3, 60))
    paths = {f'{names[0]}/{i}.png': x for i, x in enumerate(good[:8])}
    paths |= {f'{names[1]}/{i}.png': x for i, x in enumerate(good[8:])} if names[1] else {}
    paths |= {f'{names[2]}/{i}.png': x for i, x in enumerate(types[0])}
    if masks:
        paths |= {masks.format(i): 255 * m.astype(np.uint8) for i, m in enumerate(types[1])}
    for path, x in paths.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x.reshape(16, 16)).save(root / path)


@pytest.mark.parametrize(
    ('names', 'masks'),
    [
        (('train/good', 'test/good', 'test/spot'), 'ground_truth/spot/{}_mask.png'),
        (('train/good', '', 'test/spot'), ''),
        (('normal_dir', '', 'abnormal_dir'), ''),
        (('normal', '', 'spot'), 'masks/spot/{}.png'),
    ],
)
def test_folders_of_every_kind(tmp_path, names, masks):
    """What isn't there isn't reported, and what is is a number."""
    folders(tmp_path / 'part', names, masks)
    config = configs.defaults('patchcore', 'mvtec')
    config.num_steps = 0
    config.data.update({'dir': str(tmp_path / 'part'), 'size': 16, 'detect_only': True})
    config.method.update({'layers': ('stride2', 'stride4'), 'size': 16, 'encoder': 'tiny'})
    means = loop.run(config, tmp_path / 'run').means
    reported = {k.split(' +-')[0] for k in means}
    assert 'image AUROC' in reported and np.isfinite(list(means.values())).all()
    assert ('PRO' in reported) == ('pixel AUROC' in reported) == bool(masks)
    page = (tmp_path / 'run' / 'report.html').read_text('utf-8')
    assert ' nan' not in page.lower() and 'nan%' not in page.lower()
    assert ('PRO' in page) == bool(masks)


@pytest.mark.parametrize('normal', ['train/good', 'normal_dir'])
def test_without_any_defect_false_alarms_are_measured(tmp_path, caplog, normal):
    """An empty folder of defects is as good as none; of 20 images the last four are held out."""
    root = tmp_path / 'part'
    (root / normal).mkdir(parents=True)
    (root / 'abnormal_dir').mkdir()
    for i, x in enumerate(bright_squares(20, 1)[0]):
        Image.fromarray(x.reshape(16, 16)).save(root / normal / f'{i:02}.png')
    config = configs.defaults('patchcore', 'mvtec')
    config.num_steps = 0
    config.data.update({'dir': str(root), 'size': 16, 'detect_only': True})
    config.method.update({'layers': ('stride2', 'stride4'), 'size': 16, 'encoder': 'tiny'})
    means = loop.run(config, tmp_path / 'run').means
    assert list(means) == ['false alarms'] and 0 < means['false alarms'] < 1
    assert 'shows no defect' in caplog.text and f'--good={root / normal}' in caplog.text
    page = (tmp_path / 'run' / 'report.html').read_text('utf-8')
    assert 'There is no image with a defect' in page and 'ROC' not in page
    assert ' nan' not in page.lower() and 'nan%' not in page.lower()


def test_false_alarms_are_of_the_other_half():
    """By hand: groups 0, 2 (scores 1, 2, 9) and 1, 3 (3, 5) set each other's threshold."""
    score, group = np.array([1.0, 2, 9, 3, 5]), np.array([0, 0, 2, 1, 3])
    assert false_alarms(score, group) == {'false alarms': pytest.approx([0, 0, 1, 0, 0])}
    with pytest.raises(InputError, match='5 normal images of one group to judge'):
        false_alarms(score, np.zeros(5))
    # Of 1,000 alike 1 % exceed what 99 % of the other half stay below, up to two of each half.
    many = false_alarms(np.random.default_rng(0).permutation(1000).astype(float), None)
    assert 6 <= many['false alarms'].sum() <= 14


@pytest.mark.parametrize(
    ('changes', 'match'),
    [
        ({'num_steps': 10}, r'set config\.num_steps=0'),
        ({'encoder': 'resnet18'}, r'leave config\.encoder and'),
        ({'method.neighbours': 0}, r'config\.method\.neighbours must be >= 1'),
        ({'method.reweight': 1000}, r'reweight=1000 can be 64 at most'),
        ({'method.layers': ('stride3',)}, r"config\.method\.layers: .*no map 'stride3'"),
        ({'method.dim': 1000}, r'config\.method\.dim=1000 must be 0\.\.'),
        ({'method.projection': -1}, r'config\.method\.projection=-1 must be >= 0'),
        ({'eval.role': 'val'}, r"needs the role 'val'.*gives good, good_test, test"),
    ],
)
def test_what_can_not_be_is_refused(changes, match):
    config, data = make()
    config.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=match):
        patchcore.build(config, data)


def test_features_are_refused():
    config, data = make()
    data.roles['good'] = from_arrays(np.zeros((4, 7), np.float32), np.zeros(4, int))
    with pytest.raises(InputError, match='the good items are float32'):
        patchcore.build(config, data)
