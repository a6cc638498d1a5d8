"""python -m anyshot_jax.main, as a user calls it."""

import json
from pathlib import Path

import pytest

import anyshot_jax
from anyshot_jax.config import recipe_file

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent

QUICK = 'configs/quickstart.py'
TINY = """
from anyshot_jax.config import defaults

def get_config(arg=''):
    config = defaults(method='protonet', data='synthetic', net='mlp')
    config.data.update({'kind': 'features', 'dim': 6, 'per_class': (6, 9)})
    config.net.update({'hidden': (8,), 'features': 6})
    config.update({'num_steps': 4, 'batch_size': 2, 'steps_per_call': 2})
    config.update({'log_every': 2, 'eval_every': 2, 'save_every': 2})
    config.train.update({'ways': 3, 'queries': 2})
    config.eval.update({'tasks': ((3, 1),), 'queries': 3, 'episodes': 20, 'val_episodes': 10})
    if arg:
        config.seed = int(arg)
    return config
"""


@pytest.fixture
def tiny(tmp_path):
    file = tmp_path / 'tiny.py'
    file.write_text(TINY)
    return file


def config_file(tmp_path, body):
    file = tmp_path / 'mine.py'
    file.write_text(f'from anyshot_jax.config import defaults\n\ndef get_config(arg=""):\n{body}')
    return f'--config={file}'


def failing(python, *args):
    """The one line on stderr of a call that must end with code 2."""
    done = python('-m', 'anyshot_jax.main', *args)
    assert done.returncode == 2, done.stderr
    assert 'Traceback' not in done.stderr and done.stdout == ''
    [line] = done.stderr.strip().splitlines()
    assert line.startswith('error: ')
    return line


def test_a_run_by_flags_and_without_tensorflow(python, tiny, tmp_path):
    """From the file and a variant of it to the report; TensorFlow is not even imported."""
    workdir = tmp_path / 'run'
    code = (
        'import sys; from anyshot_jax.main import cli\n'
        'try: cli()\n'
        'except SystemExit as e: assert not e.code, e.code\n'
        'print("TF:", [m for m in sys.modules if m.split(".")[0] in ("tensorflow", "tf_keras")])'
    )
    flags = ('--config.optim.learning_rate=0.5', '--config.eval.tasks=((3, 1), (4, 2))')
    done = python('-c', code, f'--config={tiny}:7', f'--workdir={workdir}', *flags)
    assert done.returncode == 0, done.stderr
    assert 'TF: []' in done.stdout
    assert f'report: {workdir}/report.html' in done.stdout
    assert [line.split()[:2] for line in done.stdout.splitlines()][2:4] == [['3', '1'], ['4', '2']]
    config = json.loads((workdir / 'config.json').read_text())
    assert config['seed'] == 7 and config['optim']['learning_rate'] == 0.5
    assert 'Traceback' not in done.stderr and 'Warning' not in done.stderr


def test_no_config(python):
    assert 'error: --config=<file> is missing; configs/quickstart.py' in failing(python)


def test_no_such_file(python):
    line = failing(python, '--config=configs/quickstrat.py')
    assert 'configs/quickstrat.py' in line


def test_stray_argument(python):
    assert "unexpected argument 'fast'; options are written --config.field=value" in failing(
        python, f'--config={QUICK}', 'fast'
    )


