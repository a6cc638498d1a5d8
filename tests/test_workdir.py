"""A run's folder: whose it is, for how long it is trained, and the way back to Python."""

import json
import shutil

import jax
import numpy as np
import pytest

import anyshot_jax
from anyshot_jax.training import loop
from anyshot_jax.types import InputError

pytestmark = pytest.mark.slow

TASK = '3-way 1-shot'


@pytest.fixture(scope='module')
def finished(tiny_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('run') / 'mine'
    return loop.run(tiny_config(), workdir), workdir


@pytest.fixture(scope='module')
def whole(tiny_config, tmp_path_factory):
    return loop.run(tiny_config(num_steps=12), tmp_path_factory.mktemp('whole'))


def test_a_command_that_failed_leaves_the_folder_to_the_corrected_one(tiny_config, tmp_path):
    with pytest.raises(InputError, match='adamm'):
        loop.run(tiny_config(optim__name='adamm'), tmp_path)
    with pytest.raises(InputError, match='ways'):
        loop.run(tiny_config(train__ways=50), tmp_path)
    assert not (tmp_path / 'config.json').exists()
    loop.run(tiny_config(num_steps=2, eval_every=2), tmp_path)
    with pytest.raises(InputError, match=r'made with another config.*\n.*learning_rate: 0.05 -> 1'):
        loop.run(tiny_config(num_steps=2, eval_every=2, optim__learning_rate=1.0), tmp_path)


def test_a_folder_with_a_config_alone_belongs_to_nobody(tiny_config, tmp_path, finished):
    shutil.copy(finished[1] / 'config.json', tmp_path)
    loop.run(tiny_config(num_steps=2, eval_every=2, seed=3), tmp_path)
    assert json.loads((tmp_path / 'config.json').read_text())['seed'] == 3


def flipped(path):
    """Another bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize('damaged', [False, True])
def test_a_finished_run_is_trained_for_longer_to_the_same_bits(
    tiny_config, finished, tmp_path, whole, damaged
):
    """With a constant learning rate 8 steps and 4 more are 12 steps, also from 6 if 8 is lost."""
    shutil.copytree(finished[1], tmp_path / 'longer')
    if damaged:
        flipped(tmp_path / 'longer' / 'checkpoints' / '8' / 'progress' / 'metadata')
    longer = loop.run(tiny_config(num_steps=12), tmp_path / 'longer')
    assert longer.result['values'] == whole.result['values'] and longer.means == whole.means
    jax.tree.map(np.testing.assert_array_equal, longer.params, whole.params)
    drop = lambda line: {k: v for k, v in line.items() if k != 'steps_per_s'}
    assert [*map(drop, longer.history)] == [*map(drop, whole.history)]
    before = finished[0].result
    kept = tmp_path / 'longer' / f'result-{before["step"]}.json'
    assert json.loads(kept.read_text())['values'] == before['values']
    with pytest.raises(InputError, match='num_steps: 12 -> 8'):
        loop.run(tiny_config(), tmp_path / 'longer')


def test_files_that_changed_since_are_said(tiny_config, tmp_path, capsys):
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'a.txt').write_text('1')
    config = tiny_config('knn', '', data__dir=str(tmp_path / 'data'))
    loop.run(config, tmp_path / 'run')
    loop.run(config, tmp_path / 'run')
    assert 'not those that it was trained on' not in capsys.readouterr().out
    (tmp_path / 'data' / 'b.txt').write_text('2')
    loop.run(config, tmp_path / 'run')
    assert 'not those that it was trained on (1 then, 2 now' in capsys.readouterr().out


def test_back_to_python(finished):
    """`embed` and `predict` against the net applied by hand to the checkpoint's parameters."""
    done, workdir = finished
    run = anyshot_jax.load(workdir)
    assert run.means == done.means == {TASK: run.result['values'][TASK]['mean']}
    assert run.config.num_steps == 8 and [x['step'] for x in run.history if x['kind'] == 'val']
    jax.tree.map(np.testing.assert_array_equal, run.params, done.params)
    x = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)  # more than a chunk
    z = run.embed(x)
    layers = [*map(np.asarray, jax.tree.leaves(run.params))]  # bias and kernel, layer by layer
    hidden = np.maximum(x @ layers[1] + layers[0], 0)
    np.testing.assert_allclose(z, hidden @ layers[3] + layers[2], rtol=1e-4, atol=1e-5)
    from anyshot_jax.types import Episode

    y = np.repeat(np.arange(3), 2).astype(np.int32)
    task = Episode(x[:6], y, x[6:10], np.zeros(4, np.int32), np.arange(3, dtype=np.int32))
    means = z[:6].reshape(3, 2, -1).mean(1)
    dist = ((z[6:10, None] - means) ** 2).sum(-1)
    np.testing.assert_array_equal(run.predict(task).argmax(1), dist.argmin(1))


def test_what_is_no_run_is_refused(tmp_path, finished):
    with pytest.raises(InputError, match='is no workdir'):
        anyshot_jax.load(tmp_path / 'nowhere')
    with pytest.raises(InputError, match=r'several stages: give .*mine'):
        anyshot_jax.load(finished[1].parent)
    shutil.copytree(finished[1], tmp_path / 'bare')
    for name in ('best', 'checkpoints'):
        shutil.rmtree(tmp_path / 'bare' / name)
    with pytest.raises(InputError, match='holds no checkpoint'):
        _ = anyshot_jax.load(tmp_path / 'bare').params


def test_a_log_says_how_far_it_is(tiny_config, tmp_path, capsys):
    def stop(step, values):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.run(tiny_config(), tmp_path, on_validation=stop)
    assert 'compiles the training step' in capsys.readouterr().err
    loop.run(tiny_config(), tmp_path)
    said = capsys.readouterr().err
    assert 'goes on from step 2 of 8' in said
    assert 'step 8 of 8, train: ' in said and 'step 8 of 8, val: 3-way 1-shot 0.' in said


def test_a_damaged_run_is_loaded_as_it_was_or_not(tiny_config, finished, tmp_path):
    """Each of Orbax's files of the best state in turn."""
    done, workdir = finished
    best = workdir / 'best'
    names = sorted(p.relative_to(best) for p in best.rglob('*') if p.is_file())
    loaded = 0
    for i, name in enumerate(names):
        shutil.copytree(workdir, tmp_path / str(i))
        flipped(tmp_path / str(i) / 'best' / name)
        try:
            state = anyshot_jax.load(tmp_path / str(i)).state
        except InputError as e:
            assert 'best is damaged' in str(e)
            damaged = tmp_path / str(i)
        else:
            loaded += 1
            jax.tree.map(np.testing.assert_array_equal, state, done.state)
    assert 0 < loaded < len(names)
    with pytest.raises(InputError, match='best is damaged'):
        loop.run(tiny_config(eval_only=True), damaged)
