"""A sweep on a Ray cluster of two nodes, of which one is killed midway."""

import os
import subprocess
import sys
import time

import pytest
import tiny_sweep
from tiny_sweep import ROOT, made, rows

pytestmark = pytest.mark.slow
NODES = """
import sys
from ray.cluster_utils import Cluster

node = {'num_cpus': 1, 'object_store_memory': 80_000_000}
cluster = Cluster(True, head_node_args=node)
second = cluster.add_node(**node)
cluster.wait_for_nodes()
print(cluster.address, flush=True)
sys.stdin.readline()
cluster.remove_node(second, allow_graceful=False)
print('killed', flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def test_a_sweep_outlives_a_node(tmp_path):
    """A trial on each; that of the killed node goes on, on the other, from its checkpoint."""
    pytest.importorskip('ray', exc_type=ImportError)
    workdir = tmp_path / 'out'
    steps = ('num_steps=8000', 'eval_every=1000', 'log_every=500', 'save_every=500')
    file = tiny_sweep.write(tmp_path, fields={'optim.learning_rate': (0.01, 0.02)}, overrides=steps)
    every = made(file, workdir / 'trials')
    env = {**os.environ, 'RAY_USAGE_STATS_ENABLED': '0', 'PYTHONPATH': str(ROOT)}
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True, 'env': env}
    saved = lambda trial: list(trial.runs[0].workdir.glob('checkpoints/[0-9]*'))
    with subprocess.Popen(
        [sys.executable, '-c', NODES], stderr=subprocess.DEVNULL, **pipes
    ) as nodes:
        address = nodes.stdout.readline().strip()
        command = ['-m', 'anyshot_jax.sweep', file, f'--workdir={workdir}', '--engine=ray']
        with subprocess.Popen(
            [sys.executable, *map(str, command), f'--address={address}'],
            cwd=ROOT, stderr=subprocess.PIPE, **pipes,
        ) as sweep:  # fmt: skip
            until = time.monotonic() + 120
            while not all(map(saved, every)):
                assert time.monotonic() < until and sweep.poll() is None, 'no trial on each node'
                time.sleep(0.05)
            nodes.stdin.write('\n')
            nodes.stdin.flush()
            assert nodes.stdout.readline() == 'killed\n'
            _, err = sweep.communicate(timeout=240)
        nodes.communicate()
    assert sweep.returncode == 0, err
    assert 'its worker died or failed; Tune starts it again' in err
    begun = [[x for x in t.log.read_text().splitlines() if x.startswith('process ')] for t in every]
    assert sorted(map(len, begun)) == [1, 2]  # the other was not disturbed
    [again] = [int(lines[1].split()[-1]) for lines in begun if len(lines) == 2]
    assert again >= 500
    assert [r['status'] for r in rows(workdir / 'leaderboard.csv')] == ['finished', 'finished']
