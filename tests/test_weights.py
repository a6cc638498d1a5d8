"""Weights files: safetensors, npz and PyTorch's own, whole, damaged and hostile."""

import builtins
import io
import os
import pickle
import random
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from anyshot_jax.encoders.torch_file import read_torch
from anyshot_jax.encoders.weights import check_names, read_tensors
from anyshot_jax.types import InputError

VALUES = np.arange(6, dtype='<f4').tobytes()


def text(s: str) -> bytes:
    return b'X' + struct.pack('<I', len(s)) + s.encode()


def storage(numel: int = 6, kind: str = 'FloatStorage', key: str = '0') -> bytes:
    kind_name = f'ctorch\n{kind}\n'.encode()
    number = b'J' + struct.pack('<i', numel)
    return b'(' + text('storage') + kind_name + text(key) + text('cpu') + number + b'tQ'


def tensor(size=b'K\x02K\x03\x86', stride=b'K\x03K\x01\x86', offset=b'K\x00', block=b'') -> bytes:
    """The pickle code of one tensor, by the protocol's manual: a call with a tuple of arguments."""
    args = (block or storage()) + offset + size + stride + b'\x89N'
    return b'ctorch._utils\n_rebuild_tensor_v2\n(' + args + b'tR'


def state_dict(value: bytes) -> bytes:
    return b'\x80\x02}' + text('w') + value + b's.'


def zipped(path: Path, code: bytes, blocks=(VALUES,), **more) -> Path:
    with zipfile.ZipFile(path, 'w', more.pop('compression', zipfile.ZIP_STORED)) as z:
        z.writestr('archive/data.pkl', code)
        for i, block in enumerate(blocks):
            z.writestr(f'archive/data/{i}', block)
        for name, value in more.items():
            z.writestr(f'archive/{name.replace("_", ".")}', value)
    return path


def legacy(path: Path, code: bytes, blocks=(VALUES,), numel: int = 6) -> Path:
    magic = 0x1950A86A20F9469CFC6C
    machine = {'protocol_version': 1001, 'little_endian': True, 'type_sizes': {'int': 4}}
    heads = b''.join(pickle.dumps(x, 2) for x in (magic, 1001, machine))
    keys = pickle.dumps([str(i) for i in range(len(blocks))], 2)
    parts = b''.join(struct.pack('<q', numel) + b for b in blocks)
    path.write_bytes(heads + code + keys + parts)
    return path


