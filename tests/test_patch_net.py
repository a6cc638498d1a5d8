"""The detector that learns synthetic defects: flat noise with squares, brighter or darker."""

import contextlib
import re

import jax
import numpy as np
import pytest
import tiny_maps
from PIL import Image
from scipy import ndimage
from tiny_maps import bright_squares

from anyshot_jax import config as configs
from anyshot_jax.defects import memory_bank
from anyshot_jax.methods import patch_net
from anyshot_jax.runtime.devices import on_all_devices
from anyshot_jax.training import checkpoint, loop
from anyshot_jax.training.step import make_step
from anyshot_jax.types import Data, InputError, from_arrays

pytestmark = [pytest.mark.usefixtures('swept'), pytest.mark.slow]
KEY = jax.random.key(0)
BRIGHT = 60


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(memory_bank, 'load', tiny_maps.net)


def make(**fields):
    """24 normal images, two near copies each, of which the last 8 are held out."""
    config = configs.defaults('patch_net', 'synthetic')
    given = {'layers': ('stride4',), 'net_layers': ('stride2', 'stride4'), 'size': 16}
    config.method.update(given | {'smooth': 1.0, 'encoder': 'tiny', 'ratio': 0.2, 'hidden': (8,)})
    config.update({'num_steps': 40, 'batch_size': 4, 'steps_per_call': 10})
    config.optim.learning_rate = 0.03
    config.update_from_flattened_dict(fields)
    group = np.arange(24) // 2
    good = bright_squares(24, 1)[0]
    roles = {
        'good': from_arrays(good, np.zeros(24, int), ('good',), group=group),
        'good_test': from_arrays(bright_squares(20, 2)[0], np.zeros(20, int), ('good',)),
        'train': made(good, np.arange(16), 3),
        'val': made(good, np.arange(16, 24, 2), 4),  # one of two near copies
    }
    x, mask = bright_squares(12, 5, BRIGHT)
    roles['test'] = from_arrays(x, np.repeat([0, 1], 6), ('a', 'b'), mask=mask)
    return config, Data(roles)


def made(good, rows, seed):
    x, mask = good[rows].astype(int), bright_squares(len(rows), seed, BRIGHT)[1]
    x = np.clip(x + BRIGHT * mask[..., None], 0, 255).astype(np.uint8)
    return from_arrays(x, np.zeros(len(rows), int), ('square',), group=rows, mask=mask)


def trained(config, data):
    method, data = patch_net.build(config, data), on_all_devices(data)
    state = on_all_devices(jax.jit(method.init)(KEY, data))
    if config.num_steps:
        step = make_step(method, batch_size=4, steps_per_call=config.num_steps)
        state, _ = step(state, data, KEY)
    return method, state, data


@pytest.mark.parametrize('score', ['net', 'both'])
def test_bright_squares_are_found(score):
    method, state, data = trained(*make(**{'method.score': score}))
    for role, count in (('test', 12), ('val', 4)):
        values = method.evaluate(state, data, KEY, role)
        assert list(values) == ['image AUROC', 'pixel AUROC', 'PRO']
        assert [len(v) for v in values.values()] == [count] * 3
        assert values['image AUROC'].mean() == 1
        assert values['pixel AUROC'].mean() > 0.95 and values['PRO'].mean() > 0.9


def test_net_alone_is_worse_before_it_has_learnt():
    """What the test above sees comes from the steps; the bank needs none."""
    found = {}
    for score in ('net', 'bank'):
        config, data = make(**{'method.score': score})
        config.num_steps = 0 if score == 'bank' else 40
        method, data = patch_net.build(config, data), on_all_devices(data)
        state = jax.jit(method.init)(KEY, data)
        values = method.evaluate(state, data, KEY, 'test')
        found[score] = values['image AUROC'].mean()
    assert found['bank'] == 1 and found['net'] < 0.9


