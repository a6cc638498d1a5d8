"""A trained run as a classifier's method: it answers as the run's own `predict` does."""

import contextlib
import json
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

pytest.importorskip('sklearn')
from sklearn.base import clone

from anyshot_jax import config as configs
from anyshot_jax.classify import trained
from anyshot_jax.classify.classifier import AnyShotClassifier
from anyshot_jax.classify.trained_classifier import TrainedClassifier
from anyshot_jax.stages.handover import NET
from anyshot_jax.stages.similarity import Similarity
from anyshot_jax.training import checkpoint, loop
from anyshot_jax.types import Data, InputError

pytestmark = pytest.mark.slow

SIZE = 6


def images(kinds, each, seed=0):
    """[N, SIZE, SIZE] uint8: each kind a random pattern, with noise; and the kinds."""
    rng = np.random.default_rng(seed)
    pattern = np.random.default_rng(7).integers(40, 215, (20, SIZE, SIZE))
    label = np.repeat(np.array(kinds), each)
    return (pattern[label] + rng.integers(-40, 41, (len(label), SIZE, SIZE))).astype(
        np.uint8
    ), label


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('folder')
    for role, kinds in (('train', range(8)), ('val', range(8, 12)), ('test', range(12, 16))):
        for x, kind in zip(*images(kinds, 6), strict=True):
            path = root / role / f'kind{kind}'
            path.mkdir(parents=True, exist_ok=True)
            Image.fromarray(x).save(path / f'{len(list(path.iterdir()))}.png')
    return root


def run(folder, workdir, method, *, spine=(), **fields):
    config = configs.defaults(method=method, data='folder', net='mlp')
    config.data.update({'dir': str(folder), 'size': SIZE, 'channels': 1})
    config.net.update({'hidden': (16,), 'features': 8})
    config.train.update({'ways': 3, 'shots': 2, 'queries': 2})
    config.eval.update({'tasks': ((3, 1),), 'queries': 2, 'episodes': 4, 'val_episodes': 4})
    config.update({'batch_size': 2, 'num_steps': 20, 'steps_per_call': 10, 'log_every': 10})
    config.update({'eval_every': 10, 'save_every': 10})
    config.update(dict(spine))
    config.method.update(fields)
    loop.run(config, workdir)
    return str(workdir)


@pytest.fixture(scope='module')
def protonet(folder, tmp_path_factory):
    return run(folder, tmp_path_factory.mktemp('runs') / 'protonet', 'protonet')


def test_a_protonet_takes_the_means_of_its_net(protonet):
    x, label = images((15, 13, 14), 4)
    asked, truth = images((13, 14, 15), 5, seed=1)
    model = AnyShotClassifier(method=protonet).fit(x, label)
    found = trained.trained(protonet)
    net = configs.build_net(configs.from_json((Path(protonet) / 'config.json').read_text()).net)
    variables = {'params': found.state.params, **found.state.extra}
    z_s, z_q = (np.asarray(net.apply(variables, a[..., None], train=False)) for a in (x, asked))
    means = np.stack([z_s[label == c].mean(0) for c in (13, 14, 15)])
    dist = ((z_q[:, None] - means) ** 2).sum(-1)
    np.testing.assert_array_equal(model.predict(asked), np.array([13, 14, 15])[dist.argmin(1)])
    assert model.score(asked, truth) > 0.8
    p = model.predict_proba(asked)
    want = -(dist - dist[:, :1]) / model.temperature_
    np.testing.assert_allclose(np.log(p / p[:, :1]), want, rtol=1e-3, atol=1e-3)
    # Any number of classes, and of queries.
    model.add_class(16, images((16,), 3)[0])
    assert model.predict(np.concatenate([asked] * 4)).shape == (60,)


