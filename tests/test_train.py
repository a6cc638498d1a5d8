"""Whole runs: resumed, killed, damaged, refused. Every one really trains."""

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import workdirs
from ml_collections import ConfigDict

from anyshot_jax import config as configs
from anyshot_jax.training import checkpoint, logbook, loop
from anyshot_jax.types import InputError

pytestmark = [pytest.mark.usefixtures('swept'), pytest.mark.slow]


def metrics_in(workdir):
    """metrics.jsonl without what depends on the clock."""
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    keys = [(line['step'], line['kind']) for line in lines]
    assert len(set(keys)) == len(keys), 'a step was logged twice'
    assert keys == sorted(keys)
    return [{k: v for k, v in line.items() if k != 'steps_per_s'} for line in lines]


def result_in(workdir):
    result = json.loads((workdir / 'result.json').read_text())
    return {k: v for k, v in result.items() if k not in ('seconds', 'config_file')}


def steps_in(folder):
    """The complete checkpoints of a manager's folder."""
    return sorted(int(p.name) for p in folder.glob('*') if p.name.isdigit())


def assert_same_run(got, want, config):
    """Bit by bit: the last state, the best one, the result and all that was logged."""
    for name in ('checkpoints', 'best'):
        states = workdirs.state_in(got, config, name), workdirs.state_in(want, config, name)
        assert checkpoint.digest(states[0]) == checkpoint.digest(states[1])
    assert result_in(got) == result_in(want)
    assert metrics_in(got) == metrics_in(want)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """A function: a copy of a finished workdir, and its config."""
    made = {}

    def copy(tmp_path, config):
        key = configs.to_json(config)
        if key not in made:
            made[key] = tmp_path_factory.mktemp('finished') / 'run'
            loop.run(config.copy_and_resolve_references(), made[key])
        return shutil.copytree(made[key], tmp_path / 'run')

    return copy


def test_a_run_leaves_everything(tiny_config, tmp_path, capsys):
    config, workdir = tiny_config(), tmp_path / 'a' / 'b'
    means = loop.run(config, workdir).means
    printed = capsys.readouterr().out
    assert f'report: {workdir}/report.html' in printed
    assert 'ways  shots  accuracy %' in printed
    names = {p.name for p in workdir.iterdir()}
    assert {'config.json', 'result.json', 'metrics.jsonl', 'report.html', 'parameters.txt',
            'checkpoints', 'best', 'tensorboard'} <= names  # fmt: skip
    result = json.loads((workdir / 'result.json').read_text())
    assert means == {'3-way 1-shot': result['values']['3-way 1-shot']['mean']}
    assert result['values']['3-way 1-shot']['n'] == 20
    assert result['seed'] == 0 and result['step'] in (4, 8) and result['seconds'] > 0
    assert result['counts'] == {'train': 6, 'val': 4, 'test': 4}
    assert result['versions']['jax'] == jax.__version__ and len(result['config_hash']) == 12
    assert json.loads((workdir / 'config.json').read_text())['num_steps'] == 8
    assert steps_in(workdir / 'checkpoints') == [6, 8]
    assert steps_in(workdir / 'best') == [result['step']]
    lines = metrics_in(workdir)
    assert [line['step'] for line in lines if line['kind'] == 'train'] == [2, 4, 6, 8]
    assert [line['step'] for line in lines if line['kind'] == 'val'] == [4, 8]
    assert {'loss', 'accuracy', 'grad_norm'} <= lines[0].keys()
    assert {'3-way 1-shot', '3-way 1-shot/ci95'} <= lines[2].keys()
    assert list((workdir / 'tensorboard').glob('events*'))


def test_learning_is_seen(tiny_config, tmp_path):
    """Easy classes: the loss falls, and test classes are told apart."""
    config = tiny_config(data__noise=0.1, num_steps=40, eval_every=20, save_every=40)
    [mean] = loop.run(config, tmp_path).means.values()
    assert mean > 0.9
    losses = [line['loss'] for line in metrics_in(tmp_path) if line['kind'] == 'train']
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_a_finished_run_prints_its_table_and_does_nothing(tiny_config, tmp_path, finished, capsys):
    config = tiny_config()
    workdir = finished(tmp_path, config)
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob('*') if p.name != '.lock'}
    capsys.readouterr()
    means = loop.run(config, workdir).means
    printed = capsys.readouterr().out
    assert 'is finished' in printed and 'ways  shots' in printed and 'report.html' in printed
    assert means == {k: v['mean'] for k, v in result_in(workdir)['values'].items()}
    assert {p: p.stat().st_mtime_ns for p in workdir.rglob('*') if p.name != '.lock'} == before


