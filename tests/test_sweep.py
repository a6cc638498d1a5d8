"""Sweeps: what a file means, both engines from start to end, and the leaderboard by hand."""

import csv
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest

from anyshot_jax import logbook
from anyshot_jax.types import InputError

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'experiments'))
leaderboard = importlib.import_module('leaderboard')
local_engine = importlib.import_module('local_engine')
parallel_coordinates = importlib.import_module('parallel_coordinates')
sweep_module = importlib.import_module('sweep')
trials = importlib.import_module('trials')

CONFIG = """
from anyshot_jax.config import defaults

def get_config(arg=''):
    config = defaults(method='protonet', data='synthetic', net='mlp')
    config.data.update({'kind': 'features', 'dim': 6, 'per_class': (6, 9)})
    config.net.update({'hidden': (8,), 'features': 6})
    config.update({'num_steps': 8, 'batch_size': 2, 'steps_per_call': 2})
    config.update({'log_every': 2, 'eval_every': 4, 'save_every': 2})
    config.train.update({'ways': 3, 'queries': 2})
    config.eval.update({'tasks': ((3, 1),), 'queries': 3, 'episodes': 20, 'val_episodes': 10})
    return config
"""
GRID = {'fields': {'optim.learning_rate': (0.01, 0.1), 'net.features': (4, 6)}}
ONE = {'fields': {'optim.learning_rate': (0.01,)}}


@pytest.fixture
def sweep_file(tmp_path):
    """A function: writes a sweep of a tiny config to mine.py."""
    (tmp_path / 'tiny.py').write_text(CONFIG)

    def make(**constants) -> Path:
        given = {'config': str(tmp_path / 'tiny.py'), **constants}
        file = tmp_path / 'mine.py'
        file.write_text(''.join(f'{k.upper()} = {v!r}\n' for k, v in given.items()))
        return file

    return make


def made(file, folder=Path('none')):
    return trials.make_trials(trials.load(file), folder)


def refused(python, *args):
    """The one line on stderr of a sweep that must end with code 2, before anything starts."""
    done = python('experiments/sweep.py', *args)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ''
    [line] = done.stderr.strip().splitlines()
    assert line.startswith('error: ')
    return line


def rows(path):
    with path.open(newline='') as f:
        return list(csv.DictReader(f))


# What a file means.


def test_a_grid_is_every_setting_with_every_seed(sweep_file):
    every = made(sweep_file(**GRID, seeds=(0, 3), overrides=('eval.queries=2',)))
    points = [(t.setting['optim.learning_rate'], t.setting['net.features'], t.seed) for t in every]
    assert points == [(r, f, s) for r in (0.01, 0.1) for f in (4, 6) for s in (0, 3)]
    config = every[-1].runs[0].config
    assert (config.optim.learning_rate, config.net.features, config.seed) == (0.1, 6, 3)
    assert config.eval.queries == 2 and len({t.name for t in every}) == 8
    assert every[0].name.startswith('learning_rate=0.01,features=4-seed0-')


def test_random_search_draws_the_same_again_and_more_of_the_same(sweep_file):
    fields = {
        'optim.learning_rate': {'loguniform': (1e-4, 1e-1)},
        'data.noise': {'uniform': (0.2, 0.9)},
        'net.features': (4, 6),
    }
    draw = lambda n: [
        t.setting for t in made(sweep_file(fields=fields, search='random', num_settings=n))
    ]
    many = draw(40)
    assert draw(40) == many and draw(7) == many[:7]
    rates = [s['optim.learning_rate'] for s in many]
    assert all(1e-4 <= r <= 1e-1 for r in rates) and all(
        0.2 <= s['data.noise'] <= 0.9 for s in many
    )
    # By the logarithm about half lie below 10^-2.5; evenly drawn only one in thirty would.
    assert 12 <= sum(r < 10**-2.5 for r in rates) <= 28
    assert {s['net.features'] for s in many} == {4, 6}


def test_no_setting_is_drawn_twice(sweep_file):
    file = sweep_file(fields={'net.features': (4, 6)}, search='random', num_settings=9)
    assert sorted(t.setting['net.features'] for t in made(file)) == [4, 6]