def test_without_any_defect_false_alarms_are_measured():
    """Validation has its synthetic defects all the same."""
    config, data = make(num_steps=0, **{'method.score': 'bank'})
    del data.roles['test']
    method, state, data = trained(config, data)
    called = method.evaluate(state, data, KEY, 'test')
    assert list(called) == ['false alarms'] and called['false alarms'].shape == (20,)
    assert list(method.evaluate(state, data, KEY, 'val')) == ['image AUROC', 'pixel AUROC', 'PRO']
    assert method.measure.name == 'share'


def test_held_out_images_are_not_seen():
    config, data = make()
    kept, held = patch_net.kept_and_held(data)
    assert kept.tolist() == list(range(16)) and held.tolist() == list(range(16, 24))
    # What the held-out images show changes nothing that is remembered, measured or sampled.
    x = data.roles['good'].x.copy()
    x[held] = 255
    other = data.replace(roles={**data.roles, 'good': data.roles['good'].replace(x=x)})
    for given in (data, other):
        method = patch_net.build(config, given)
        state = jax.device_get(jax.jit(method.init)(KEY, given))
        units = jax.vmap(method.sample, (0, None))(
            jax.random.split(KEY, 200), on_all_devices(given)
        )
        units = jax.device_get(units)
        if given is data:
            first = state, units
    jax.tree.map(np.testing.assert_array_equal, first, (state, units))
    shown = {x.tobytes() for x in units[0][:, 1]}
    assert shown == {x.tobytes() for x in data.roles['good'].x[kept]}
    assert units[1][:, 0].any((1, 2)).all() and not units[1][:, 1].any()


def test_maps_are_standardised_on_held_out_good_images():
    """By hand: bank and net of a trained state, in float64."""
    config, data = make()
    _, state, _ = trained(config, data)
    state = jax.device_get(state)
    net_map, bank_map = {}, {}
    for role, x in (('held', data.roles['good'].x[16:]), ('test', data.roles['test'].x)):
        grey = x.reshape(len(x), 8, 2, 8, 2).mean((2, 4)) / 255
        coarse = x.reshape(len(x), 4, 4, 4, 4).mean((2, 4)) / 255
        smooth = lambda a: ndimage.uniform_filter(a, (0, 3, 3), mode='constant')
        fine = np.repeat(2 * smooth(grey)[..., None], 3, -1)
        near = np.repeat(np.stack([smooth(coarse), smooth(coarse**2)], -1), 3, -1)
        wide = larger(near)
        z = np.concatenate([fine, wide], -1)
        z = (z - state.extra['mean']) / state.extra['deviation']
        for i in range(2):
            layer = state.params[f'Dense_{i}']
            z = (np.maximum(z, 0) if i else z) @ layer['kernel'].astype(float) + layer['bias']
        net_map[role] = z[..., 0]
        dist = np.linalg.norm(near[..., None, :] - state.extra['bank'], axis=-1).min(-1)
        bank_map[role] = larger(dist[..., None])[..., 0]
    want = sum((m['test'] - m['held'].mean()) / m['held'].std() for m in (net_map, bank_map))
    _, score = patch_net.scorer(state, data, config)
    got = score(data.roles['test'].x)
    np.testing.assert_allclose(got['map'], want, rtol=1e-3, atol=5e-3)
    np.testing.assert_allclose(got['image'], want.max((1, 2)), rtol=1e-3, atol=5e-3)


def larger(x):
    """[N, 4, 4, C] -> [N, 8, 8, C], bilinear, half-pixel centres, the edge going on."""
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), 'edge')
    for axis in (1, 2):
        low, high = (np.take(x, range(i, x.shape[axis] - 1 + i), axis) for i in (0, 1))
        both = np.stack([0.75 * low + 0.25 * high, 0.25 * low + 0.75 * high], axis + 1)
        shape = list(x.shape)
        shape[axis] = 2 * (shape[axis] - 1)
        x = np.take(both.reshape(shape), range(1, shape[axis] - 1), axis)
    return x


