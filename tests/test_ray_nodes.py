"""A sweep on a Ray cluster of two nodes, of which one is killed midway."""

import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import tiny_sweep
from tiny_sweep import ROOT, made, rows

from anyshot_jax.storage.lock import Lock

pytestmark = pytest.mark.slow
ray = pytest.importorskip('ray', exc_type=ImportError)
MINUTES = 5 * 60  # a busy machine starts Ray's many processes in one or two
NODES = """
import sys
from ray.cluster_utils import Cluster

node = {'num_cpus': 1, 'object_store_memory': 80_000_000}
cluster = Cluster(True, head_node_args=node)
second = cluster.add_node(**node)
cluster.wait_for_nodes()
[raylet] = second.all_processes['raylet']
print(cluster.address, raylet.process.pid, flush=True)
sys.stdin.readline()
cluster.remove_node(second, allow_graceful=False)
print('killed', flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def begun(trial):
    """(pid, first step) of each process that ran it."""
    text = trial.log.read_text() if trial.log.exists() else ''
    found = re.findall(r'^process (\d+) goes on from step (\d+)$', text, re.MULTILINE)
    return [(int(pid), int(step)) for pid, step in found]


def parent(pid):
    try:
        return int(re.search(r'PPid:\s+(\d+)', Path(f'/proc/{pid}/status').read_text())[1])
    except OSError:  # it has ended
        return 0


def saved(workdir):
    """The last step that is whole, and the digest of its state."""
    steps = [int(p.name) for p in workdir.glob('checkpoints/*') if p.name.isdigit()]
    if not steps:
        return 0, ''
    text = (workdir / f'checkpoints/{max(steps)}/progress/metadata').read_text()
    return max(steps), json.loads(text)['digest']


@pytest.mark.skipif(sys.platform != 'linux', reason='whose process it is is read from /proc')
def test_a_sweep_outlives_a_node(tmp_path, python):
    """A trial on each; that of the killed node goes on, on the other, and ends with its bits."""
    workdir = tmp_path / 'out'
    steps = ('num_steps=8000', 'eval_every=1000', 'log_every=500', 'save_every=500')
    file = tiny_sweep.write(tmp_path, fields={'optim.learning_rate': (0.01, 0.02)}, overrides=steps)
    every = made(file, workdir / 'trials')
    env = {**os.environ, 'RAY_USAGE_STATS_ENABLED': '0', 'PYTHONPATH': str(ROOT)}
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True, 'env': env}
    with subprocess.Popen(
        [sys.executable, '-c', NODES], stderr=subprocess.DEVNULL, **pipes
    ) as nodes:
        address, raylet = nodes.stdout.readline().split()
        command = ['-m', 'anyshot_jax.sweep', file, f'--workdir={workdir}', '--engine=ray']
        with subprocess.Popen(
            [sys.executable, *map(str, command), f'--address={address}'],
            cwd=ROOT, stderr=subprocess.PIPE, **pipes,
        ) as sweep:  # fmt: skip
            until = time.monotonic() + MINUTES
            victim = None
            while not (victim and saved(victim.runs[0].workdir)[0]):
                assert time.monotonic() < until and sweep.poll() is None, 'no trial on the node'
                of_node = [t for t in every for pid, _ in begun(t) if parent(pid) == int(raylet)]
                victim = of_node[0] if of_node else None
                time.sleep(0.05)
            nodes.stdin.write('\n')
            nodes.stdin.flush()
            assert nodes.stdout.readline() == 'killed\n'
            _, err = sweep.communicate(timeout=MINUTES)
        nodes.communicate()
    assert sweep.returncode == 0, err
    assert f'{victim.name}: its worker died or failed; Tune starts it again' in err
    [other] = [t for t in every if t is not victim]
    assert len(begun(other)) == 1  # it was not disturbed
    [(_, first), (_, again)] = begun(victim)
    assert first == 0 and again >= 500
    assert [r['status'] for r in rows(workdir / 'leaderboard.csv')] == ['finished', 'finished']
    alone = victim.runs[0]._replace(workdir=tmp_path / 'alone')
    done = python(*alone.command, PJRT_NPROC='1')
    assert done.returncode == 0, done.stderr
    assert saved(alone.workdir) == saved(victim.runs[0].workdir) != (0, '')
    values = lambda run: json.loads((run.workdir / 'result.json').read_text())['values']
    assert values(alone) == values(victim.runs[0])


def test_a_worker_of_a_lost_node_is_waited_for(tmp_path, capsys, monkeypatch):
    from anyshot_jax.sweep import on_ray

    lock = Lock(tmp_path / '.lock', '')
    monkeypatch.setattr(on_ray, 'LAST_SAVE', 0)
    on_ray.wait_for([tmp_path / '.lock'])  # not for ever
    assert 'waits for another run' in capsys.readouterr().out
    monkeypatch.setattr(on_ray, 'LAST_SAVE', 60)
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(on_ray.wait_for, [tmp_path / '.lock', tmp_path / 'none'])
        time.sleep(0.2)
        assert not done.done()
        lock.release()
        done.result(timeout=60)