@pytest.mark.parametrize(
    'constants, said',
    [
        ({'fields': {'optim.learning_rte': (1e-3,)}}, "optim.learning_rte; did you mean 'lea"),
        ({'fields': {'optin.b1': (0.9,)}}, "unknown field config.optin; did you mean 'optim'"),
        ({'fields': {'optim': (0.9,)}}, 'config.optim has fields of its own'),
        ({'fields': {'optim.b1.x': (0.9,)}}, 'config.optim.b1 has no fields'),
        ({'fields': {'optim.b1': ('high',)}}, 'high'),
        ({'fields': {'optim.b1': 0.9}}, 'must be a tuple of values or a range'),
        ({'fields': {'optim.b1': {'loguniform': (0, 1)}}}, 'is no range'),
        ({'fields': {'optim.b1': {'uniform': (0.5, 0.9)}}}, 'has to be drawn from'),
        ({'fields': {'seed': (0, 1)}}, 'use SEEDS'),
        ({'fields': {'eval.queries': (1, 2)}}, 'can not be compared'),
        ({'fields': {'num_steps': (3,)}}, 'must be a multiple of config.steps_per_call=2'),
        ({**ONE, 'overrides': ('eval_every=0',)}, 'never validates'),
        ({**ONE, 'overrides': ('eval.select=4-way 1-shot',)}, "did you mean '3-way 1-shot'"),
        ({**ONE, 'search': 'gird'}, "did you mean 'grid'"),
        ({**ONE, 'search': 'random'}, 'needs NUM_SETTINGS'),
        ({**ONE, 'search': 'asha'}, 'needs GRACE_STEPS'),
        ({**ONE, 'seed': 3}, "unknown constant SEED; did you mean 'SEEDS'"),
        ({**ONE, 'seeds': 3}, 'SEEDS must be a tuple'),
        ({}, 'FIELDS is missing'),
        ({**ONE, 'config': 'configs/none.py'}, 'none.py is not there'),
    ],
)  # fmt: skip
def test_a_file_that_can_not_be_is_refused(sweep_file, constants, said):
    with pytest.raises(InputError) as e:
        made(sweep_file(**constants))
    assert said in str(e.value)


# From the command line.


def test_an_unknown_field_is_named_before_anything_starts(python, sweep_file, tmp_path):
    fields = {'optim.learning_rate': (0.01,), 'net.feature': (4,)}
    line = refused(python, sweep_file(fields=fields), f'--workdir={tmp_path / "out"}')
    assert "unknown field config.net.feature; did you mean 'features'" in line
    assert not (tmp_path / 'out').exists()


def test_bad_calls(sweep_file, tmp_path):
    file, workdir = str(sweep_file(**ONE)), f'--workdir={tmp_path / "out"}'
    asha = tmp_path / 'asha.py'
    sweep_file(**GRID, search='asha', grace_steps=2).rename(asha)
    for argv, said in (
        ([], 'either a sweep file or --rows'),
        ([file, '--rows=omniglot_fewshot'], 'either a sweep file or --rows'),
        (['none.py'], 'none.py is not there'),
        ([str(sweep_file(**ONE)), '--address=127.0.0.1:1'], 'add --engine=ray'),
        ([str(asha)], 'use --engine=ray'),
        ([file, '--jobs=-1'], 'must be >= 0'),
        (['--rows=omniglot_fewshot', '--only=relatoin'], 'no row relatoin'),
        (['--rows=omniglot_fewshot', '--leaderboard'], 'is that of a sweep file'),
    ):
        with pytest.raises(InputError, match=said):
            sweep_module.run(sweep_module.parse([*argv, workdir]))
    assert not (tmp_path / 'out').exists()


def test_two_sweeps_on_one_workdir(python, sweep_file, tmp_path):
    with logbook.locked(tmp_path / 'out'):
        done = python('experiments/sweep.py', sweep_file(**ONE), f'--workdir={tmp_path / "out"}')
    assert done.returncode == 2 and 'is in use by another run' in done.stderr
    assert not (tmp_path / 'out' / 'trials').exists()