def test_seed_changes_the_run_and_nothing_else_does(tiny_config, tmp_path, finished):
    config = tiny_config()
    workdir = finished(tmp_path, config)
    loop.run(config, tmp_path / 'again')
    assert_same_run(tmp_path / 'again', workdir, config)
    loop.run(tiny_config(seed=1), tmp_path / 'other')
    assert metrics_in(tmp_path / 'other') != metrics_in(workdir)


# Damaged checkpoints.


def unfinish(workdir):
    """As if it had been killed after its last checkpoint."""
    for name in ('result.json', 'report.html'):
        (workdir / name).unlink()


def largest(folder):
    return max((f for f in folder.rglob('*') if f.is_file()), key=lambda f: f.stat().st_size)


def truncate(checkpoint_dir):
    file = largest(checkpoint_dir)
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize('damaged', [(8,), (6, 8)], ids=['the newest', 'all'])
def test_damaged_checkpoints_are_passed_over(tiny_config, tmp_path, finished, caplog, damaged):
    config = tiny_config()
    good = finished(tmp_path, config)
    workdir = shutil.copytree(good, tmp_path / 'damaged')
    unfinish(workdir)
    for step in damaged:
        truncate(workdir / 'checkpoints' / str(step))
    loop.run(config, workdir)
    for step in damaged:
        assert f'checkpoints/{step} cannot be used' in caplog.text
    assert sorted(p.name for p in workdir.glob('unusable-*/*')) == [str(s) for s in damaged]
    assert_same_run(workdir, good, config)


def test_a_foreign_checkpoint_is_passed_over(tiny_config, tmp_path, finished, caplog):
    """The newest checkpoint is from a net of another size."""
    config = tiny_config()
    good = finished(tmp_path, config)
    workdir = shutil.copytree(good, tmp_path / 'mixed')
    unfinish(workdir)
    (tmp_path / 'b').mkdir()
    other = finished(tmp_path / 'b', tiny_config(net__features=3))
    shutil.rmtree(workdir / 'checkpoints' / '8')
    shutil.copytree(other / 'checkpoints' / '8', workdir / 'checkpoints' / '8')
    loop.run(config, workdir)
    assert 'checkpoints/8 cannot be used' in caplog.text
    assert_same_run(workdir, good, config)


def test_a_damaged_best_step_is_not_replaced_by_the_last(tiny_config, tmp_path, finished, caplog):
    config = tiny_config()
    workdir = finished(tmp_path, config)
    unfinish(workdir)
    [best] = steps_in(workdir / 'best')
    truncate(workdir / 'best' / str(best))
    before = sorted((workdir / 'best').rglob('*'))
    refused(config, workdir, 'best is damaged: .* or remove it to have the last state tested')
    assert f'best/{best} cannot be used' in caplog.text
    assert sorted((workdir / 'best').rglob('*')) == before
    shutil.rmtree(workdir / 'best')
    loop.run(config, workdir)
    assert result_in(workdir)['step'] == 8


# Refused before step 1.


def refused(config, workdir, message):
    with pytest.raises(InputError, match=message) as caught:
        loop.run(config, workdir)
    return str(caught.value)


