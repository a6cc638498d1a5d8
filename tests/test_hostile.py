"""Mutations of good files of every kind: nothing but InputError, in bounded time and memory."""

import contextlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import mutations
import numpy as np
import pytest
import tiny_sweep
from PIL import Image

from anyshot_jax.classify.feature_store import FeatureStore
from anyshot_jax.data.readers.images import read_image
from anyshot_jax.encoders.torch_file import read_torch
from anyshot_jax.storage.npz import read_npz
from anyshot_jax.training import checkpoint, loop, workdir
from anyshot_jax.types import InputError

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name('hostile_files.py')
MEGABYTES = 600  # that the process may grow by: the largest file that is read has some kilobytes


def fuzz(seconds: float, seed: int) -> dict[str, int]:
    """How many files of each kind were read, in a process of its own: its memory is theirs."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), f'--seconds={seconds}', f'--seed={seed}'],
        env={**os.environ, 'PYTHONPATH': str(SCRIPT.parent.parent)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-5000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found['megabytes'] < MEGABYTES
    return found['files']


@pytest.mark.skipif(sys.platform != 'linux', reason='the memory is read from /proc')
def test_seconds_of_mutations():
    pytest.importorskip('safetensors')
    assert min(fuzz(8, seed=0).values()) >= 2


@pytest.mark.skipif(sys.platform != 'linux', reason='the memory is read from /proc')
def test_a_minute_of_mutations():
    """Or as long as ANYSHOT_FUZZ_SECONDS says."""
    pytest.importorskip('safetensors')
    seconds = int(os.environ.get('ANYSHOT_FUZZ_SECONDS', '60'))
    assert min(fuzz(seconds, seed=1).values()) >= 20


def npz_of(path: Path, header: str, content: bytes = b'') -> Path:
    """One array whose header is what it says."""
    text = header.encode() + b' ' * (-(len(header) + 11) % 64) + b'\n'
    with zipfile.ZipFile(path, 'w') as z:
        z.writestr('a.npy', b'\x93NUMPY\x01\x00' + len(text).to_bytes(2, 'little') + text + content)
    return path


@pytest.mark.parametrize(
    ('descr', 'shape', 'content'),
    [
        ("'<U0'", '(300000000,)', b''),
        ("'V0'", '(10000000000,)', b''),
        ("[('a', '<f4', (0,))]", '(10000000000,)', b''),
        ("'<f8'", '(300000000,)', b''),
        ("'<f8'", '(2,)', b'\0' * 8),
        ("'<f8'", '(-1,)', b'\0' * 8),
        ("'<f8'", '(4294967296, 4294967296, 4)', b''),
        ("'|O'", '(1,)', b''),
        ("'<M8'", "(1,), 'more': 1", b'\0' * 8),
        ("''", '(1,)', b''),
        ("'<U999999999999'", '(0,)', b''),
    ],
)
def test_headers_that_lie(tmp_path, descr, shape, content):
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    with pytest.raises(InputError, match=r"a\.npz, array 'a'"):
        read_npz(npz_of(tmp_path / 'a.npz', text, content), 10**9)


@pytest.mark.parametrize('code', [0x110000, 0xFFFFFFFF, 0xD800])
@pytest.mark.parametrize('order', '<>')
def test_texts_that_are_no_unicode(tmp_path, code, order):
    text = f"{{'descr': '{order}U1', 'fortran_order': False, 'shape': (1,), }}"
    content = np.array([code], f'{order}u4').tobytes()
    with pytest.raises(InputError, match='no Unicode'):
        read_npz(npz_of(tmp_path / 'a.npz', text, content), 10**9)


def test_no_file_of_another_kind_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'a.npz')
    with pytest.raises(InputError, match='not a whole npz'):
        read_npz(tmp_path / 'a.npz', 10**9)


def test_good_arrays_of_every_kind_come_back(tmp_path):
    arrays = {
        'f': np.arange(6.0).reshape(2, 3).T, 'u': np.array(['a', 'bcd']), 'b': np.array([True]),
        'empty': np.zeros((0, 5), np.int32), 'one': np.array(3, np.uint8),
    }  # fmt: skip
    np.savez_compressed(tmp_path / 'a.npz', **arrays)
    for name, a in read_npz(tmp_path / 'a.npz', 10**6).items():
        np.testing.assert_array_equal(a, arrays[name])
        assert a.dtype == arrays[name].dtype


@pytest.mark.parametrize(
    'keys',
    [b'])' + b'q\x00h\x00\x86' * 60 + b'a.', b'])' + b'\x85' * 100_000 + b'a.', b'}.', b'K\x01.'],
)
def test_keys_of_an_old_torch_file_are_names(tmp_path, keys):
    heads = (0x1950A86A20F9469CFC6C, 1001, {'little_endian': True})
    content = b''.join(pickle.dumps(h, 2) for h in heads) + b'\x80\x02}.\x80\x02' + keys
    (tmp_path / 'a.pth').write_bytes(content)
    with pytest.raises(InputError, match='none of names'):
        read_torch(tmp_path / 'a.pth')


def test_a_pickle_of_braces_is_no_state_dict(tmp_path):
    (tmp_path / 'a.pth').write_bytes(b'\x80\x02' + b'}' * 20_000_000 + b'.')
    with pytest.raises(InputError, match='1,000,000 instructions'):
        read_torch(tmp_path / 'a.pth')


def tampered(folder: Path, rng: np.random.Generator) -> None:
    """One file below the folder, of those with content, is mutated."""
    inside = sorted(p for p in folder.rglob('*') if p.is_file() and p.stat().st_size)
    path = inside[rng.integers(len(inside))]
    path.write_bytes(mutations.mutated(path.read_bytes(), rng))


def test_a_checkpoint_is_itself_or_none(tmp_path):
    """Whatever was done to Orbax's files: the states that were saved, or those of the start."""
    state = {'w': np.arange(6, dtype=np.float32).reshape(2, 3), 'step': np.array(7)}
    start = {'w': np.zeros((2, 3), np.float32), 'step': np.array(0)}
    with contextlib.closing(checkpoint.open_manager(tmp_path / 'whole', keep=1)) as manager:
        checkpoint.save(manager, 7, state, {'seconds': 1.5})
    used = 0
    for seed in range(12):
        folder = tmp_path / str(seed) / 'checkpoints'
        shutil.copytree(tmp_path / 'whole', folder)
        tampered(folder, np.random.default_rng(seed))
        with contextlib.closing(checkpoint.open_manager(folder, keep=1)) as manager:
            found, progress = checkpoint.restore_or_init(manager, start)
        used += bool(progress)
        wanted = state if progress else start
        np.testing.assert_array_equal(found['w'], wanted['w'])
        assert int(found['step']) == int(wanted['step'])
    assert 0 < used < 12, used