def test_local_engine_from_start_to_end(python, sweep_file, tmp_path, capsys):
    """All finish, a failed one doesn't stop the others; again: only that one is tried."""
    workdir = tmp_path / 'out'
    fields = {'optim.learning_rate': (0.01, 1e30), 'net.features': (4,)}
    file = sweep_file(fields=fields)
    done = python('experiments/sweep.py', file, f'--workdir={workdir}', '--jobs=2')
    assert done.returncode == 1, done.stderr
    [good, bad] = rows(workdir / 'leaderboard.csv')
    assert (good['rank'], good['status'], good['optim.learning_rate']) == ('1', 'finished', '0.01')
    assert (bad['rank'], bad['status'], bad['optim.learning_rate']) == ('', 'failed', '1e+30')
    assert f'{bad["trial"]}: error: ' in done.stderr and 'Try a lower' in done.stderr
    folder = workdir / 'trials' / good['trial']
    result = json.loads((folder / 'result.json').read_text())
    assert float(good['test 3-way 1-shot']) == result['values']['3-way 1-shot']['mean']
    assert 'report: ' in (folder / 'log.txt').read_text()
    assert f'{good["trial"]}: finished' in done.stdout

    before = {p: p.stat().st_mtime_ns for p in folder.rglob('*') if p.is_file()}
    call = lambda file, *flags: sweep_module.run(
        sweep_module.parse([str(file), f'--workdir={workdir}', *flags])
    )
    assert list(call(file)) == [bad['trial']]
    assert 'mine: 1 of 2 trials are over' in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in folder.rglob('*') if p.is_file()} == before

    # Another file on the same workdir: what it doesn't have stays, and is told.
    assert call(sweep_file(fields={**fields, 'net.features': (6,)}), '--leaderboard') == {}
    assert '2 trials in ' in capsys.readouterr().out
    assert [r['status'] for r in rows(workdir / 'leaderboard.csv')] == ['waiting', 'waiting']


def test_sigterm_is_passed_on_and_the_same_command_goes_on(python, sweep_file, tmp_path):
    workdir = tmp_path / 'out'
    many = ('num_steps=80000', 'eval_every=2000', 'log_every=1000', 'save_every=2000')
    file = sweep_file(**ONE, overrides=many)
    command = [sys.executable, 'experiments/sweep.py', file, f'--workdir={workdir}']
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, 'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        [trial] = made(file, workdir / 'trials')
        wait_for(lambda: (trial.runs[0].workdir / 'metrics.jsonl').exists())
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=100)
    assert process.returncode == 130 and 'the same command goes on' in stderr
    assert 'stopped and saved at step ' in trial.log.read_text()
    step = int(trial.log.read_text().split('saved at step ')[1].split(';')[0])
    assert 0 < step < 200000
    [row] = rows(workdir / 'leaderboard.csv')
    assert row['status'] == 'unfinished'


def test_rows_of_one_trained_model_are_one_trial(tmp_path):
    run_rows, tables = sweep_module.run_rows, sweep_module.tables
    table = tables.load_rows('omniglot_fewshot').ROWS
    missing = list(run_rows.pending(table, [], only='relation,protonet_lists,protonet'))
    [protonet, relation] = sweep_module.group_rows(missing, tmp_path, table)
    assert protonet.name == 'protonet seed 0 + protonet_lists seed 0'
    assert [run.workdir for run in protonet.runs] == [protonet.runs[0].workdir] * 2
    assert 'data.turns_eval=4' in protonet.runs[1].overrides
    assert '--config.eval_only=True' in protonet.runs[1].command
    assert [r.result.name for r in relation.runs] == ['result.json']


def test_the_machine_is_shared_out():
    part = local_engine._part
    assert [part([0, 1, 2, 3], i, 2) for i in range(2)] == [[0, 2], [1, 3]]
    assert [part([0, 1], i, 3) for i in range(3)] == [[0], [1], [0]]
    assert local_engine._gpus(1, 2, 2)['CUDA_VISIBLE_DEVICES'] == '1'
    two = local_engine._gpus(3, 4, 2)
    assert two == {'CUDA_VISIBLE_DEVICES': '1', 'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.375'}
    [a, b] = local_engine.shares(2, 2)
    cores = os.sched_getaffinity(0)
    assert a.cores | b.cores <= cores and (len(cores) == 1 or not a.cores & b.cores)
    assert len(local_engine.shares(1, 0)) == 1


def test_a_process_has_the_cores_that_it_is_told(python):
    code = 'from anyshot_jax import start; print(start.cores())'
    assert python('-c', code, PJRT_NPROC='3').stdout == '3\n'


# The leaderboard.


def finish(trial, validations, test, ci95=0.02, larger=True):
    """Leaves what a run with these validations, by steps, leaves."""
    folder = trial.runs[0].workdir
    folder.mkdir(parents=True)
    lines = [
        {'step': s, 'kind': 'val', '3-way 1-shot': v, '3-way 1-shot/ci95': 0.1}
        for s, v in validations.items()
    ]
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    (folder / 'config.json').write_text('{"seed": -1}')
    measure = {'name': 'accuracy', 'percent': True, 'larger_is_better': larger}
    if test is not None:
        values = {'3-way 1-shot': {'mean': test, 'ci95': ci95, 'n': 20}}
        result = {'values': values, 'measure': measure, 'step': 4, 'seconds': 1.5}
        (folder / 'result.json').write_text(json.dumps(result))