def test_usual_patches_are_those_of_the_images():
    config, data = make()
    patcher = patch_net.patchers(config.method)[1]
    good = data.roles['good'].x
    patches = np.asarray(patcher.apply(patcher.params, good), float).reshape(-1, 9)
    mean, deviation = patch_net.usual_patches(patcher, good)
    np.testing.assert_allclose(mean, patches.mean(0), rtol=1e-5)
    np.testing.assert_allclose(deviation, patches.std(0), rtol=1e-3)
    # A map that never changes is not divided by 0.
    same = patch_net.usual_patches(patcher, np.full((3, 16, 16, 1), 0, np.uint8))
    assert (same[1] == 1).all()


def test_cells_that_share_area_with_a_defect():
    mask = np.zeros((1, 6, 6), bool)
    mask[0, 1, 2] = True
    assert np.argwhere(patch_net.covered(mask, (6, 6))[0]).tolist() == [[1, 2]]
    assert np.argwhere(patch_net.covered(mask, (3, 2))[0]).tolist() == [[0, 0]]
    # Cells of 1.5 pixels: row 1 is in cells 0 and 1, column 2 in cell 1 alone.
    assert np.argwhere(patch_net.covered(mask, (4, 4))[0]).tolist() == [[0, 1], [1, 1]]
    # More cells than pixels: a pixel is 2 x 2 of them.
    assert patch_net.covered(mask, (12, 12))[0].sum() == 4


def test_defect_and_surroundings_weigh_the_same():
    values = np.array([[1.0, 3, 5, 7], [1, 2, 3, 6]])
    label = np.array([[True, True, False, True], [False] * 4])
    # (mean of 1, 3, 7 + 5) / 2; without a defect half of the mean of all.
    np.testing.assert_allclose(patch_net.balanced(values, label), [(11 / 3 + 5) / 2, 1.5])


def test_a_resumed_run_ends_with_the_same_bits(tmp_path, monkeypatch):
    config, data = make()
    config.update({'num_steps': 8, 'steps_per_call': 2, 'eval_every': 4, 'save_every': 2})
    config.log_every = 2
    monkeypatch.setattr(configs.find('data', 'synthetic'), 'load', lambda fields: data)
    means = loop.run(config, tmp_path / 'whole').means
    assert means['image AUROC'] > 0.5 and (tmp_path / 'whole' / 'report.html').exists()

    class Stop(Exception):
        pass

    def stop(step, values):
        raise Stop

    with pytest.raises(Stop):  # after the validation of step 4; step 2 is what is saved
        loop.run(config, tmp_path / 'cut', on_validation=stop)
    assert loop.run(config, tmp_path / 'cut').means == means
    empty = jax.tree.map(lambda a: a[None], trained(config, data)[1])
    states = []
    for name in ('whole', 'cut'):
        folder = tmp_path / name / 'checkpoints'
        with contextlib.closing(checkpoint.open_manager(folder, keep=9)) as manager:
            states.append(checkpoint.restore_or_init(manager, empty)[0])
    assert states[0].step == 8 and checkpoint.digest(states[0]) == checkpoint.digest(states[1])


def test_page_has_the_heat_of_both(tmp_path, monkeypatch):
    config, data = make()
    config.update({'num_steps': 40, 'eval_every': 0, 'save_every': 0, 'log_every': 10})
    monkeypatch.setattr(configs.find('data', 'synthetic'), 'load', lambda fields: data)
    means = loop.run(config, tmp_path).means
    html = (tmp_path / 'report.html').read_text('utf-8')
    anchors = re.findall(r'<section id="([\w-]+)">', html)
    assert anchors == ['curves', 'detection', 'places', 'settings']
    assert f'ROC, area {means["image AUROC"]:.4f}' in html
    assert 'looks like a synthetic defect' in html and html.count('class="find"') == 12


