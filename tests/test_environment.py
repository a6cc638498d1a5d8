"""Variables of the environment that can't be, and names that would do something to a terminal."""

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from anyshot_jax import AnomalyDetector, AnyShotClassifier, encoders
from anyshot_jax.data.readers.locate import find_dir
from anyshot_jax.predict.answers import Answer
from anyshot_jax.predict.table import write_rows
from anyshot_jax.runtime import start
from anyshot_jax.storage import files, folders
from anyshot_jax.sweep import command
from anyshot_jax.sweep import run as sweep
from anyshot_jax.training import processes
from anyshot_jax.types import ArgumentError, InputError, printable


@pytest.mark.parametrize('value', ['abc', '0', '-1', '1.5', '²', ' '])
def test_cores(monkeypatch, value):
    monkeypatch.setenv('PJRT_NPROC', value)
    with pytest.raises(InputError, match=r'PJRT_NPROC=.* must be a whole number above 0'):
        start.cores()


@pytest.mark.parametrize('value', ['abc', '-2', '2.0', '²'])
def test_slurm_tasks(value):
    with pytest.raises(InputError, match=r'SLURM_STEP_NUM_TASKS=.* must be a whole number'):
        processes.in_a_cluster({'SLURM_STEP_NUM_TASKS': value})


def test_a_cluster_of_which_only_a_part_is_said(monkeypatch):
    """As in a shell inside an allocation: JAX looks for the other variables."""
    for name in [n for n in os.environ if n.startswith('SLURM_')]:
        monkeypatch.delenv(name)
    monkeypatch.setenv('SLURM_STEP_NUM_TASKS', '2')
    monkeypatch.setenv('SLURM_JOB_ID', '7')
    with pytest.raises(InputError, match=r'one of several processes .* start it by srun'):
        processes.join('', 0, -1)


def test_homes_of_nobody(monkeypatch):
    with pytest.raises(InputError, match=r'~nobody_of_that_name/x: .*write the whole path'):
        folders.user_path('~nobody_of_that_name/x')
    monkeypatch.setenv('ANYSHOT_DATA_DIR', '~nobody_of_that_name/x')
    with pytest.raises(InputError, match='variable ANYSHOT_DATA_DIR=~nobody_of_that_name/x'):
        find_dir('', 'folder', 'images')
    monkeypatch.setenv('ANYSHOT_DATA_DIR', '~/x')
    monkeypatch.setenv('HOME', '/somewhere')
    assert folders.data_root() == Path('/somewhere/x')
    assert files.folder('~/x') == Path('/somewhere/x')
    nobody = pytest.raises(InputError, match=r'~nobody_of_that_name/x: .*write the whole path')
    with nobody:
        files.folder('~nobody_of_that_name/x')
    with nobody:
        sweep.run(command.parse(['~nobody_of_that_name/x']))


@pytest.mark.parametrize('name', ['a' * 5000, 'a/' * 3000, 'a' * 300, 'a\0b'])
def test_names_that_no_file_can_have(name):
    for use in (AnyShotClassifier.load, AnomalyDetector.load, encoders.load, folders.user_path):
        with pytest.raises(InputError, match='name'):
            use(name)


@pytest.mark.parametrize('value', ['~/x', 'x', '../x'])
def test_a_cache_is_not_beside_what_one_works_on(monkeypatch, value):
    monkeypatch.setenv('XDG_CACHE_HOME', value)
    with pytest.raises(InputError, match=f'variable XDG_CACHE_HOME={value} must be an absolute'):
        folders.cache_dir()


def test_every_path_of_a_user_goes_by_one_function():
    package = Path(start.__file__).parent.parent
    users = [f for f in package.rglob('*.py') if 'expanduser' in f.read_text()]
    assert [f.relative_to(package).as_posix() for f in users] == ['storage/folders.py']


EVIL = 'a\x1b[31m\x9b2J\x07\r\u202eb\udcff'
SAFE = r'a\x1b[31m\x9b2J\x07\r\u202eb\udcff'


def test_control_characters_are_written_out():
    assert printable(EVIL) == SAFE and printable('naïve\n\t日本') == 'naïve\n\t日本'
    assert str(InputError(EVIL)) == str(ArgumentError('a', EVIL[1:])) == SAFE


def test_a_command_that_fails_and_warns_writes_them_out(tmp_path):
    code = (
        'from absl import logging\n'
        'from anyshot_jax import command\n'
        'from anyshot_jax.types import InputError\n'
        'def main(argv):\n'
        '    logging.warning("skipped: %s", "w\\x1b[1m")\n'
        '    raise InputError("e\\x1b[2m")\n'
        'command.run(main)\n'
    )
    root = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(
        [sys.executable, '-c', code], env={**os.environ, 'PYTHONPATH': root}, capture_output=True
    )
    assert done.returncode == 2 and b'\x1b' not in done.stderr
    assert rb'w\x1b[1m' in done.stderr and rb'error: e\x1b[2m' in done.stderr


def test_the_table_writes_them_out():
    answer = Answer(*[None] * len(Answer._fields))._replace(
        path=EVIL, label=EVIL, error=f'{EVIL} is damaged'
    )
    out = io.StringIO(newline='')
    write_rows(out, [answer], [])
    [row] = csv.reader(io.StringIO(out.getvalue()))
    assert (row[0], row[8], row[9]) == (SAFE, SAFE, f'{SAFE} is damaged')
