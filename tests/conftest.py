"""What every test runs under: two fake devices, strict shapes, warnings as errors, own cache."""

import atexit
import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# One scratch folder for the whole session, xdist's workers and subprocesses included.
if 'ANYSHOT_TEST_SCRATCH' not in os.environ:
    os.environ['ANYSHOT_TEST_SCRATCH'] = tempfile.mkdtemp(prefix='anyshot-tests-')
    atexit.register(shutil.rmtree, os.environ['ANYSHOT_TEST_SCRATCH'], ignore_errors=True)
SCRATCH = Path(os.environ['ANYSHOT_TEST_SCRATCH'])

# By environment variables, so that subprocesses run under the same; before JAX is imported.
os.environ.update(
    # These programs are too small to run long: level 0 compiles them four times faster, and the
    # older code for fused loops almost twice as fast again.
    XLA_FLAGS=' '.join(
        [
            '--xla_force_host_platform_device_count=2',
            '--xla_backend_optimization_level=0',
            *(['--xla_cpu_use_fusion_emitters=false'] if version('jaxlib') < '0.11' else []),
        ]
    ),
    JAX_PLATFORMS='cpu',
    JAX_NUMPY_RANK_PROMOTION='raise',
    # Compiled programs are kept for the session. A worker has its own: JAX's writes aren't atomic.
    JAX_COMPILATION_CACHE_DIR=str(SCRATCH / os.environ.get('PYTEST_XDIST_WORKER', 'main') / 'jax'),
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS='0',
    XDG_CACHE_HOME=str(SCRATCH / 'cache'),
    MPLBACKEND='Agg',
)
sys.path.insert(0, str(ROOT))

from hypothesis import settings  # noqa: E402

# The same examples every time, none kept on disk, and no time limit for one that compiles.
settings.register_profile('suite', deadline=None, derandomize=True, database=None)
settings.load_profile('suite')


def pytest_collection_modifyitems(items):
    # The longest file first, so that no process is left with it at the end.
    items.sort(key=lambda item: item.path.name != 'test_weakshot.py')


def pytest_sessionfinish(session):
    """In CI (ANYSHOT_ALLOWED_SKIPS: files of patterns) every skip has to be on a list.

    What needs a package, weights or data that CI has must not stop running unnoticed.
    """
    lists = os.environ.get('ANYSHOT_ALLOWED_SKIPS', '').split()
    reporter = session.config.pluginmanager.getplugin('terminalreporter')
    if not lists or reporter is None or hasattr(session.config, 'workerinput'):
        return
    lines = [line for file in lists for line in (ROOT / file).read_text().splitlines()]
    allowed = [re.compile(line) for line in lines if line and not line.startswith('#')]
    for report in reporter.stats.get('skipped', []):
        reason = str(report.longrepr[2]).removeprefix('Skipped: ')
        skip = f'{report.nodeid.split("[")[0].removeprefix("tests/")}: {reason}'
        if not any(pattern.fullmatch(skip) for pattern in allowed):
            reporter.write_line(f'\nnot on the list of allowed skips: {skip}', red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_configure(config):
    config.addinivalue_line('filterwarnings', 'error')
    # Where a checkpoint can't be read, Orbax drops coroutines that complain when collected.
    noise = '(?s)Exception ignored in.*(Event loop is closed|error while reading array index)'
    config.addinivalue_line(
        'filterwarnings', f'ignore:{noise}:pytest.PytestUnraisableExceptionWarning'
    )
    never = "coroutine '_read_array_index_and_device_put' was never awaited"
    config.addinivalue_line('filterwarnings', f'ignore:{never}:RuntimeWarning')


@pytest.fixture(scope='module', autouse=True)
def programs_freed():
    """Lets go of a file's compiled programs.

    Each takes several memory maps, of which Linux gives a process 65,530: beyond that it crashes.
    """
    yield
    import jax

    jax.clear_caches()


@pytest.fixture
def swept():
    """Collects what Orbax dropped while the exception above holds, and not after the session."""
    yield
    gc.collect()


@pytest.fixture(scope='session')
def data_dir() -> Path:
    """The folder of real data sets, or the test is skipped."""
    path = Path(os.environ.get('ANYSHOT_DATA_DIR') or ROOT.parent / 'shared' / 'data')
    if not path.is_dir():
        pytest.skip(f'no real data at {path}; set ANYSHOT_DATA_DIR to a folder that has them')
    return path


@pytest.fixture(scope='session')
def tiny_config():
    """A function: a complete config of a run that takes seconds, on features or tiny images."""
    from ml_collections import ConfigDict

    from anyshot_jax.config import defaults

    def make(method: str = 'protonet', net: str = 'mlp', **fields) -> ConfigDict:
        """`fields` are assigned last; 'a__b' stands for config.a.b."""
        config = defaults(method, 'synthetic', net)
        config.data.update({'num_classes': (6, 4, 4), 'per_class': (6, 9), 'noise': 0.8})
        config.data.update({'kind': 'features', 'dim': 6} if net in ('', 'mlp') else {'size': 16})
        if net == 'mlp':
            config.net.update({'hidden': (8,), 'features': 6})
        if net == 'conv4':
            config.net.update({'features': 8, 'blocks': 2, 'pools': (True, True)})
            config.net.padding = ('SAME', 'SAME')
        config.update({'num_steps': 8 if net else 0, 'batch_size': 2, 'steps_per_call': 2})
        config.update({'log_every': 2, 'eval_every': 4, 'save_every': 2})
        config.train.update({'ways': 3, 'shots': 1, 'queries': 2})
        config.eval.update({'tasks': ((3, 1),), 'queries': 3, 'episodes': 20, 'val_episodes': 10})
        config.optim.name = 'sgd'
        config.optim.learning_rate = 0.05
        for name, value in fields.items():
            *path, last = name.split('__')
            section = config
            for part in path:
                section = section[part]
            section[last] = value
        return config

    return make


@pytest.fixture(scope='session')
def python():
    """A function: runs Python in a process of its own, in the repository's root."""

    def run(*args, timeout: float = 120, **env) -> subprocess.CompletedProcess:
        env = {**os.environ, 'PYTHONPATH': str(ROOT), **env}
        return subprocess.run(
            [sys.executable, *map(str, args)],
            cwd=ROOT, env=env, capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip

    return run