@pytest.mark.parametrize('write', [zipped, legacy])
def test_handmade_torch_file(tmp_path, write):
    code = b'\x80\x02ccollections\nOrderedDict\n)Rq\x00(' + text('w') + tensor()
    turned = tensor(size=b'K\x03K\x01\x86', stride=b'K\x01K\x03\x86', offset=b'K\x03')
    code += text('part') + turned + text('w2') + tensor() + b'u}' + text('_metadata') + b'}sb.'
    found = read_tensors(write(tmp_path / 'a.pth', code))
    assert list(found) == ['w', 'part', 'w2']
    np.testing.assert_array_equal(found['w'], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(found['part'], [[3], [4], [5]])
    assert found['w'].dtype == np.float32


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


RAN = []


@pytest.mark.parametrize('write', [zipped, legacy])
@pytest.mark.parametrize('protocol', [0, 2, 4])
@pytest.mark.parametrize('function', [os.system, builtins.eval, builtins.getattr, RAN.append])
def test_calls_are_refused(tmp_path, write, protocol, function):
    evil = pickle.dumps({'w': Calls(function, "RAN.append('it ran')")}, protocol)
    path = write(tmp_path / 'evil.pth', evil)
    with pytest.raises(InputError, match=r'evil\.pth'):
        read_tensors(path)
    assert not RAN


HOSTILE = {
    'dict of odd arguments': b'ccollections\nOrderedDict\n(K\x01K\x02tR',
    'call of a storage type': b'ctorch\nFloatStorage\n(J\xff\xff\xff\x7ftR',
    'call of a tensor': tensor() + b')R',
    'tensor of a dict': b'ctorch._utils\n_rebuild_tensor_v2\n(}K\x00))tR',
    'tensor without arguments': b'ctorch._utils\n_rebuild_tensor_v2\n)R',
    'shape of text': tensor(size=text('ab')),
    'shape of lists': tensor(size=b']]\x86'),
    'an attribute of a class': b'ccollections\nOrderedDict\n}' + text('x') + b'K\x01sb',
    'a module': b'cos\nsystem\n',
    'an attribute path': b'ccollections\nOrderedDict.__init__\n',
    'an extension': b'\x82\x01',
    'instance opcode': b'(ios\nsystem\n',
    'new object': b'ccollections\nOrderedDict\n)\x81',
    'a wider storage id': b'(' + text('module') + b'K\x01tQ',
    'a number as key': b'}K\x01K\x02s',
    'an append to a tuple': b')K\x01a',
    'a far memo': b'h\xff',
    'an empty stack': b'0000',
    'offset beyond': tensor(offset=b'K\x01'),
    'negative offset': tensor(offset=b'J\xff\xff\xff\xff'),
    'negative stride': tensor(stride=b'J\xff\xff\xff\xffK\x01\x86'),
    'negative size': tensor(size=b'J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86'),
    'stride too long': tensor(stride=b'K\x04K\x01\x86'),
    'fewer strides than sizes': tensor(stride=b'K\x01\x85'),
    'repeats': tensor(size=b'M\xff\xffM\xff\xff\x86', stride=b'K\x00K\x00\x86'),
    'more numbers than bytes': tensor(block=storage(7)),
    'wider numbers than bytes': tensor(block=storage(6, 'DoubleStorage')),
    'unknown numbers': tensor(block=storage(6, 'QInt8Storage')),
    'no such block': tensor(block=storage(6, key='../../x')),
    'a plain number': b'K\x01',
    'a dictionary': b'}' + text('w') + tensor() + b's',
}


@pytest.mark.parametrize('write', [zipped, legacy])
@pytest.mark.parametrize('name', HOSTILE)
def test_hostile_torch_file(tmp_path, write, name):
    assert read_tensors(write(tmp_path / 'good.pth', state_dict(tensor())))
    path = write(tmp_path / 'evil.pth', state_dict(HOSTILE[name]))
    with pytest.raises(InputError, match=r'evil\.pth is not a whole PyTorch file of tensors: .+'):
        read_tensors(path)


def test_refusals_say_why(tmp_path):
    def message(code, **more):
        with pytest.raises(InputError) as e:
            read_tensors(zipped(tmp_path / 'a.pth', code, **more))
        return str(e.value)

    assert 'asks for os.system, which is never run' in message(state_dict(b'cos\nsystem\n'))
    assert "'w' is a int, not a tensor; save the state dict alone" in message(state_dict(b'K\x01'))
    assert 'holds a list' in message(b'\x80\x02].')
    good = state_dict(tensor())
    assert 'TorchScript' in message(good, constants_pkl=b'')
    assert 'big-endian' in message(good, byteorder=b'big')
    assert 'compressed' in message(good, compression=zipfile.ZIP_DEFLATED)
    assert 'cut short?' in message(good, blocks=(VALUES[:-1],))
    assert 'no data.pkl' in message(good, **{'x/data_pkl': b''})


@pytest.mark.filterwarnings('ignore:invalid escape sequence')  # pickletools on damaged text
@pytest.mark.parametrize('write', [zipped, legacy])
def test_truncated_and_damaged_torch_file(tmp_path, write):
    whole = write(tmp_path / 'a.pth', state_dict(tensor())).read_bytes()
    path = tmp_path / 'cut.pth'
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r'cut\.pth'):
            read_tensors(path)
    draw = random.Random(0)
    for _ in range(300):  # any damage is either refused or harmless
        bad = bytearray(whole)
        for _ in range(draw.choice((1, 1, 2, 8))):
            bad[draw.randrange(len(bad))] = draw.randrange(256)
        path.write_bytes(bad)
        try:
            assert all(a.nbytes <= 24 for a in read_tensors(path).values())
        except InputError as e:
            assert 'cut.pth' in str(e)