def test_a_category_on_disk(tmp_path):
    """MVTec AD's layout with two images of each part; synthetic defects keep the parts apart."""

    def write(place, x):
        path = tmp_path / 'cap' / place
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x).save(path)
        return place

    lines = ['path,split,class,mask,part']
    x, mask = bright_squares(16, 7, BRIGHT)
    for i, good in enumerate(bright_squares(12, 6)[0][..., 0]):
        lines.append(f'{write(f"train/good/{i:02}.png", good)},train,good,,{i // 2}')
    for i in range(3):
        lines.append(f'{write(f"test/good/{i}.png", x[-1 - i, ..., 0] // 2)},test,good,,g{i}')
        where = write(f'ground_truth/dent/{i}_mask.png', np.uint8(255) * mask[i])
        lines.append(f'{write(f"test/dent/{i}.png", x[i, ..., 0])},test,dent,{where},d{i}')
    (tmp_path / 'cap' / 'manifest.csv').write_text('\n'.join(lines) + '\n')
    fields = configs.defaults('patch_net', 'mvtec').data
    fields.update({'dir': str(tmp_path / 'cap'), 'size': 16, 'group': 'part', 'channels': 1})
    fields.detect_only = True
    fields.pseudo.update({'classes': 2, 'val_classes': 1, 'per_class': 6, 'held_out': 0.3})
    data = configs.find('data', 'mvtec').load(fields)
    kept, held = patch_net.kept_and_held(data)
    part = data.roles['good'].group
    assert len(held) == 4 and len(kept) == 8 and not set(part[held]) & set(part[kept])
    assert set(data.roles['train'].group) <= set(kept) and set(data.roles['val'].group) == set(held)
    method, state, data = trained(make()[0], data)
    values = method.evaluate(state, data, KEY, 'test')
    assert [len(v) for v in values.values()] == [3, 3, 3]


@pytest.mark.parametrize(
    ('changes', 'match'),
    [
        ({'num_steps': 0}, r"score='both' learns by steps: set config\.num_steps above 0"),
        ({'method.score': 'bank'}, r"score='bank' has nothing to train: set config\.num_steps=0"),
        ({'method.score': 'nett'}, r"score='nett' is unknown; did you mean 'net'"),
        ({'encoder': 'resnet18'}, r'patch_net has an encoder of its own'),
        ({'method.neighbours': 0}, r'config\.method\.neighbours must be >= 1'),
        ({'method.neighbours': 99}, r'neighbours=99 can be 51 at most'),
        (
            {'method.layers': ('stride2',), 'method.net_layers': ('stride4',)},
            r"net_layers=\('stride4',\) are coarser",
        ),
        ({'method.net_layers': ('x',)}, r"config\.method\.net_layers: tiny has no map 'x'"),
        ({'method.hidden': ()}, r'hidden=\(\): need one width'),
    ],
)
def test_what_can_not_be_is_refused(changes, match):
    config, data = make()
    config.update_from_flattened_dict(changes)
    with pytest.raises(InputError, match=match):
        patch_net.build(config, data)


def test_data_without_held_out_images_are_refused():
    config, data = make()
    good = data.roles['good'].x
    few = {'train': made(good, np.arange(1), 3), 'val': made(good, np.arange(1, 4), 3)}
    one = data.roles['good'].replace(
        x=good[:4], label=data.roles['good'].label[:4], group=np.arange(4)
    )
    for changes, match in (
        ({'val': None}, "needs the role 'val'"),
        ({'val': made(good, np.arange(15, 20), 3)}, r'set config\.data\.pseudo\.held_out=0\.1'),
        ({'val': data.roles['val'].replace(mask=None)}, 'where the defects of val are'),
        ({**few, 'good': one}, 'of 4 normal images 3 are held out and 1 are not'),
    ):
        roles = {k: v for k, v in {**data.roles, **changes}.items() if v is not None}
        with pytest.raises(InputError, match=match):
            patch_net.build(config, Data(roles))