def test_a_folder_as_method_is_its_estimator(protonet):
    x, label = images((15, 13, 14), 4)
    asked, _ = images((13, 14, 15), 5, seed=1)
    model = AnyShotClassifier('unused', protonet, unknown=-1, shrink=0.5)
    assert type(model) is TrainedClassifier
    params = {'workdir': protonet, 'unknown': -1, 'false_alarm': 0.05}
    assert model.get_params() == {**params, 'range': None, 'max_pixels': 50_000_000}
    assert model.encoder_.dim == SIZE * SIZE and model.feature_store().dim == SIZE * SIZE
    want = TrainedClassifier(protonet).fit(x, label).predict_proba(asked)
    np.testing.assert_array_equal(clone(model).fit(x, label).predict_proba(asked), want)
    late = AnyShotClassifier().set_params(method=protonet)  # after it was made: too late
    with pytest.raises(InputError, match=r'TrainedClassifier\('):
        late.fit(x, label)


def test_of_a_population_the_best_member_answers(folder, tmp_path):
    """One member hardly learns: the other is the better one on validation, and comes second."""
    vary = (('optim.learning_rate', (1e-9, 3e-3)),)
    workdir = run(folder, tmp_path / 'many', 'protonet', spine={'vary': vary})
    found = trained.trained(workdir)
    members = json.loads((tmp_path / 'many' / 'result.json').read_text())['members']
    assert members[1]['validation'] > members[0]['validation']
    states = jax.tree.map(lambda a: np.stack([a] * 2), found.state)
    with contextlib.closing(checkpoint.open_manager(tmp_path / 'many' / 'best', keep=1)) as manager:
        states, _ = checkpoint.restore_or_init(manager, states)
    kept = jax.tree.map(lambda a: a[1], states)
    jax.tree.map(np.testing.assert_array_equal, found.state, kept)
    # Whom the report is about answers: the best setting's member, where there are more seeds.
    told = json.loads((tmp_path / 'many' / 'result.json').read_text())
    (tmp_path / 'many' / 'result.json').write_text(json.dumps({**told, 'foremost': 0}))
    trained.trained.cache_clear()
    other = jax.tree.map(lambda a: a[0], states)
    jax.tree.map(np.testing.assert_array_equal, trained.trained(workdir).state, other)
    moved = jax.tree.map(lambda a: np.abs(a[0] - a[1]).max(), states.params)
    assert max(jax.tree.leaves(moved)) > 1e-3


def test_maml_adapts_to_the_support(folder, tmp_path):
    workdir = run(folder, tmp_path / 'maml', 'maml', inner_lr=0.5, inner_steps=5)
    x, label = images((13, 14, 15), 5)
    asked, truth = images((13, 14, 15), 5, seed=1)
    model = AnyShotClassifier(method=workdir).fit(x, label)
    assert model.score(asked, truth) > 0.6
    # The support decides: with its labels changed round, the answers are.
    other = AnyShotClassifier(method=workdir).fit(x, np.roll(label, 5))
    assert other.score(asked, np.roll(truth, 5)) > 0.6
    with pytest.raises(InputError, match='tasks of 3 classes, there are 2'):
        AnyShotClassifier(method=workdir).fit(x[:10], label[:10])


def test_what_it_can_not_do(folder, protonet, tmp_path):
    x, label = images((13, 14), 2)
    with pytest.raises(InputError, match=r'needs images of every class'):
        AnyShotClassifier(method=protonet).fit(None, None, {'a': 'words'})
    with pytest.raises(InputError, match='needs images of every class, 15 has none'):
        AnyShotClassifier(method=protonet).fit(x, label, {15: 'words'})
    with pytest.raises(InputError, match='a trained run is not part of a model'):
        AnyShotClassifier(method=protonet).fit(x, label).save(tmp_path / 'm.safetensors')
    with pytest.raises(InputError, match=r'is no workdir: there is no config\.json'):
        AnyShotClassifier(method=str(tmp_path)).fit(x, label)
    (tmp_path / 'config.json').write_text('{"stages": []}')
    with pytest.raises(InputError, match=r'config\.json: not the config of a single-stage run'):
        AnyShotClassifier(method=str(tmp_path)).fit(x, label)