def test_leaderboard_by_hand(sweep_file, tmp_path):
    """Ranked by validation where test says the opposite; a seed's interval by Student's t."""
    file = sweep_file(fields={'optim.learning_rate': (0.01, 0.1)}, seeds=(0, 1))
    sweep, every = trials.load(file), made(file, tmp_path / 'trials')
    finish(every[0], {4: 0.5, 8: 0.7}, 0.90)
    finish(every[1], {4: 0.8, 8: 0.6}, 0.60)
    finish(every[2], {4: 0.75, 8: 0.75}, 0.65)
    finish(every[3], {4: 0.99}, None)
    leaderboard.write(tmp_path, sweep, every, {})
    names = [t.name for t in every]
    want = (
        'rank,trial,optim.learning_rate,seed,validation 3-way 1-shot,step,test 3-way 1-shot,'
        'test 3-way 1-shot ci95,seconds,status\n'
        f'1,"{names[1]}",0.01,1,0.8,4,0.6,0.02,1.5,finished\n'
        f'2,"{names[2]}",0.1,0,0.75,4,0.65,0.02,1.5,finished\n'
        f'3,"{names[0]}",0.01,0,0.7,8,0.9,0.02,1.5,finished\n'
        f',"{names[3]}",0.1,1,0.99,4,,,,unfinished\n'
    ).replace('"', '')
    assert (tmp_path / 'leaderboard.csv').read_text() == want
    page = (tmp_path / 'leaderboard.html').read_text()
    # .7 and .8: mean .75, deviation .0707107; t(0.975, 1) = 12.7062, over sqrt(2): .635310.
    assert '75.00&nbsp;% ± 63.53&nbsp;%' in page
    assert '3 of 4 trials are finished' in page and 'src=' not in page and '<script' not in page


def test_smaller_is_better_where_the_file_says_so(sweep_file, tmp_path):
    file = sweep_file(fields={'optim.learning_rate': (0.01, 0.1)}, mode='min')
    sweep, every = trials.load(file), made(file, tmp_path / 'trials')
    finish(every[0], {4: 0.5, 8: 0.7}, 0.5, larger=False)
    finish(every[1], {4: 0.9, 8: 0.4}, 0.5, larger=False)
    leaderboard.write(tmp_path, sweep, every, {})
    found = [(r['validation 3-way 1-shot'], r['step']) for r in rows(tmp_path / 'leaderboard.csv')]
    assert found == [('0.4', '8'), ('0.5', '4')]
    with pytest.raises(InputError, match="set MODE = 'min'"):
        leaderboard.write(tmp_path, sweep._replace(mode='max'), every, {})


class _Polylines(HTMLParser):
    """The points of every line, and all that is shown as text."""

    def __init__(self, page):
        super().__init__()
        self.points, self.tags, self.text = [], set(), ''
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == 'polyline':
            points = dict(attrs)['points'].split()
            self.points.append([tuple(map(float, p.split(','))) for p in points])

    def handle_data(self, data):
        self.text += data


def test_parallel_coordinates_place_values_and_escape_names():
    line = parallel_coordinates.Polyline
    evil = '<i>x</i>'
    lines = [
        line('a', (1e-4, evil, 0.2)), line('b', (1e-3, 'z', 0.4)), line(evil, (1e-2, 'z', 0.3)),
    ]  # fmt: skip
    svg = parallel_coordinates.draw(
        ('rate', evil, 'value'), lines, label=f'of {evil}', best_low=False, percent=True
    )
    seen = _Polylines(svg)
    assert 'i' not in seen.tags and seen.text.count(evil) >= 4  # axis, tick, line, title
    worst, middle, best = seen.points  # the best is drawn last, on top
    low, mid, high = worst[0][1], best[0][1], middle[0][1]
    assert mid == pytest.approx((low + high) / 2, abs=0.1)  # 1e-3 is halfway by the logarithm
    assert (worst[2][1], best[2][1]) == (low, high)  # bottom and top of the last axis
    assert middle[2][1] == pytest.approx((low + high) / 2, abs=0.1)
    assert (
        len({p[0][0] for p in seen.points}) == 1
        and 'rate, log' in seen.text
        and '40 %' in seen.text
    )


# Ray.


def wait_for(true, seconds=90):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, 'waited in vain'
        time.sleep(0.05)


