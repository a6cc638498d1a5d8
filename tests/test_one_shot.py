"""Koch's task: Lake's runs in a zip or a folder, tasks within an alphabet, and the baselines."""

import io
import zipfile
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import cdist

from anyshot_jax import config as configs
from anyshot_jax.data.readers.one_shot_runs import load_runs
from anyshot_jax.episodes import drawable, sampling
from anyshot_jax.episodes.episodic import episodic
from anyshot_jax.methods.hausdorff import modified_hausdorff
from anyshot_jax.nets.koch import Koch
from anyshot_jax.runtime.devices import on_all_devices
from anyshot_jax.types import Data, InputError, from_arrays

KEY = jax.random.key(2)


def png(ink):
    buffer = io.BytesIO()
    Image.fromarray(~ink).convert('1').save(buffer, 'PNG')
    return buffer.getvalue()


@pytest.fixture
def runs():
    """Files of two runs of four characters by name; training and test drawings and the answers."""
    rng = np.random.default_rng(0)
    files, drawings = {}, []
    for run in (1, 2):
        training = rng.random((4, 105, 105)) < 0.1
        test = rng.random((4, 105, 105)) < 0.1
        answer = rng.permutation(4)
        folder, lines = f'all_runs/run{run:02d}', []
        for i in range(4):
            files[f'{folder}/training/class{i + 1:02d}.png'] = png(training[i])
            files[f'{folder}/test/item{i + 1:02d}.png'] = png(test[i])
            lines.append(
                f'run{run:02d}/test/item{i + 1:02d}.png '
                f'run{run:02d}/training/class{answer[i] + 1:02d}.png'
            )
        files[f'{folder}/class_labels.txt'] = '\n'.join(lines).encode()
        drawings.append((training, test, answer))
    return files, drawings


def save(path, files, form):
    if form == 'zip':
        with zipfile.ZipFile(path / 'all_runs.zip', 'w') as z:
            z.writestr('__MACOSX/all_runs/run01/class_labels.txt', b'\xff\xfe junk')
            for name, content in files.items():
                z.writestr(name, content)
        return path / 'all_runs.zip'
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path / 'all_runs'


@pytest.mark.parametrize('form', ['zip', 'folder'])
def test_runs_are_their_drawings_and_labels(tmp_path, runs, form):
    files, drawings = runs
    got = load_runs(save(tmp_path, files, form), 105, 'lanczos')
    assert got.x_s.shape == got.x_q.shape == (2, 4, 105, 105, 1) and got.x_s.dtype == np.uint8
    for r, (training, test, answer) in enumerate(drawings):
        np.testing.assert_array_equal(got.x_s[r, ..., 0], 255 * training)
        assert got.y_s[r].tolist() == got.class_id[r].tolist() == [0, 1, 2, 3]
        # Queries stand class by class, whatever their order in the file.
        assert got.y_q[r].tolist() == [0, 1, 2, 3]
        np.testing.assert_array_equal(got.x_q[r, ..., 0], 255 * test[np.argsort(answer)])
    small = load_runs(tmp_path / ('all_runs' + '.zip' * (form == 'zip')), 28, 'lanczos')
    assert small.x_q.shape == (2, 4, 28, 28, 1)


