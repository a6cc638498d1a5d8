"""Two processes that train one model, started by Slurm; `.ci/slurm` sets up one of one node."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
import tiny_sweep

pytestmark = pytest.mark.slow


def test_srun_makes_two_processes_one(tmp_path):
    if not shutil.which('srun') or subprocess.run(['sinfo'], capture_output=True).returncode:
        pytest.skip('no Slurm answers on this machine')
    (tmp_path / 'recipe.py').write_text(tiny_sweep.CONFIG)
    job = ['-m', 'anyshot_jax.main', f'--config={tmp_path / "recipe.py"}']
    done = subprocess.run(
        ['srun', '--ntasks=2', '--chdir', str(tiny_sweep.ROOT), sys.executable, *job,
         f'--workdir={tmp_path / "run"}'],
        env={**os.environ, 'XLA_FLAGS': '', 'PYTHONPATH': str(tiny_sweep.ROOT)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('report: ') == 1  # the second process is silent
    result = json.loads((tmp_path / 'run' / 'result.json').read_text())
    assert result['num_devices'] == 2
    until = time.monotonic() + 120  # Slurm takes a while to see that both have ended
    while left := subprocess.run(['squeue', '--noheader'], capture_output=True, text=True).stdout:
        assert time.monotonic() < until, left
        time.sleep(0.5)
