"""Checkpoints that were tampered with: themselves, the ones before, or InputError, and soon."""

import contextlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from anyshot_jax.training import checkpoint
from anyshot_jax.types import InputError

pytestmark = pytest.mark.usefixtures('swept')

START = {'w': np.zeros((2, 3), np.float32), 'step': np.array(0)}
STATES = {  # by step
    6: {'w': np.ones((2, 3), np.float32), 'step': np.array(6)},
    7: {'w': np.arange(6, dtype=np.float32).reshape(2, 3), 'step': np.array(7)},
}


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
    """The folder of the checkpoints 6 and 7."""
    folder = tmp_path_factory.mktemp('checkpoints')
    with contextlib.closing(checkpoint.open_manager(folder, keep=2)) as manager:
        for step, state in STATES.items():
            checkpoint.save(manager, step, state, {'seconds': step / 2})
    return folder


def restored(folder, start=START):
    with contextlib.closing(checkpoint.open_manager(folder, keep=2)) as manager:
        return checkpoint.restore_or_init(manager, start, reads_only=True)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path):
    path.write_bytes(b'')


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def garbage(path):
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def too_deep(path):
    path.write_bytes(b'[' * 100_000)


def missing(path):
    path.unlink()


def replaced_by_a_folder(path):
    path.unlink()
    path.mkdir()


def link(path, target):
    path.unlink()
    path.symlink_to(target)


def link_to_itself(path):
    link(path, path)


def link_to_a_text(path):
    link(path, Path(__file__))


DAMAGES = [cut, emptied, flipped, garbage, too_deep, missing, replaced_by_a_folder,
           link_to_itself, link_to_a_text]  # fmt: skip


def files_of(folder):
    """Those of the newest checkpoint, which is the last folder."""
    newest = max(folder.iterdir(), key=lambda p: int(p.name))
    return sorted(p.relative_to(folder) for p in newest.rglob('*') if p.is_file())


@pytest.mark.parametrize('damage', DAMAGES)
def test_it_is_itself_the_one_before_or_refused(saved, tmp_path, damage):
    """Each of Orbax's files in turn; no file that holds arrays or progress passes unnoticed."""
    steps = []
    for i, name in enumerate(files_of(saved)):
        shutil.copytree(saved, tmp_path / str(i))
        damage(tmp_path / str(i) / name)
        with contextlib.suppress(InputError):
            state, progress = restored(tmp_path / str(i))
            steps.append(int(state['step']))
            np.testing.assert_array_equal(state['w'], STATES[steps[-1]]['w'])
            assert progress == {'seconds': steps[-1] / 2}
    assert {6, 7} == set(steps)


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def link_to_a_device(path):
    link(path, '/dev/zero')


def link_to_a_folder(path):
    link(path, path.parent.parent)


def of_gigabytes(path):
    with path.open('r+b') as f:
        f.truncate(4 << 30)  # no disk has to hold them


@pytest.mark.parametrize('damage', [pipe, link_to_a_device, link_to_a_folder])
def test_nothing_is_waited_for(saved, tmp_path, damage):
    for i, name in enumerate(files_of(saved)):
        shutil.copytree(saved, tmp_path / str(i))
        damage(tmp_path / str(i) / name)
        with pytest.raises(InputError, match=rf'{name} is no file but a pipe'):
            restored(tmp_path / str(i))


@pytest.mark.parametrize(
    'name', ['_CHECKPOINT_METADATA', 'progress/metadata', 'state/_METADATA', 'state/manifest.ocdbt']
)
def test_what_is_read_whole_is_small(saved, tmp_path, name):
    shutil.copytree(saved, tmp_path / 'a')
    of_gigabytes(tmp_path / 'a' / '7' / name)
    with pytest.raises(InputError, match=rf'{name} is larger than 10,000,000 bytes'):
        restored(tmp_path / 'a')


def test_what_orbax_cannot_open_is_named(saved, tmp_path):
    shutil.copytree(saved, tmp_path / 'a')
    too_deep(tmp_path / 'a' / '7' / '_CHECKPOINT_METADATA')
    with pytest.raises(InputError, match=r'/a cannot be used \(.*\): restore or remove it'):
        restored(tmp_path / 'a')


def test_arrays_of_other_shapes_are_not_unpacked(tmp_path, monkeypatch):
    """Zeros take a thousandth of their bytes on the disk."""
    with contextlib.closing(checkpoint.open_manager(tmp_path, keep=2)) as manager:
        checkpoint.save(manager, 7, {'w': np.zeros((2000, 3), np.float32), 'step': np.array(7)}, {})
    read = []
    monkeypatch.setattr(checkpoint.ocp.CheckpointManager, 'restore', lambda *a, **k: read.append(a))
    state, progress = restored(tmp_path)
    assert state is START and not progress and not read