def test_a_changed_config_is_refused_with_its_fields(tiny_config, tmp_path, finished):
    workdir = finished(tmp_path, tiny_config())
    before = sorted(workdir.rglob('*'))
    changed = tiny_config(seed=3, optim__learning_rate=0.25, eval__episodes=30)
    message = refused(changed, workdir, 'was made with another config')
    assert message.splitlines()[1:] == [
        '  config.eval.episodes: 20 -> 30',
        '  config.optim.learning_rate: 0.05 -> 0.25',
        '  config.seed: 0 -> 3',
    ]
    assert sorted(workdir.rglob('*')) == before


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'batch_size': 0}, r'config\.batch_size must be >= 1, got 0'),
        ({'steps_per_call': 0}, r'config\.steps_per_call must be >= 1, got 0'),
        ({'num_steps': 7}, r'config\.num_steps=7 must be a multiple of config\.steps_per_call=2'),
        ({'num_steps': -2}, r'config\.num_steps=-2 must be a multiple'),
        ({'save_every': 5}, r'config\.save_every=5 must be a multiple'),
        (
            {'eval__episodes': 1},
            r'config\.eval\.episodes must be >= 2 \(an interval needs two\), got 1',
        ),
        ({'eval__val_episodes': 0}, r'config\.eval\.val_episodes must be >= 1'),
        ({'eval__tasks': (5, 1)}, r'config\.eval\.tasks=\(5, 1\) must be pairs \(ways, shots\)'),
        ({'eval__tasks': ()}, r'config\.eval\.tasks=\(\) must be pairs'),
        ({'eval__role': 'tets'}, "role='tets' must be test or val"),
        ({'encoder_parts': ('stride8',)}, r'set config\.encoder'),
        ({'encoder': 'resnet18', 'residual__encoder': 'resnet18'}, r'images pass through one'),
        ({'eval__select': '3-way 1-shto'}, r"select='3-way 1-shto'; did you mean '3-way 1-shot'"),
        ({'train__ways': 9}, r'9-way episodes need 9 classes, but train has 6'),
        ({'eval__tasks': ((5, 1),)}, r'5-way episodes need 5 classes, but val has 4'),
        ({'eval__queries': 15}, r"need 16 items a class, but in val class 'val class 0' has \d"),
        (
            {'augment__shift': 1.0},
            r'config\.augment needs images, but the data are feature vectors',
        ),
        ({'features_from': 'first'}, r"config\.features_from='first' is no earlier stage"),
        ({'optim__frozen': ('Dense0',)}, r"frozen names \['Dense0'\]"),
    ],
    ids=lambda p: next(iter(p)) if isinstance(p, dict) else '',
)
def test_what_can_not_be_run_is_refused(tiny_config, tmp_path, fields, message):
    refused(tiny_config(**fields), tmp_path / 'run', message)
    assert not steps_in(tmp_path / 'run' / 'checkpoints')


def test_a_file_in_place_of_the_workdir(tiny_config, tmp_path):
    (tmp_path / 'file').write_text('mine')
    for workdir in (tmp_path / 'file', tmp_path / 'file' / 'below'):
        refused(tiny_config(), workdir, r'file.* cannot be written')
    assert (tmp_path / 'file').read_text() == 'mine'


def test_two_runs_in_one_workdir(tiny_config, tmp_path):
    with logbook.locked(tmp_path):
        refused(tiny_config(), tmp_path, 'in use by another run')
    with logbook.locked(tmp_path):  # free again
        pass


def test_damaged_result_is_named(tiny_config, tmp_path, finished):
    workdir = finished(tmp_path, tiny_config())
    (workdir / 'result.json').write_text('{"values": ')
    refused(tiny_config(), workdir, r'result\.json is damaged .*restore or remove it')


# NaN.


def test_diverging_training_stops_with_the_steps(tiny_config, tmp_path):
    config = tiny_config(optim__learning_rate=1e30)
    message = refused(config, tmp_path, r'loss.* became NaN or infinite at step 2')
    assert 'learning_rate' in message and '1 to 2' in message
    assert not steps_in(tmp_path / 'checkpoints') and not (tmp_path / 'result.json').exists()


def test_infinite_parameters_are_never_saved(tiny_config, tmp_path):
    """The first step's own metrics are fine, its update isn't; it is the last of its call."""
    config = tiny_config(optim__learning_rate=3e38, steps_per_call=1, save_every=1)
    refused(config, tmp_path, r'parameters became NaN or infinite by step 1')
    assert not steps_in(tmp_path / 'checkpoints') and not steps_in(tmp_path / 'best')


SPOILT = """
import jax.numpy as jnp
from anyshot_jax.methods import protonet

DEFAULTS = {**protonet.DEFAULTS, 'bad_step': 7}

def build(config, data):
    method = protonet.build(config, data)

    def update(state, batch, key):
        state, metrics = method.update(state, batch, key)
        bad = state.step >= config.method.bad_step
        return state, {**metrics, 'loss': jnp.where(bad, jnp.nan, metrics['loss'])}

    return method._replace(update=update)
"""


