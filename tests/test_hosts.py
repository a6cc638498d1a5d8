"""Several processes that train one model, really started, over the loopback device."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import workdirs

from anyshot_jax.training import processes
from anyshot_jax.types import InputError

pytestmark = [pytest.mark.usefixtures('swept'), pytest.mark.slow]


@pytest.fixture
def recipe(tiny_config, tmp_path):
    """A config and its file; SGD, so that what is summed shows in the parameters."""
    config = tiny_config(num_steps=40, eval_every=10, batch_size=4)
    return config, workdirs.recipe(tmp_path / 'recipe.py', config)


def start(file, workdir, *flags, devices=1):
    xla = os.environ['XLA_FLAGS'].replace('device_count=2', f'device_count={devices}')
    command = [sys.executable, '-m', 'anyshot_jax.main', f'--config={file}', *flags]
    return subprocess.Popen(
        [*command, f'--workdir={workdir}'],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, 'XLA_FLAGS': xla},
    )  # fmt: skip


def two(file, workdir, *flags):
    """Two processes of one device each."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    joined = (f'--coordinator=127.0.0.1:{port}', '--num_processes=2', *flags)
    return [start(file, workdir, *joined, f'--process_id={i}') for i in (0, 1)]


def ended(*processes):
    """[(exit code, stdout, stderr)]."""
    found = [p.communicate(timeout=300) for p in processes]
    return [(p.returncode, *out) for p, out in zip(processes, found, strict=True)]


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    """A function: the workdir of a recipe run by one process with two devices."""
    done = []

    def once(file):
        if not done:
            workdir = tmp_path_factory.mktemp('alone') / 'run'
            [(code, _, err)] = ended(start(file, workdir, devices=2))
            assert code == 0, err
            done.append(workdir)
        return done[0]

    return once


def assert_near(got, want, config):
    states = workdirs.state_in(got, config), workdirs.state_in(want, config)
    assert int(states[0].step[0]) == int(states[1].step[0]) == 40
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), *states)


def test_two_processes_are_one_with_two_devices(recipe, alone, tmp_path):
    config, file = recipe
    (first, second) = ended(*two(file, tmp_path / 'two'))
    assert first[0] == second[0] == 0, first[2] + second[2]
    assert 'report:' in first[1] and 'report:' not in second[1]
    both = (tmp_path / 'two', alone(file))
    assert_near(*both, config)
    results = [json.loads((w / 'result.json').read_text()) for w in both]
    assert results[0]['values'] == results[1]['values']
    assert [r['num_devices'] for r in results] == [2, 2]
    logged = [(w / 'metrics.jsonl').read_text().splitlines() for w in both]
    steps = [[json.loads(line)['step'] for line in lines] for lines in logged]
    assert steps[0] == steps[1]
    parts = {p.name for p in (tmp_path / 'two' / 'checkpoints' / '40' / 'state').iterdir()}
    assert {'ocdbt.process_0', 'ocdbt.process_1'} <= parts  # each has written


def test_one_goes_on_where_two_were_stopped(recipe, alone, tmp_path):
    """SIGTERM to one of the two saves and ends both; one process with one device finishes."""
    config, file = recipe
    workdir = tmp_path / 'stopped'
    both = two(file, workdir)
    while not list((workdir / 'checkpoints').glob('[0-9]*')):
        assert both[0].poll() is None and both[1].poll() is None, ended(*both)
        time.sleep(0.01)
    both[1].send_signal(signal.SIGTERM)
    found = ended(*both)
    assert [code for code, *_ in found] == [0, 0], found
    assert 'stopped and saved at step' in found[0][1] and 'stopped' not in found[1][1]
    assert not (workdir / 'result.json').exists()
    at = max(int(p.name) for p in (workdir / 'checkpoints').glob('[0-9]*'))
    assert at < 40
    [(code, _, err)] = ended(start(file, workdir))
    assert code == 0, err
    assert_near(workdir, alone(file), config)