LABELS = 'all_runs/run01/class_labels.txt'
BAD = {
    'no run': (lambda f: f.clear() or f.update(readme=b'x'), 'holds no runNN/class_labels.txt'),
    'binary labels': (lambda f: f.update({LABELS: b'\xff\xfe\x00'}), 'class_labels.txt is no text'),
    'empty labels': (lambda f: f.update({LABELS: b'\n'}), 'must name two drawings'),
    'one name a line': (lambda f: f.update({LABELS: b'run01/test/item01.png'}), 'two drawings'),
    'a path outside': (
        lambda f: f.update({LABELS: b'../../etc/passwd run01/training/class01.png'}),
        'names .*../../etc/passwd, which is not there',
    ),
    'no such drawing': (
        lambda f: f.pop('all_runs/run02/test/item03.png'), 'run02/test/item03.png, which is not',
    ),
    'a damaged drawing': (
        lambda f: f.update({'all_runs/run02/test/item03.png': b'no image'}), 'item03.png',
    ),
    'another size': (
        lambda f: f.update({'all_runs/run02/test/item03.png': png(np.ones((20, 20), bool))}),
        r'item03.png has \(20, 20\) pixels',
    ),
    'unequal': (
        lambda f: f.update({LABELS: b'\n'.join(
            b'run01/test/item0%d.png run01/training/class01.png' % (1 + i // 2) if i < 2
            else b'run01/test/item04.png run01/training/class02.png' for i in range(3)
        )}),
        'more test drawings than others',
    ),
}  # fmt: skip


@pytest.mark.parametrize('form', ['zip', 'folder'])
@pytest.mark.parametrize('change, message', BAD.values(), ids=BAD)
def test_bad_runs_are_named(tmp_path, runs, form, change, message):
    files = dict(runs[0])
    change(files)
    (tmp_path / 'all_runs').mkdir(exist_ok=True)
    with pytest.raises(InputError, match=message):
        load_runs(save(tmp_path, files, form), 105, 'lanczos')


@pytest.mark.parametrize('form', ['zip', 'folder'])
def test_a_zip_that_is_none_and_a_bomb(tmp_path, runs, form):
    (tmp_path / 'all_runs.zip').write_bytes(b'PK\x03\x04 broken')
    with pytest.raises(InputError, match='not a whole zip'):
        load_runs(tmp_path / 'all_runs.zip', 105, 'lanczos')
    files = {**runs[0], 'all_runs/run01/test/item01.png': bytes(200_000)}
    with pytest.raises(InputError, match='unpacks to 200,000 bytes'):
        load_runs(save(tmp_path, files, form), 105, 'lanczos')


def test_runs_are_evaluated_beside_random_trials(tmp_path, runs):
    """1-nearest-neighbour on pixels, by a loop over the drawings."""
    files, drawings = runs
    test = from_arrays(np.zeros((40, 105, 105, 1), np.uint8), np.repeat(np.arange(4), 10))
    tasks = load_runs(save(tmp_path, files, 'zip'), 105, 'lanczos')
    data = Data({'test': test}, tasks={"Lake's runs": tasks})
    config = configs.defaults('knn', 'omniglot')
    config.num_steps = 0
    config.eval.update({'tasks': ((4, 1),), 'queries': 1, 'episodes': 10})
    method = configs.find('methods', 'knn').build(config, data)
    data = jax.device_put(data)
    values = method.evaluate(method.init(KEY, data), data, KEY, 'test')
    right = []
    for training, test, answer in drawings:
        near = cdist(test.reshape(4, -1), training.reshape(4, -1)).argmin(1)
        right += (near == answer)[np.argsort(answer)].tolist()
    assert list(values) == ['4-way 1-shot', "Lake's runs"]
    assert values["Lake's runs"].tolist() == np.float32(right).tolist()
    # Blank drawings, all alike: the first class is named, right in one of four.
    assert values['4-way 1-shot'].mean() == 0.25


def alphabets(sizes=(3, 5, 4, 2), turns=1):
    kind = np.repeat(np.arange(len(sizes)) + 7, sizes)
    x = np.arange(2 * len(kind), dtype=np.float32)[:, None]
    if turns > 1:
        x = np.zeros((2 * len(kind), 4, 4, 1), np.uint8)
    label = np.repeat(np.arange(len(kind)), 2)
    return from_arrays(x, label, extras={'alphabet': kind.astype(np.int32)}, turns=turns)


@pytest.mark.parametrize('turns', [1, 4])
def test_tasks_stay_within_an_alphabet_and_turn_as_a_whole(turns):
    dataset = jax.device_put(alphabets(turns=turns))
    draw = partial(
        sampling.sample_episode, dataset=dataset, ways=3, shots=1, queries=1, within='alphabet'
    )
    class_id = np.asarray(
        jax.jit(jax.vmap(lambda k: draw(k).class_id))(jax.random.split(KEY, 4000))
    )
    turned, base = class_id // 14, class_id % 14
    kind = np.asarray(dataset.extras['alphabet'])[base]
    assert (kind == kind[:, :1]).all() and (turned == turned[:, :1]).all()
    assert set(turned.ravel().tolist()) == set(range(turns))
    assert all(len(set(row)) == 3 for row in base.tolist())
    # An alphabet is drawn as often as it has characters; the one of two characters never.
    share = np.array([(kind[:, 0] == k).mean() for k in (7, 8, 9, 10)])
    np.testing.assert_allclose(share, np.array([3, 5, 4, 0]) / 12, atol=0.03)
    # Every ordered triple of the alphabet of three: 1 in 6.
    rows = base[kind[:, 0] == 7]
    _, counts = np.unique(rows, axis=0, return_counts=True)
    assert len(counts) == 6 and abs(counts / len(rows) - 1 / 6).max() < 0.05


@pytest.mark.parametrize('fields, message', [
    ({'within': 'script'}, "no attribute 'script' to draw episodes within; available: alphabet"),
    ({'ways': 6}, r'the largest of train has 5; lower the ways \(--config.train.ways=5\) or draw '
                   r'from all kinds \(--config.train.within=\)'),
])  # fmt: skip
def test_what_can_not_be_drawn_within_is_said(fields, message):
    size = {'ways': 3, 'shots': 1, 'queries': 1, 'within': 'alphabet', **fields}
    with pytest.raises(InputError, match=message):
        drawable.check(Data({'train': alphabets()}), 'train', **size)


@pytest.mark.parametrize('shape', [(9, 7), (20, 20), (6, 31)])
def test_modified_hausdorff_is_that_of_all_pairs_of_points(shape):
    rng = np.random.default_rng(0)
    a, b = rng.random(shape) < 0.2, rng.random(shape) < 0.4
    points = [np.argwhere(ink) - np.argwhere(ink).mean(0) for ink in (a, b)]
    dist = cdist(*points)
    want = max(dist.min(0).mean(), dist.min(1).mean())
    np.testing.assert_allclose(modified_hausdorff(a, b), want, rtol=1e-5)
    assert modified_hausdorff(a, a) < 1e-3
    assert np.isinf(modified_hausdorff(a, np.zeros(shape, bool)))


def test_koch_has_the_papers_parameters():
    x = jnp.zeros((2, 105, 105, 1), jnp.uint8)
    shapes = jax.eval_shape(lambda x: Koch().init(KEY, x, train=False)['params'], x)
    # Two networks that share 38,947,648 parameters, and 4,096 + 1 of the verifier's unit.
    by_hand = (100 * 64 + 64) + (49 * 64 * 128 + 128) + (16 * 128 * 128 + 128)
    by_hand += (16 * 128 * 256 + 256) + (6 * 6 * 256 * 4096 + 4096)
    assert sum(s.size for s in jax.tree.leaves(shapes)) == by_hand == 38_947_648


def test_koch_is_its_plain_layers():
    """lax.conv, reduce_window and a product, on narrow layers."""
    net = Koch(features=(3, 4, 5, 6), dense=7)
    x = np.random.default_rng(0).integers(0, 256, (2, 90, 89, 1), np.uint8)
    params = jax.jit(lambda x: net.init(KEY, x, train=False))(x)['params']
    assert abs(np.asarray(params['bias1']).mean() - 0.5) < 0.05
    params = jax.tree.map(lambda p: 0.3 * jax.random.normal(KEY, p.shape), params)
    y = jnp.float32(x) / 255
    for i in range(1, 5):
        kernel = params[f'conv{i}']['kernel']
        y = jax.lax.conv_general_dilated(
            y, kernel, (1, 1), 'VALID', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        )
        y = jnp.maximum(y + params[f'bias{i}'].reshape(1, 1, 1, -1), 0)
        if i < 4:
            y = jax.lax.reduce_window(y, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), 'VALID')
    dense = params['dense']
    want = y.reshape(2, -1) @ dense['kernel'] + dense['bias'].reshape(1, -1)
    got = jax.jit(lambda p, x: net.apply({'params': p}, x, train=False))(params, x)
    np.testing.assert_allclose(got, want, rtol=2e-3, atol=1e-3)
    with pytest.raises(InputError, match='85x85 or more'):
        net.init(KEY, jnp.zeros((1, 84, 105, 1)), train=False)