@pytest.mark.originals
def test_torch_writes_we_read(tmp_path):
    torch = pytest.importorskip('torch', reason='compares with torch.load')
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    state = net.state_dict()
    base = torch.randn(5, 6)
    state['turned'], state['part'], state['same'] = base.T, base[1:4, ::2], base
    kinds = ['float64', 'float16', 'bfloat16', 'int64', 'int32', 'int16', 'int8', 'uint8', 'bool']
    for kind in kinds:
        state[kind] = (torch.randn(3, 2) * 9).to(getattr(torch, kind))
    state['empty'], state['scalar'] = torch.zeros(0, 3), torch.tensor(7.0)
    for zipped_form in (True, False):
        path = tmp_path / f'{zipped_form}.pt'
        torch.save(state, path, _use_new_zipfile_serialization=zipped_form)
        found = read_torch(path)
        assert list(found) == list(state)
        for name, want in state.items():
            got = found[name]
            assert str(got.dtype) == str(want.dtype).removeprefix('torch.'), name
            if want.dtype == torch.bfloat16:
                want, got = want.float(), got.astype(np.float32)
            np.testing.assert_array_equal(got, want.numpy(), err_msg=name)
    torch.save({'epoch': 3, 'state_dict': state}, tmp_path / 'b.pt')
    with pytest.raises(InputError, match="'epoch' is a int"):
        read_tensors(tmp_path / 'b.pt')
    torch.save(net, tmp_path / 'c.pt')
    with pytest.raises(InputError, match=r'torch\.nn\.modules\.container\.Sequential'):
        read_tensors(tmp_path / 'c.pt')


def test_safetensors(tmp_path):
    numpy = pytest.importorskip('safetensors.numpy', reason='writes the file')
    path = tmp_path / 'a.safetensors'
    tensors = {'w': np.arange(6, dtype=np.float32).reshape(2, 3), 'n': np.array([7])}
    numpy.save_file(tensors, path)
    found = read_tensors(path)
    assert sorted(found) == ['n', 'w']
    np.testing.assert_array_equal(found['w'], tensors['w'])
    whole = path.read_bytes()
    for length in (0, 4, 20, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r'a\.safetensors is not a whole safetensors file'):
            read_tensors(path)


def test_safetensors_missing(tmp_path, monkeypatch):
    path = tmp_path / 'a.safetensors'
    path.write_bytes(b'')
    for module in ('safetensors', 'safetensors.numpy'):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"pip install 'anyshot-jax\[pretrained\]'"):
        read_tensors(path)


def test_npz(tmp_path):
    path = tmp_path / 'a.npz'
    np.savez(path, w=np.eye(3, dtype=np.float16))
    np.testing.assert_array_equal(read_tensors(path)['w'], np.eye(3))
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(InputError, match=r'a\.npz'):
        read_tensors(path)
    np.savez(path, w=np.array([{}]))
    with pytest.raises(InputError, match=r"a\.npz, array 'w' holds Python objects"):
        read_tensors(path)


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match=r'no weights file at .*none\.pth'):
        read_tensors(tmp_path / 'none.pth')
    (tmp_path / 'a.h5').write_bytes(b'')
    with pytest.raises(InputError, match=r'a\.h5: weights are'):
        read_tensors(tmp_path / 'a.h5')


def test_check_names():
    tensors = {'a': np.zeros((2, 3)), 'b': np.zeros(4), 'b.seen': np.zeros(())}
    wanted = {'a': (2, 3), 'b': (4,)}
    check_names(tensors, wanted, what='Net', ignore=r'.*\.seen')

    def message(tensors, wanted, ignore=''):
        with pytest.raises(InputError) as e:
            check_names(tensors, wanted, what='Net x.pth', ignore=ignore)
        return str(e.value)

    assert message(tensors, wanted) == (
        "Net x.pth: an unexpected 'b.seen'; is it a file of this net?"
    )
    both = message(tensors, {**wanted, 'c': (1,), 'd': (1,)}, ignore='see')
    assert "no tensor 'c' and 1 more, an unexpected 'b.seen'" in both
    wrong = message(tensors, {'a': (3, 2), 'b': (4,)}, r'.*\.seen')
    assert wrong == "Net x.pth: tensor 'a' has shape (2, 3), expected (3, 2)"


def test_nothing_is_imported_for_a_torch_file(tmp_path):
    """A file can't make the reader import a module either."""
    code = state_dict(b'cantigravity\nfly\n')
    with pytest.raises(InputError):
        read_torch(zipped(tmp_path / 'a.pth', code))
    assert 'antigravity' not in sys.modules


def test_two_pickles_in_a_zip(tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, 'w') as z:
        z.writestr('a/data.pkl', state_dict(tensor()))
        z.writestr('b/data.pkl', state_dict(tensor()))
    path = tmp_path / 'two.pth'
    path.write_bytes(out.getvalue())
    with pytest.raises(InputError, match='several'):
        read_torch(path)
