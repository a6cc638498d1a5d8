"""The command line as a user meets it, in processes of its own."""

import json

import pytest

CONFIG = """
from anyshot_jax.config import defaults

def get_config(arg=''):
    config = defaults('protonet', 'synthetic', 'mlp')
    config.data.update(dict(kind='features', dim=6, num_classes=(6, 4, 4)))
    config.net.hidden = (8,)
    config.update(dict(num_steps=4, steps_per_call=2, log_every=2, eval_every=4, save_every=2))
    config.batch_size = 2
    config.train.update(dict(ways=3, queries=3))
    config.eval.update(dict(tasks=((3, 1),), queries=3, episodes=20, val_episodes=10))
    return config
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(CONFIG)
    return path


def refused(done, *words):
    """Exit code 2 and one line that says what to do, no traceback."""
    assert done.returncode == 2, done.stderr
    assert 'Traceback' not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith('error: ')
    for word in words:
        assert word in done.stderr, done.stderr


def test_a_run_from_flags_to_report(python, config, tmp_path):
    workdir = tmp_path / 'run'
    flags = (f'--config={config}', '--config.seed=3', f'--workdir={workdir}')
    check = (
        'import sys; from anyshot_jax.main import cli\n'
        'try: cli()\n'
        "finally: print('tensorflow' in sys.modules, file=sys.stderr)"
    )
    done = python('-c', check, *flags)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().endswith('False'), 'TensorFlow was imported'
    assert f'report: {workdir / "report.html"}' in done.stdout
    header, _, row = done.stdout.splitlines()[:3]
    assert header.split() == ['ways', 'shots', 'accuracy', '%', '95', '%', 'CI', 'episodes']
    result = json.loads((workdir / 'result.json').read_text())
    value = result['values']['3-way 1-shot']
    assert row.split() == [
        '3', '1', f'{100 * value["mean"]:.2f}', f'+-{100 * value["ci95"]:.2f}', '20',
    ]  # fmt: skip
    assert result['seed'] == 3
    assert (workdir / 'report.html').stat().st_size > 1000


def test_bad_flags(python, config, tmp_path):
    main = ('-m', 'anyshot_jax.main')
    refused(python(*main), '--config', 'configs/quickstart.py')
    refused(python(*main, '--config=no/such.py'), 'no/such.py')
    given = f'--config={config}'
    refused(python(*main, given, '--config.num_step=3'), "'num_step'", "'num_steps'")
    refused(python(*main, given, '--config.num_steps=many'), 'num_steps')
    refused(python(*main, given, 'num_steps=3'), 'num_steps=3')
    broken = tmp_path / 'broken.py'
    broken.write_text('def get_config(:\n')
    refused(python(*main, f'--config={broken}'), 'broken.py')
    misspelt = tmp_path / 'misspelt.py'
    misspelt.write_text(CONFIG.replace('batch_size', 'batchsize'))
    refused(python(*main, f'--config={misspelt}'), "'batchsize'", "'batch_size'")
    file = tmp_path / 'file'
    file.write_text('')
    refused(python(*main, given, f'--workdir={file}'), str(file))