def test_a_damaged_best_state_is_not_replaced_by_another(tmp_path):
    """Nor is anything in a run's folder moved by who only reads it."""
    made: dict = {}
    exec(tiny_sweep.CONFIG, made)
    loop.run(made['get_config'](), tmp_path)
    assert int(workdir.load(tmp_path).state.step) == 4  # the newest is of step 8
    [damaged] = tmp_path.glob('best/4/state/_METADATA')
    damaged.write_bytes(b'')
    before = sorted(tmp_path.rglob('*'))
    for _ in range(2):
        with pytest.raises(InputError, match='best is damaged: restore it, or train again'):
            workdir.load(tmp_path)
    assert sorted(tmp_path.rglob('*')) == before


def test_a_config_of_a_far_larger_net_is_refused_before_it_is_made(tmp_path):
    made: dict = {}
    exec(tiny_sweep.CONFIG, made)
    loop.run(made['get_config'](), tmp_path)
    path = tmp_path / 'config.json'
    config = json.loads(path.read_text())
    config['net']['hidden'] = [10**7]
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match=r'best is damaged.*config\.json is another run'):
        workdir.load(tmp_path)


def test_stored_features_are_right_or_made_again(tmp_path, monkeypatch):
    """Whatever was done to a shard, each image has the features that it had."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    for i in range(6):
        Image.new('RGB', (4, 4), (i, 9, 9)).save(tmp_path / f'{i}.png')
    paths = sorted(tmp_path.glob('*.png'))
    read = lambda content, name, *_: read_image(content, 4, 3, 1000, name)
    embed = lambda x: x.astype(np.float32).mean((1, 2))
    for seed in range(40):
        store = FeatureStore('mean', 'abc', 3, read, embed)
        [chunk] = store.chunks(paths)
        np.testing.assert_array_equal(chunk.features[:, 0], np.arange(6))
        assert not chunk.errors
        tampered(store.folder, np.random.default_rng(seed))