def test_without_ray_the_extra_is_named(python, sweep_file, tmp_path):
    """Hidden, for it may be installed here."""
    code = (
        'import sys; sys.modules["ray"] = None; sys.path.insert(0, "experiments")\n'
        'import sweep; sweep.main()'
    )
    done = python('-c', code, sweep_file(**ONE), f'--workdir={tmp_path / "out"}', '--engine=ray')
    assert done.returncode == 2 and "pip install -e '.[sweep]'" in done.stderr
    assert not (tmp_path / 'out').exists()


def test_an_address_that_does_not_answer(python, sweep_file, tmp_path):
    pytest.importorskip('ray', exc_type=ImportError)
    file, workdir = sweep_file(**ONE), f'--workdir={tmp_path / "out"}'
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))  # nobody else takes it, and it doesn't listen
        address = f'127.0.0.1:{s.getsockname()[1]}'
        started = time.monotonic()
        line = refused(python, file, workdir, '--engine=ray', f'--address={address}')
        assert f'no Ray cluster answers at --address={address}' in line
        assert time.monotonic() - started < 30
    assert not (tmp_path / 'out').exists()
    with pytest.raises(InputError, match='must be HOST:PORT'):
        importlib.import_module('ray_engine').check_cluster('ray://a:1')


@pytest.fixture(scope='module')
def cluster():
    """The address of a Ray cluster of this file's own, with two CPUs."""
    pytest.importorskip('ray', exc_type=ImportError)
    code = (
        'import sys\nfrom ray.cluster_utils import Cluster\n'
        "c = Cluster(True, head_node_args={'num_cpus': 2, 'object_store_memory': 80_000_000})\n"
        'print(c.address, flush=True)\nsys.stdin.read()\nc.shutdown()'
    )
    env = {**os.environ, 'RAY_USAGE_STATS_ENABLED': '0'}
    with subprocess.Popen(
        [sys.executable, '-c', code], env=env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        yield process.stdout.readline().strip()
        process.stdin.close()


def test_ray_starts_a_killed_worker_again_from_its_checkpoint(
    python, sweep_file, tmp_path, cluster
):
    workdir = tmp_path / 'out'
    steps = ('num_steps=8000', 'eval_every=1000', 'log_every=500', 'save_every=500')
    file = sweep_file(fields={'optim.learning_rate': (0.01, 0.02)}, overrides=steps)
    every = made(file, workdir / 'trials')
    args = ('experiments/sweep.py', file, f'--workdir={workdir}', '--engine=ray')
    command = [sys.executable, *map(str, args), f'--address={cluster}']
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, 'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        victim = every[0]
        checkpoints = victim.runs[0].workdir / 'checkpoints'
        wait_for(
            lambda: checkpoints.exists() and any(p.name == '2000' for p in checkpoints.iterdir())
        )
        pid = int(victim.log.read_text().split('process ')[1].split()[0])
        os.kill(pid, signal.SIGKILL)
        _, err = process.communicate(timeout=150)
    assert process.returncode == 0, err
    assert f'{victim.name}: its worker died or failed; Tune starts it again' in err
    begun = [line.split() for line in victim.log.read_text().splitlines() if 'goes on' in line]
    [before, after] = [(int(words[1]), int(words[-1])) for words in begun]
    assert before == (pid, 0) and after[0] != pid and after[1] >= 2000
    assert [r['status'] for r in rows(workdir / 'leaderboard.csv')] == ['finished', 'finished']

    again = python(*args, f'--address={cluster}')
    assert again.returncode == 0 and '2 of 2 trials are over' in again.stdout


def test_asha_stops_a_trial_that_is_worse_than_those_before(python, sweep_file, tmp_path, cluster):
    """The others ended in an earlier call: what they reached at the rung still counts."""
    file = sweep_file(
        fields={'optim.learning_rate': (0.01, 0.02, 0.03)}, overrides=('data.noise=9.0',),
        search='asha', grace_steps=4, reduction_factor=2,
    )  # fmt: skip
    every = made(file, tmp_path / 'out' / 'trials')
    for trial in every[:2]:
        finish(trial, {4: 0.99, 8: 0.99}, 0.99)
    command = ('experiments/sweep.py', file, f'--workdir={tmp_path / "out"}', '--engine=ray')
    done = python(*command, f'--address={cluster}')
    assert done.returncode == 0, done.stderr
    assert f'{every[2].name}: stopped' in done.stdout
    *_, last = rows(tmp_path / 'out' / 'leaderboard.csv')
    assert (last['trial'], last['status'], last['step']) == (every[2].name, 'stopped', '4')
    assert json.loads(every[2].stopped.read_text()) == {'step': 4} and not every[2].finished