def test_what_one_refuses_ends_all(recipe, tmp_path):
    _, file = recipe
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        joined = (f'--coordinator=127.0.0.1:{s.getsockname()[1]}', '--num_processes=2')
    differ = lambda i: (*joined, f'--process_id={i}', f'--config.seed={i}')
    found = ended(*(start(file, tmp_path / 'differ', *differ(i)) for i in (0, 1)))
    assert [code for code, *_ in found] == [2, 2]
    assert all('were given different flags' in err for *_, err in found)
    assert not (tmp_path / 'differ').exists()
    (tmp_path / 'taken').mkdir()
    (tmp_path / 'taken' / 'config.json').write_text('{')
    found = ended(*two(file, tmp_path / 'taken'))
    assert [code for code, *_ in found] == [2, 2]
    for _, _, err in found:
        assert 'error: ' in err and 'config.json is damaged' in err


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (('here', 2, 0), 'must be HOST:PORT'),
        (('here:first', 2, 0), 'must be HOST:PORT'),
        (('here:1', 0, -1), 'needs --num_processes and --process_id'),
        (('here:1', 2, 2), 'from 0 on, got 2 and 2'),
        (('', 2, -1), 'need --coordinator'),
        (('', 0, 0), 'need --coordinator'),
    ],
)
def test_flags_that_do_not_fit(given, message):
    with pytest.raises(InputError, match=message):
        processes.join(*given)


def test_nobody_answers(monkeypatch):
    monkeypatch.setattr(processes, 'PATIENCE', 0.1)
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))  # nobody else takes it, and it doesn't listen
        address = f'127.0.0.1:{s.getsockname()[1]}'
        with pytest.raises(InputError, match=f'answers at --coordinator={address}'):
            processes.join(address, 2, 1)


JOIN = """
import sys
from anyshot_jax.training import processes
processes.join(sys.argv[1], 2, int(sys.argv[2]))
print('joined', flush=True)
sys.stdin.read()
"""


def listening(port):
    """Addresses, as Linux writes them, at which this machine listens on a port."""
    lines = [
        line.split()
        for name in ('tcp', 'tcp6')
        for line in Path(f'/proc/net/{name}').read_text().splitlines()[1:]
    ]
    ends = [(*line[1].split(':'), line[3]) for line in lines]
    return [address for address, at, state in ends if state == '0A' and int(at, 16) == port]


@pytest.mark.skipif(sys.platform != 'linux', reason='what listens is read from /proc')
def test_the_coordinator_listens_nowhere_else():
    with socket.socket() as s:
        s.bind(('127.0.0.2', 0))
        port = s.getsockname()[1]
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
    call = [sys.executable, '-c', JOIN, f'127.0.0.2:{port}']
    both = [subprocess.Popen([*call, str(i)], **pipes) for i in (0, 1)]
    try:
        assert [p.stdout.readline() for p in both] == ['joined\n'] * 2
        [address] = listening(port)
        assert address in ('0200007F', f'{"FFFF0000":0>24}0200007F')  # the second: ::ffff:127.0.0.2
    finally:
        for p in both:  # each waits for the other's end
            p.stdin.close()
        for p in both:
            p.wait(60)
            p.stdout.close()


def test_alone_nothing_changes(monkeypatch):
    """Neither the environment of an sbatch script nor that of one TPU makes a cluster."""
    monkeypatch.setenv('SLURM_STEP_NUM_TASKS', '1')
    monkeypatch.setenv('SLURM_NTASKS', '8')
    monkeypatch.setenv('TPU_WORKER_HOSTNAMES', 'localhost')
    processes.join('', 0, -1)
    assert not jax.distributed.is_initialized()
    tree = {'a': np.arange(3)}
    assert processes.to_global(tree) is tree and processes.to_local(tree) is tree
    assert processes.any_process(True) and not processes.any_process(False)
    with pytest.raises(InputError, match='no'):
        processes.on_process_0(lambda: (_ for _ in ()).throw(InputError('no')))
    assert processes.on_process_0(lambda: 3) == 3


def test_clusters_are_found():
    assert processes.in_a_cluster({'SLURM_STEP_NUM_TASKS': '2'})
    assert processes.in_a_cluster({'TPU_WORKER_HOSTNAMES': 'a,b'})
    assert not processes.in_a_cluster({})
