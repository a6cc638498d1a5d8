"""Mutations of good files of every kind: nothing but InputError, in bounded time and memory."""

import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from anyshot_jax.encoders.torch_file import read_torch
from anyshot_jax.storage.npz import read_npz
from anyshot_jax.types import InputError

SCRIPT = Path(__file__).with_name('hostile_files.py')
SECONDS = int(os.environ.get('ANYSHOT_FUZZ_SECONDS', '60'))  # 600 for a long one


def fuzz(seconds: float, seed: int) -> dict:
    """A process of its own: its memory is that of the files alone."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), f'--seconds={seconds}', f'--seed={seed}'],
        env={**os.environ, 'PYTHONPATH': str(SCRIPT.parent.parent)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-5000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(sys.platform != 'linux', reason='the memory is read from /proc')
def test_a_few_seconds_of_mutations():
    pytest.importorskip('safetensors')
    counts = fuzz(3, seed=0)['files']
    assert len(counts) == 16 and min(counts.values()) >= 2


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='the memory is read from /proc')
def test_a_minute_of_mutations():
    pytest.importorskip('safetensors')
    assert min(fuzz(SECONDS, seed=1)['files'].values()) >= 20


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