@pytest.mark.parametrize(
    ('flag', 'words'),
    [
        ('--config.num_step=5', ["no field 'num_step'; did you mean 'num_steps'?"]),
        ('--config.optim.lerning_rate=5', ["'lerning_rate'; did you mean 'learning_rate'?"]),
        ('--config.optin.name=sgd', ["'optin'; did you mean 'optim'?"]),
        ('--config.num_steps=many', ['--config.num_steps needs a whole number', 'many']),
        ('--config.optim.clip_norm=a b', ['--config.optim.clip_norm needs a number', 'a b']),
        ('--config.eval.tasks=5-way', ['tasks', '5-way']),
        ('--config.eval_only=perhaps', ['eval_only needs True or False', 'perhaps']),
        ('--wrokdir=x', ['wrokdir', 'workdir']),
    ],
)
def test_wrong_flags(python, flag, words):
    line = failing(python, f'--config={QUICK}', flag)
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ('body', 'words'),
    [
        ('    return defaults("protonet" "glyphs"\n', ['mine.py', 'never closed']),
        ('    return 1 / 0\n', ['division by zero']),
        ('    import not_there\n', ["No module named 'not_there'"]),
        ('    return defaults("protonte", "glyphs", "conv4")\n', ["did you mean 'protonet'?"]),
        ('    c = defaults("knn", "glyphs")\n    c.optim.lerning_rate = 1.0\n    return c\n',
         ["'lerning_rate'; did you mean 'learning_rate'?"]),
        ('    c = defaults("knn", "glyphs")\n    c.num_steps = "all"\n    return c\n',
         ['num_steps']),
        ('    c = defaults("knn", "glyphs").unlock()\n    c.evall = 1\n    return c\n',
         ["unknown field config.evall; did you mean 'eval'?"]),
        ('    return None\n', ['config']),
    ],
    ids=lambda p: p.strip()[:40] if isinstance(p, str) else '',
)  # fmt: skip
def test_wrong_config_files(python, tmp_path, body, words):
    line = failing(python, config_file(tmp_path, body), f'--workdir={tmp_path}/run')
    assert all(word in line for word in words), line


def test_config_without_get_config(python, tmp_path):
    (tmp_path / 'mine.py').write_text('CONFIG = 1\n')
    assert 'get_config' in failing(python, f'--config={tmp_path}/mine.py')


def test_help_names_the_flags(python):
    done = python('-m', 'anyshot_jax.main', '--help')
    assert '--workdir' in done.stdout and 'Traceback' not in done.stderr


OWN = """
from anyshot_jax.config import defaults, in_stages, variant

def get_config(arg=''):
    variant(arg, 'small', 'large')
    first = defaults(method='knn', data='features')
    second = defaults(method='protonet', data='features', net='conv4')
    second.num_steps = 7
    return in_stages(first=first, second=second)
"""


def test_help_of_a_recipe(python, tmp_path):
    """Every field with type, value and the source's comment; of a later stage what is another."""
    (tmp_path / 'mine.py').write_text(OWN)
    done = python('-m', 'anyshot_jax.main', f'--config={tmp_path}/mine.py', '--help')
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == 'Variants of mine: --config=mine:small, --config=mine:large'
    for line in (
        '  first.num_steps (int) = 1000',
        '  second.num_steps (int) = 7',
        "  first.optim.name (str) = 'adam'  # adam | adamw | sgd",
        # of a dict in another module; above its line; of a net's class
        '  first.data.split_seed (int) = 0  # which classes these are',
        '  first.fit_tasks (bool) = False  # True: ways, shots and queries become what the classes '
        'allow, where that is less, and a line says so; False: they are refused.',
        "  second.net.compute_dtype (str) = ''  # bfloat16 (for accelerators); '': float32, or the "
        "input's",
    ):
        assert line in lines, line
    assert not any('second.optim.name' in line for line in lines)


def test_a_shipped_recipe_by_its_name(python, tmp_path):
    """From any folder, as installed: a name or a path, and the nearest name where there is none."""
    assert recipe_file(QUICK) == QUICK
    assert Path(recipe_file('quickstart')).read_text() == Path(ROOT, QUICK).read_text()
    assert recipe_file('omniglot_maml:fomaml').endswith('omniglot_maml.py:fomaml')
    line = failing(python, '--config=quikstart')
    assert "there is no recipe quikstart; did you mean 'quickstart'?" in line
    line = failing(python, f'--config={tmp_path}/configs/quickstart.py')
    assert '--config=quickstart is the one that the package ships' in line


def test_commands_by_name(python):
    done = python('-m', 'anyshot_jax', 'trian')
    assert (done.returncode, done.stdout) == (2, '') and "did you mean 'train'?" in done.stderr
    done = python('-m', 'anyshot_jax', 'train')
    assert done.returncode == 2 and '--config=<file> is missing' in done.stderr
    assert python('-m', 'anyshot_jax', '--version').stdout.strip() == anyshot_jax.__version__