def test_ink_is_bright_on_black():
    """Omniglot's nets see it so, whichever way the image was taken."""
    paper = np.full((1, SIZE, SIZE, 3), 250, np.uint8)
    paper[0, 2, 1:4] = 20
    net = trained.Trained(None, None, None, (SIZE, SIZE, 1), True, '', 0)
    want = np.full((SIZE, SIZE), 5)
    want[2, 1:4] = 235
    for x in (paper, 255 - paper):
        np.testing.assert_allclose(net.features(list(x))[0].reshape(SIZE, SIZE), want)


def test_the_local_page_asks_it(protonet):
    """Images sent to it are what the net takes; no map of its net is averaged to features."""
    from local_server import png, served

    x, label = images((13, 14, 15), 4)
    asked, truth = images((13, 14, 15), 1, seed=1)
    model = AnyShotClassifier(method=protonet).fit(x, label)
    with served(model) as client:
        state = client.get('/state').json()
        assert state['by'] == 'trained run protonet' and not state['heat']
        sent = [('images', (f'{i}.png', png(one))) for i, one in enumerate(asked)]
        answers = client.post('/predict', files=sent).json()
    assert [a['label'] for a in answers] == [str(c) for c in truth]
    shares = model.predict_proba(asked)
    for answer, share in zip(answers, shares, strict=True):
        found = [p for _, p in answer['shares']]
        np.testing.assert_allclose(found, np.sort(share)[::-1], atol=1e-4)
        assert answer['heat'] is None


OWN = """
from pathlib import Path
from anyshot_jax.methods.protonet import DEFAULTS, build
Path(__file__).with_name('ran').touch()
"""


@pytest.mark.parametrize('field', ['method', 'net', 'data', 'source'])
def test_a_workdir_names_no_code(protonet, tmp_path, monkeypatch, field):
    """Its config.json asks for a module beside it: refused, unless it was imported on purpose."""
    received = tmp_path / 'runs' / 'received'
    shutil.copytree(protonet, received)
    name = f'runs.received.{field}'
    (received / f'{field}.py').write_text(OWN)
    fields = json.loads((received / 'config.json').read_text())
    at = fields['data'] if field == 'source' else fields[field]
    at['source' if field == 'source' else 'name'] = name
    (received / 'config.json').write_text(json.dumps(fields))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=rf'received/config\.json: it names the module \'{name}'):
        trained.trained(str(received))
    assert not (received / 'ran').exists() and name not in sys.modules
    if field == 'method':
        trained.import_code(str(received))
        assert (received / 'ran').exists()
        assert trained.trained(str(received)).shape == (SIZE, SIZE, 1)
        monkeypatch.delitem(sys.modules, name)


def test_what_a_stage_exported_names_no_code():
    """The net of a similarity stands in artifacts.npz, which may be somebody else's."""
    net = np.frombuffer(json.dumps({'name': 'evil.net'}).encode(), np.uint8)
    data = {'stage': {NET: net, 'params/head/pair_kernel': np.zeros((2, 2))}}
    with pytest.raises(InputError, match='exported: it names the module'):
        Similarity.of(Data(stages=data), 'stage')


@pytest.mark.parametrize(
    'change',
    [
        lambda c: c.update(method='protonet'),
        lambda c: c['method'].update(name=['protonet']),
        lambda c: c['net'].update(hidden=[10**9]),
        lambda c: c['net'].update(hidden='many'),
        lambda c: c['train'].update(ways=10**12),
        lambda c: c['data'].update(size=10**9),
        lambda c: c['data'].update(size=-1),
        lambda c: c['eval'].update(tasks=[[2]]),
        lambda c: c.update(num_seeds=10**12),
        lambda c: c.update(vary=[[1, 2, 3]]),
        lambda c: c.update(num_steps='many'),
        lambda c: c.update(encoder='/dev/zero'),
    ],
)
def test_a_workdir_that_was_tampered_with(protonet, tmp_path, change):
    """An InputError at once that names the folder, whatever its config says."""
    received = tmp_path / 'received'
    shutil.copytree(protonet, received)
    fields = json.loads((received / 'config.json').read_text())
    change(fields)
    (received / 'config.json').write_text(json.dumps(fields))
    with pytest.raises(InputError):
        trained.trained(str(received))
