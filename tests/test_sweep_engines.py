"""Sweeps from the command line: both engines from start to end, with what kills and stops them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import tiny_sweep
from tiny_sweep import GRID, ONE, ROOT, finish, made, rows

from anyshot_jax.storage.lock import Lock, is_held
from anyshot_jax.sweep import command, local, run
from anyshot_jax.training import logbook
from anyshot_jax.types import InputError

pytestmark = pytest.mark.slow


@pytest.fixture
def sweep_file(tmp_path):
    """A function: writes a sweep of a tiny config to mine.py."""
    return partial(tiny_sweep.write, tmp_path)


def refused(python, *args):
    """The one line on stderr of a sweep that must end with code 2, before anything starts."""
    done = python('-m', 'anyshot_jax.sweep', *args)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ''
    [line] = done.stderr.strip().splitlines()
    assert line.startswith('error: ')
    return line


def wait_for(true, seconds=90):
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, 'waited in vain'
        time.sleep(0.05)


# Processes of this machine.


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
        (['none.py'], 'none.py is not there'),
        ([str(sweep_file(**ONE)), '--address=127.0.0.1:1'], 'add --engine=ray'),
        ([str(asha)], 'use --engine=ray'),
        ([file, '--jobs=-1'], 'must be >= 0'),
    ):
        with pytest.raises(InputError, match=said):
            run.run(command.parse([*argv, workdir]))
    assert not (tmp_path / 'out').exists()


def test_two_sweeps_on_one_workdir(python, sweep_file, tmp_path):
    with logbook.locked(tmp_path / 'out'):
        done = python('-m', 'anyshot_jax.sweep', sweep_file(**ONE), f'--workdir={tmp_path / "out"}')
    assert done.returncode == 2 and 'is in use by another run' in done.stderr
    assert not (tmp_path / 'out' / 'trials').exists()


def test_local_engine_from_start_to_end(python, sweep_file, tmp_path, capsys):
    """All finish, a failed one doesn't stop the others; again: only that one is tried."""
    workdir = tmp_path / 'out'
    fields = {'optim.learning_rate': (0.01, 1e30), 'net.features': (4,)}
    file = sweep_file(fields=fields)
    done = python('-m', 'anyshot_jax.sweep', file, f'--workdir={workdir}', '--jobs=2')
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
    call = lambda file, *flags: run.run(command.parse([str(file), f'--workdir={workdir}', *flags]))
    assert list(call(file)) == [bad['trial']]
    assert 'mine: 1 of 2 trials are over' in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in folder.rglob('*') if p.is_file()} == before

    # Another file on the same workdir: what it doesn't have stays, and is told.
    assert call(sweep_file(fields={**fields, 'net.features': (6,)}), '--leaderboard') == {}
    assert '2 trials in ' in capsys.readouterr().out
    assert [r['status'] for r in rows(workdir / 'leaderboard.csv')] == ['waiting', 'waiting']