def test_nan_keeps_the_last_good_state(tiny_config, tmp_path, monkeypatch):
    """A method of the user's own, found by its dotted name, whose loss is NaN from step 7 on."""
    (tmp_path / 'spoilt').mkdir()
    (tmp_path / 'spoilt' / 'method.py').write_text(SPOILT)
    monkeypatch.syspath_prepend(tmp_path)
    config = tiny_config('spoilt.method')
    for _ in range(2):  # the second time it goes on from step 6, to the same end
        refused(config, tmp_path / 'run', r'loss became NaN or infinite at step 7 \(.*7 to 8\)')
        assert steps_in(tmp_path / 'run' / 'checkpoints') == [4, 6]
        state = workdirs.state_in(tmp_path / 'run', config)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    assert [line['step'] for line in metrics_in(tmp_path / 'run')] == [2, 4, 4, 6]


# Evaluation only, early stop, selection, stages.


def test_evaluating_a_finished_run_again(tiny_config, tmp_path, finished, capsys):
    workdir = finished(tmp_path, tiny_config())
    before = {p: p.read_bytes() for p in workdir.rglob('*') if p.is_file()}
    fields = {'eval_only': True, 'eval__tasks': ((2, 1), (4, 2)), 'eval__episodes': 700}
    means = loop.run(tiny_config(**fields), workdir).means
    assert list(means) == ['2-way 1-shot', '4-way 2-shot']
    assert capsys.readouterr().out.count(' 700') == 2
    [new] = [p for p in workdir.rglob('*') if p.is_file() and p not in before]
    assert json.loads(new.read_text())['values']['4-way 2-shot']['n'] == 700
    assert all(p.read_bytes() == content for p, content in before.items())
    # The same protocol gives the same numbers as the run itself.
    again = loop.run(tiny_config(eval_only=True), workdir).means
    assert again == {k: v['mean'] for k, v in result_in(workdir)['values'].items()}


def test_evaluating_before_training(tiny_config, tmp_path):
    refused(tiny_config(eval_only=True), tmp_path / 'new', 'no checkpoint to evaluate: train first')
    # It leaves nothing behind that stands in the way of the training.
    loop.run(tiny_config(eval__episodes=10), tmp_path / 'new')


def test_evaluating_half_a_run_does_not_end_it(tiny_config, tmp_path, finished):
    config = tiny_config()
    good = finished(tmp_path, config)
    workdir = shutil.copytree(good, tmp_path / 'half')
    unfinish(workdir)
    shutil.rmtree(workdir / 'checkpoints' / '8')  # killed between 6 and 8
    assert loop.run(tiny_config(eval_only=True), workdir).means
    loop.run(config, workdir)
    assert_same_run(workdir, good, config)


def sine_waves():
    """Regression on functions, which validation measures by its error."""
    config = configs.defaults('maml_regression', 'sinusoid', 'mlp')
    config.net.update({'hidden': (8,), 'features': 1})
    config.update({'num_steps': 8, 'batch_size': 2, 'steps_per_call': 2, 'eval_every': 2})
    config.train.update({'ways': 1, 'shots': 5, 'queries': 5})
    config.eval.update({'tasks': ((1, 5),), 'queries': 5, 'episodes': 4, 'val_episodes': 20})
    return config


def test_early_stop(tiny_config, tmp_path):
    """A learning rate of 0 never betters the first validation."""
    fields = {'num_steps': 40, 'eval_every': 2, 'early_stop': 3, 'optim__learning_rate': 0.0}
    loop.run(tiny_config(**fields), tmp_path)
    steps = [line['step'] for line in metrics_in(tmp_path) if line['kind'] == 'val']
    assert steps == [2, 4, 6, 8]
    assert result_in(tmp_path)['step'] == 2
    # Without an early stop it goes on, and the first of equal bests stays.
    loop.run(tiny_config(**{**fields, 'early_stop': 0, 'num_steps': 10}), tmp_path / 'on')
    assert steps_in(tmp_path / 'on' / 'checkpoints') == [8, 10]
    assert result_in(tmp_path / 'on')['step'] == 2


