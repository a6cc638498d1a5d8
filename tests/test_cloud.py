"""A workdir on a real S3 server (moto's), over the loopback device."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parent.parent
RECIPE = """
from anyshot_jax.config import defaults

def get_config(arg=''):
    config = defaults('protonet' if arg else 'knn', 'synthetic', 'mlp' if arg else '')
    config.data.update({'kind': 'features', 'dim': 6, 'per_class': (6, 9)})
    config.update({'num_steps': 40 if arg else 0, 'steps_per_call': 2, 'batch_size': 2})
    config.train.update({'ways': 3, 'queries': 2} if arg else {})
    config.update({'log_every': 10, 'eval_every': 20, 'save_every': 20})
    config.eval.update({'tasks': ((3, 1),), 'queries': 3, 'episodes': 20, 'val_episodes': 10})
    return config
"""


@pytest.fixture
def s3():
    """The environment of a client whose bucket is empty."""
    pytest.importorskip('moto', reason="pip install 'moto[server]'")
    pytest.importorskip('s3fs')
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, '-m', 'moto.server', '-H', '127.0.0.1', '-p', str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    at, until = f'http://127.0.0.1:{port}', time.monotonic() + 120
    env = {
        **os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]),
        'AWS_ACCESS_KEY_ID': 'a', 'AWS_SECRET_ACCESS_KEY': 'b', 'AWS_DEFAULT_REGION': 'us-east-1',
        'AWS_EC2_METADATA_DISABLED': 'true', 'FSSPEC_S3_ENDPOINT_URL': at,
    }  # fmt: skip
    with server:
        while not answers(port):
            assert time.monotonic() < until and server.poll() is None
            time.sleep(0.2)
        python(env, '-c', 'import fsspec; fsspec.filesystem("s3").mkdir("bucket")')
        yield env
        server.kill()


def answers(port):
    with socket.socket() as s:
        return not s.connect_ex(('127.0.0.1', port))


def python(env, *args):
    return subprocess.run([sys.executable, *args], env=env, capture_output=True, text=True)


def test_a_run_and_its_second_call(s3, tmp_path):
    recipe = tmp_path / 'recipe.py'
    recipe.write_text(RECIPE)
    call = ('-m', 'anyshot_jax.main', f'--config={recipe}')
    local = python(s3, *call, f'--workdir={tmp_path / "run"}')
    there = [python(s3, *call, '--workdir=s3://bucket/run') for _ in range(2)]
    assert [local.returncode, *(t.returncode for t in there)] == [0, 0, 0], there[0].stderr
    assert 'is finished' in there[1].stdout and 'nothing keeps two runs apart' in there[0].stderr
    read = 'import fsspec; print(fsspec.filesystem("s3").cat("bucket/run/result.json").decode())'
    values = json.loads(python(s3, '-c', read).stdout)['values']
    assert values == json.loads((tmp_path / 'run' / 'result.json').read_text())['values']
    # Orbax has no checkpoints there, which is said before any step.
    trained = python(s3, *call[:-1], f'{call[-1]}:trained', '--workdir=s3://bucket/trained')
    assert trained.returncode == 2 and 'error: --workdir=s3://bucket/trained: ' in trained.stderr