def test_sigterm_is_passed_on(sweep_file, tmp_path):
    """Also where SIGINT is ignored, as it is in a shell's background jobs."""
    workdir = tmp_path / 'out'
    many = ('num_steps=10000000', 'eval_every=2000', 'log_every=1000', 'save_every=2000')
    file = sweep_file(**ONE, overrides=many)
    command = [sys.executable, '-m', 'anyshot_jax.sweep', file, f'--workdir={workdir}']
    background = ['sh', '-c', 'trap "" INT; exec "$@"', 'sh', *command]
    with subprocess.Popen(
        background, cwd=ROOT, env={**os.environ, 'PYTHONPATH': str(ROOT)},
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
    assert step in [int(p.name) for p in (trial.runs[0].workdir / 'checkpoints').glob('[0-9]*')]
    [row] = rows(workdir / 'leaderboard.csv')
    assert row['status'] == 'unfinished'


@pytest.mark.skipif(sys.platform != 'linux', reason='a process hears of its parent on Linux only')
def test_sigkill_ends_the_trials(sweep_file, tmp_path):
    """They save and end; the same command would go on from there."""
    many = ('num_steps=10000000', 'eval_every=2000', 'log_every=1000', 'save_every=2000')
    file = sweep_file(**ONE, overrides=many)
    [trial] = made(file, tmp_path / 'out' / 'trials')
    with subprocess.Popen(
        [sys.executable, '-m', 'anyshot_jax.sweep', file, f'--workdir={tmp_path / "out"}'],
        cwd=ROOT, env={**os.environ, 'PYTHONPATH': str(ROOT)}, stdout=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        metrics = trial.runs[0].workdir / 'metrics.jsonl'
        wait_for(lambda: metrics.exists() and metrics.stat().st_size)  # it trains
        assert is_held(trial.runs[0].locks[0])
        process.kill()
    wait_for(lambda: not is_held(trial.runs[0].locks[0]))
    assert 'stopped and saved at step ' in trial.log.read_text()


def test_a_trial_that_still_runs_is_waited_for(sweep_file, tmp_path, capsys):
    [trial] = made(sweep_file(**ONE), tmp_path / 'trials')
    ends = {}
    lock = Lock(trial.runs[0].locks[0], '')
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(local.run, [trial], 1, lambda t, failure: ends.update({t.name: failure}))
        said = lambda: 'waits for another run in its workdir to end' in ''.join(capsys.readouterr())
        try:
            wait_for(said)
            assert not trial.log.exists() and not done.done()
        finally:
            lock.release()
        done.result(timeout=200)
    assert list(ends.values()) == [''] and trial.finished


def test_what_needs_a_training_waits_for_its_end(sweep_file, tmp_path):
    """SIGTERM to the training ends it with 0: what it has half learnt is not evaluated."""
    file = sweep_file(**ONE, overrides=('num_steps=10000000', 'save_every=2000'))
    [trial] = made(file, tmp_path / 'trials')
    config = trial.runs[0].config.copy_and_resolve_references().unlock()
    config.eval_only = True
    overrides = (*trial.runs[0].overrides, 'eval_only=True')
    after = trial.runs[0]._replace(overrides=overrides, config=config)
    trial = trial._replace(runs=(trial.runs[0], after))
    process = local._Process(trial, local.Share({}, frozenset()))
    checkpoints = trial.runs[0].workdir / 'checkpoints'
    wait_for(lambda: checkpoints.exists() and any(p.name == '2000' for p in checkpoints.iterdir()))
    process._popen.terminate()
    wait_for(process.ended)
    assert process.failure() == 'stopped before its end' and not trial.finished
    assert not list(trial.runs[0].workdir.glob('eval-*.json'))


def test_the_machine_is_shared_out():
    part = local._part
    assert [part([0, 1, 2, 3], i, 2) for i in range(2)] == [[0, 2], [1, 3]]
    assert [part([0, 1], i, 3) for i in range(3)] == [[0], [1], [0]]
    assert local._gpus(1, 2, 2)['CUDA_VISIBLE_DEVICES'] == '1'
    two = local._gpus(3, 4, 2)
    assert two == {'CUDA_VISIBLE_DEVICES': '1', 'XLA_PYTHON_CLIENT_MEM_FRACTION': '0.375'}
    [a, b] = local.shares(2, 2)
    cores = os.sched_getaffinity(0)
    assert a.cores | b.cores <= cores and (len(cores) == 1 or not a.cores & b.cores)
    assert len(local.shares(1, 0)) == 1


def test_a_process_has_the_cores_that_it_is_told(python):
    code = 'from anyshot_jax.runtime import start; print(start.cores())'
    assert python('-c', code, PJRT_NPROC='3').stdout == '3\n'


# Ray.


def test_without_ray_the_extra_is_named(python, sweep_file, tmp_path):
    """Hidden, for it may be installed here."""
    code = 'import sys; sys.modules["ray"] = None\nfrom anyshot_jax.sweep.command import cli; cli()'
    done = python('-c', code, sweep_file(**ONE), f'--workdir={tmp_path / "out"}', '--engine=ray')
    assert done.returncode == 2 and "pip install 'anyshot-jax[sweep]'" in done.stderr
    assert not (tmp_path / 'out').exists()


def test_an_address_that_does_not_answer(python, sweep_file, tmp_path):
    pytest.importorskip('ray', exc_type=ImportError)
    from anyshot_jax.sweep import on_ray

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
        on_ray.check_cluster('ray://a:1')


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


def test_ray_starts_a_killed_worker_again_from_its_checkpoint(sweep_file, tmp_path, cluster):
    workdir = tmp_path / 'out'
    steps = ('num_steps=8000', 'eval_every=1000', 'log_every=500', 'save_every=500')
    file = sweep_file(fields={'optim.learning_rate': (0.01, 0.02)}, overrides=steps)
    every = made(file, workdir / 'trials')
    args = ('-m', 'anyshot_jax.sweep', file, f'--workdir={workdir}', '--engine=ray')
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
    begun = [
        line.split() for line in victim.log.read_text().splitlines() if line.startswith('process ')
    ]
    [before, after] = [(int(words[1]), int(words[-1])) for words in begun]
    assert before == (pid, 0) and after[0] != pid and after[1] >= 2000
    assert [r['status'] for r in rows(workdir / 'leaderboard.csv')] == ['finished', 'finished']


def test_asha_stops_a_trial_that_is_worse_than_those_before(python, sweep_file, tmp_path, cluster):
    """The others ended in an earlier call: what they reached at the rung still counts."""
    file = sweep_file(
        fields={'optim.learning_rate': (0.01, 0.02, 0.03, 1e30)}, overrides=('data.noise=9.0',),
        search='asha', grace_steps=4, reduction_factor=2,
    )  # fmt: skip
    every = made(file, tmp_path / 'out' / 'trials')
    for trial in every[:2]:
        finish(trial, {4: 0.99, 8: 0.99}, 0.99)
    command = ('-m', 'anyshot_jax.sweep', file, f'--workdir={tmp_path / "out"}', '--engine=ray')
    done = python(*command, f'--address={cluster}')
    assert done.returncode == 1, done.stderr
    assert f'{every[2].name}: stopped' in done.stdout
    assert f'{every[3].name}: failed: ' in done.stdout and 'Try a lower' in done.stderr
    *_, third, last = rows(tmp_path / 'out' / 'leaderboard.csv')
    assert (third['trial'], third['status'], third['step']) == (every[2].name, 'stopped', '4')
    assert (last['trial'], last['status']) == (every[3].name, 'failed')
    assert json.loads(every[2].stopped.read_text()) == {'step': 4} and not every[2].finished