@pytest.mark.parametrize('kind', ['accuracy', 'squared error'])
def test_stop_at(tiny_config, tmp_path, kind):
    """The first validation as good as that is the last; for an error, as small."""
    if kind == 'accuracy':
        config, name = tiny_config(eval_every=2, optim__learning_rate=0.1), '3-way 1-shot'
    else:
        config = sine_waves()
        name = '5-shot after 1 step'
    workdir = tmp_path / 'whole'
    loop.run(config, workdir)
    val = [m[name] for m in metrics_in(workdir) if m['kind'] == 'val']
    best = max if kind == 'accuracy' else min
    assert len(val) == 4 and val[0] != best(val)
    stopped = config.copy_and_resolve_references()
    stopped.stop_at = best(val)
    loop.run(stopped, tmp_path / 'short')
    short = [m for m in metrics_in(tmp_path / 'short') if m['kind'] == 'val']
    assert [m[name] for m in short] == val[: 1 + val.index(best(val))]
    assert result_in(tmp_path / 'short')['step'] == short[-1]['step']


def test_the_best_step_is_that_of_the_selected_value(tiny_config, tmp_path):
    fields = {'num_steps': 24, 'eval_every': 4, 'eval__tasks': ((3, 1), (4, 2)),
              'eval__val_episodes': 3, 'optim__learning_rate': 0.1}  # fmt: skip
    for i, name in enumerate(('3-way 1-shot', '4-way 2-shot')):
        workdir = tmp_path / str(i)
        loop.run(tiny_config(**fields, eval__select=name), workdir)
        val = {m['step']: m[name] for m in metrics_in(workdir) if m['kind'] == 'val'}
        assert result_in(workdir)['step'] == max(val, key=val.get)  # the first of equal ones


def test_nothing_to_train(tiny_config, tmp_path):
    means = loop.run(tiny_config('knn', ''), tmp_path).means
    assert means['3-way 1-shot'] > 1 / 3
    assert result_in(tmp_path)['step'] == 0 and result_in(tmp_path)['batch_norm'] == 'none'
    refused(tiny_config('knn', '', num_steps=2), tmp_path / 'b', 'knn has nothing to train')


def staged(tiny_config, **fields):
    second = tiny_config('knn', '', features_from='embed')
    second.update_from_flattened_dict(fields)
    return ConfigDict(
        {'stages': ('embed', 'nearest'), 'embed': tiny_config(), 'nearest': second}
    ).lock()


def test_stages_hand_on_features(tiny_config, tmp_path, capsys):
    """With one shot the nearest neighbour of features IS the nearest prototype."""
    means = loop.run(staged(tiny_config), tmp_path).means
    first, second = (result_in(tmp_path / name) for name in ('embed', 'nearest'))
    assert first['values'] == second['values']
    assert means == {'3-way 1-shot': first['values']['3-way 1-shot']['mean']}
    assert first['step'] > 0 and second['step'] == 0
    # The same command does nothing more; a stage that has no result is done again, by itself.
    before = (tmp_path / 'embed' / 'result.json').stat().st_mtime_ns
    unfinish(tmp_path / 'nearest')
    capsys.readouterr()
    assert loop.run(staged(tiny_config), tmp_path).means == means
    assert capsys.readouterr().out.count('is finished') == 1
    assert result_in(tmp_path / 'nearest') == second
    assert (tmp_path / 'embed' / 'result.json').stat().st_mtime_ns == before


def test_stages_that_do_not_fit(tiny_config, tmp_path):
    wrong = staged(tiny_config, features_from='embde')
    refused(wrong, tmp_path / 'a', r"'embde' is no earlier stage; did you mean 'embed'\?")
    wrong = staged(tiny_config).unlock()
    wrong.stages = ('embed', 'nearset')
    refused(wrong, tmp_path / 'b', r"names 'nearset', but there is no config\.nearset; .*'nearest'")


# Runs in processes of their own: killed, terminated, on a full disk, on one device.

LONG = {'num_steps': 60, 'eval_every': 10, 'log_every': 4, 'net__hidden': (256,),
        'optim__learning_rate': 0.001}  # fmt: skip