@pytest.fixture
def real(data_dir):
    path = data_dir / 'omniglot' / 'all_runs_01_10.zip'
    if not path.exists():
        pytest.skip('no all_runs_01_10.zip')
    return path


def test_lakes_runs(real):
    """What the data's own README says: pixels name 19.5 % right."""
    runs = load_runs(real, 105, 'lanczos')
    assert runs.x_s.shape == runs.x_q.shape == (10, 20, 105, 105, 1)
    right = []
    for x_s, x_q, y in zip(runs.x_s, runs.x_q, runs.y_q, strict=True):
        near = cdist(x_q.reshape(20, -1) / 255, x_s.reshape(20, -1) / 255).argmin(1)
        right.append((near == y).mean())
    assert np.mean(right) == pytest.approx(0.195)


def test_runs_need_a_split_that_keeps_them_for_the_test(tmp_path):
    config = configs.defaults('knn', 'omniglot').data
    config.update({'runs': 'all_runs', 'dir': str(tmp_path)})
    with pytest.raises(InputError, match=r"set config.data.split='lake'"):
        configs.find('data', 'omniglot').load(config)
    config.split = 'lake'
    with pytest.raises(InputError, match=r"data.runs='all_runs': 0 such files in"):
        configs.find('data', 'omniglot').load(config)


def test_tasks_within_a_kind_are_evaluated_too():
    """Answered rightly only where all classes are of one kind, which the items say."""
    kind = np.array([0, 0, 0, 1, 1, 1])
    items = np.repeat(kind[:, None], 4, 0).astype(np.float32)
    test = from_arrays(items, np.repeat(np.arange(6), 4), extras={'kind': kind})

    def predict(params, extra, episode):
        right = jax.nn.one_hot(episode.y_q, 3)
        return jnp.where(jnp.ptp(episode.x_s) == 0, right, -right)

    config = configs.defaults('knn', 'synthetic')
    config.num_steps = 0
    config.eval.update({'tasks': ((3, 1),), 'queries': 2, 'episodes': 40, 'within': 'kind'})
    parts = {'init': lambda key, x: ({}, {}), 'embed': lambda params, extra, x: x}
    method = episodic(config, Data({'test': test}), **parts, predict=predict)
    data = on_all_devices(Data({'test': test}))
    values = method.evaluate(method.init(KEY, data), data, KEY, 'test')
    assert list(values) == ['3-way 1-shot', '3-way 1-shot within kind']
    np.testing.assert_array_equal(values['3-way 1-shot within kind'], 1)
    assert values['3-way 1-shot'].mean() < 0.5  # 0.1 of the draws are of one kind
    with pytest.raises(InputError, match="no attribute 'alphabet'"):
        config.eval.within = 'alphabet'
        episodic(config, Data({'test': test}), **parts, predict=predict)