@pytest.fixture
def long(tiny_config, tmp_path, finished):
    """A longer run: its config, its finished workdir, and a function that starts it."""
    config = tiny_config(**LONG)
    file = workdirs.recipe(tmp_path / 'long.py', config)
    good = finished(tmp_path, config)

    def start(workdir, *, limit=None, **env):
        code = 'from anyshot_jax.main import cli; cli()'
        if limit:  # no file may grow beyond this: what a full disk looks like
            code = f'import resource as r; r.setrlimit(r.RLIMIT_FSIZE, ({limit}, {limit})); {code}'
        return subprocess.Popen(
            [sys.executable, '-c', code, f'--config={file}', f'--workdir={workdir}'],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **env},
        )  # fmt: skip

    return config, good, start


def wait_for(process, seen):
    """Until `seen()` is true; a process that ends before is an error."""
    while not seen():
        if process.poll() is not None:
            raise AssertionError(f'ended too early: {process.communicate()}')
        time.sleep(0.0005)


def ended(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def test_killed_at_any_moment_it_ends_with_the_same_bits(long, tmp_path):
    """Killed in the middle of a save, after one, while it keeps the best, before the report."""
    config, good, start = long
    workdir = tmp_path / 'killed'
    recent, best = workdir / 'checkpoints', workdir / 'best'
    unfinished = lambda folder: any(not p.name.isdigit() for p in folder.glob('*'))
    moments = [
        lambda: unfinished(recent),
        lambda: len(steps_in(recent)) == 2 and unfinished(recent),
        lambda: unfinished(best),
        lambda: max(steps_in(recent), default=0) >= 40,
        lambda: (workdir / 'result.json').exists(),
    ]
    for moment in moments:
        process = start(workdir)
        with contextlib.suppress(FileNotFoundError):  # a folder that goes while it is listed
            wait_for(process, moment)
        process.kill()
        assert ended(process)[0] == -signal.SIGKILL
    code, out, err = ended(start(workdir))
    assert code == 0, err
    assert 'report:' in out
    assert_same_run(workdir, good, config)


def test_terminated_it_saves_and_on_a_full_disk_it_keeps(long, tmp_path):
    """SIGTERM ends with a checkpoint; then the disk is full; then it isn't."""
    config, good, start = long
    workdir = tmp_path / 'stopped'
    process = start(workdir)
    wait_for(process, lambda: steps_in(workdir / 'checkpoints'))
    process.terminate()
    code, out, err = ended(process)
    assert code == 0, err
    last = steps_in(workdir / 'checkpoints')[-1]
    assert f'stopped and saved at step {last}; the same command goes on' in out
    assert not (workdir / 'result.json').exists()

    code, out, err = ended(start(workdir, limit=8000))
    assert code == 2
    [line] = [line for line in err.splitlines() if line.startswith('error: ')]
    assert line.startswith(f'error: checkpoint of step {last + 2} could not be written')
    assert line.endswith(f'goes on from step {last}')
    assert steps_in(workdir / 'checkpoints')[-1] == last

    code, out, err = ended(start(workdir))
    assert code == 0, err
    assert_same_run(workdir, good, config)


def test_one_device_or_two(long, tmp_path):
    """The whole run on one device: the same numbers but for the order of sums."""
    config, good, start = long
    workdir = tmp_path / 'one'
    one = os.environ['XLA_FLAGS'].replace('device_count=2', 'device_count=1')
    code, _, err = ended(start(workdir, XLA_FLAGS=one))
    assert code == 0, err
    ours, theirs = (workdirs.state_in(w, config) for w in (workdir, good))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), ours, theirs)
    for a, b in zip(metrics_in(workdir), metrics_in(good), strict=True):
        assert a.keys() == b.keys()
        if a['kind'] == 'train':
            assert math.isclose(a['loss'], b['loss'], rel_tol=1e-3)
    assert result_in(workdir)['num_devices'] == 1 and result_in(good)['num_devices'] == 2


def test_a_scheduler_hears_of_every_validation_and_may_end_the_run(tiny_config, tmp_path):
    heard = []

    def hear(step, values):
        heard.append((step, values['3-way 1-shot']['n']))
        if len(heard) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.run(tiny_config(), tmp_path, on_validation=hear)
    loop.run(tiny_config(), tmp_path, on_validation=hear)
    assert heard == [(4, 10), (4, 10), (8, 10)]  # saved at step 2: the fourth comes again
