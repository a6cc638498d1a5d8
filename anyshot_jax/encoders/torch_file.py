"""The tensors of a PyTorch file, without PyTorch and without unpickling.

A .pth file is a pickle, which is a program, beside blocks of bytes. The few instructions that a
state dict needs are carried out here by an interpreter that can build tuples, lists,
dictionaries and descriptions of tensors, and nothing else: no name in the file is ever imported or
called. Both forms are read: the zip (torch >= 1.6) and the one before it.
"""

import io
import math
import pickle
import pickletools
import reprlib
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from anyshot_jax.types import InputError

_DTYPES = {
    'DoubleStorage': np.dtype('<f8'),
    'FloatStorage': np.dtype('<f4'),
    'HalfStorage': np.dtype('<f2'),
    'BFloat16Storage': np.dtype(jnp.bfloat16),
    'LongStorage': np.dtype('<i8'),
    'IntStorage': np.dtype('<i4'),
    'ShortStorage': np.dtype('<i2'),
    'CharStorage': np.dtype('i1'),
    'ByteStorage': np.dtype('u1'),
    'BoolStorage': np.dtype('?'),
}
_DICT, _TENSOR = 'collections OrderedDict', 'torch._utils _rebuild_tensor_v2'
_Bytes = bytes | memoryview
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # what torch < 1.6 writes first, as a pickled integer
_MAX_STEPS = 1_000_000  # instructions of a pickle; each tensor takes some forty
_MAX_BYTES = 16 << 30  # of a file that is read as a whole
_MAX_DIMS = 64  # numpy's


class _Name(NamedTuple):
    """A global that the pickle names."""

    name: str


class _Storage(NamedTuple):
    """A block of `numel` numbers."""

    dtype: np.dtype
    key: str
    numel: int


class _Tensor(NamedTuple):
    """A view of a block; offset and stride count numbers."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a saved state dict by name.

    Args:
      path: a file that `torch.save(model.state_dict(), path)` wrote, by any version of torch.
    Returns:
      Read-only views of the file's blocks (names that share a block share memory), bfloat16 as
      `ml_dtypes.bfloat16`.
    Raises:
      InputError: not such a file, damaged, or with anything but named tensors; names the file.
    """
    try:
        with path.open('rb') as f:
            if f.read(4) == b'PK\x03\x04':
                tree, block = _read_zip(f, path.stat().st_size)
            else:
                f.seek(0)
                if f.read(1) != pickle.PROTO or path.stat().st_size > _MAX_BYTES:
                    raise ValueError('it does not start as a PyTorch file does, or is too large')
                f.seek(0)
                tree, block = _read_legacy(f.read())
        if not isinstance(tree, dict):
            raise ValueError(f'it holds a {type(tree).__name__}, not tensors by name')
        for name, value in tree.items():
            if not isinstance(value, _Tensor):
                kind = type(value).__name__
                what = reprlib.repr(name)
                raise ValueError(f'{what} is a {kind}, not a tensor; save the state dict alone')
        return {name: _view(name, value, block) for name, value in tree.items()}
    except Exception as e:  # a pickle that makes no sense runs into anything
        why = ' '.join(str(e).split())[:300] or type(e).__name__
        raise InputError(f'{path} is not a whole PyTorch file of tensors: {why}') from e


def _read_zip(f: IO[bytes], size: int) -> tuple[Any, Callable[[_Storage], _Bytes]]:
    with zipfile.ZipFile(f) as z:
        infos = {i.filename: i for i in z.infolist()}
        # torch never compresses. So what is unpacked can't be more than the file.
        packed = [i.filename for i in infos.values() if i.compress_type != zipfile.ZIP_STORED]
        if packed or sum(i.file_size for i in infos.values()) > size:
            raise ValueError(f'a compressed or overlapping member {(packed or [""])[0]!r}')
        roots = [n.removesuffix('data.pkl') for n in infos if n.endswith('/data.pkl')]
        if len(roots) != 1:
            raise ValueError('no data.pkl inside, or several')
        root = roots[0]
        if root + 'constants.pkl' in infos:
            raise ValueError('a TorchScript program; save its state dict')
        order = root + 'byteorder'
        if order in infos and z.read(order) != b'little':
            raise ValueError('written on a big-endian machine')
        tree = _run(io.BytesIO(z.read(root + 'data.pkl')))
        prefix = root + 'data/'
        blocks = {n.removeprefix(prefix): z.read(n) for n in infos if n.startswith(prefix)}
    return tree, lambda storage: blocks[storage.key]


def _read_legacy(data: bytes) -> tuple[Any, Callable[[_Storage], _Bytes]]:
    """Pickles of magic, version, machine, tree and block order, then the blocks themselves."""
    f = io.BytesIO(data)
    if _run(f) != _LEGACY_MAGIC or _run(f) != 1001:
        raise ValueError('it does not start as a PyTorch file does')
    if _run(f).get('little_endian') is not True:
        raise ValueError('written on a big-endian machine')
    storages: dict[str, _Storage] = {}
    tree, keys = _run(f, storages), _run(f)
    # Before any is looked up: the hash of a tuple may take for ever.
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError('its list of blocks is none of names')
    blocks: dict[str, _Bytes] = {}
    end = f.tell()
    for key in keys:
        dtype, _, numel = storages[key]
        (found,) = struct.unpack_from('<q', data, end)
        if found != numel:
            raise ValueError(f'block {key} has {found} numbers, not {numel}')
        start, end = end + 8, end + 8 + numel * dtype.itemsize
        blocks[key] = memoryview(data)[start:end]
    return tree, lambda storage: blocks[storage.key]


def _view(name: str, t: _Tensor, block: Callable[[_Storage], _Bytes]) -> np.ndarray:
    what = reprlib.repr(name)
    raw, (dtype, key, numel) = block(t.storage), t.storage
    if len(raw) != numel * dtype.itemsize:
        raise ValueError(f'block {key} has {len(raw)} bytes, not {numel} of {dtype} (cut short?)')
    last = t.offset + sum((n - 1) * s for n, s in zip(t.size, t.stride, strict=True))
    if min(t.offset, *t.size, *t.stride, 0) < 0 or (last >= numel and 0 not in t.size):
        raise ValueError(f'tensor {what} {t.size} reaches outside its block of {numel}')
    if math.prod(t.size) > numel:  # a few bytes must not stand for a huge array
        raise ValueError(f'tensor {what} {t.size} repeats its {numel} numbers; save a copy of it')
    strides = tuple(
        s * dtype.itemsize if n > 1 else 0 for n, s in zip(t.size, t.stride, strict=True)
    )
    if 0 in t.size:
        return np.empty(t.size, dtype)
    flat = np.frombuffer(raw, dtype)[t.offset :]
    return np.lib.stride_tricks.as_strided(flat, t.size, strides, writeable=False)


def _run(f: io.BytesIO, storages: dict[str, _Storage] | None = None) -> Any:
    """Reads the pickle at the position of f; f ends behind it. `storages` is filled by key.

    f is in memory, since a file would set aside as many bytes as the pickle asks for.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    for step, (op, arg, _) in enumerate(pickletools.genops(f)):  # it only parses
        if step == _MAX_STEPS:
            raise ValueError(f'more than {_MAX_STEPS:,} instructions')
        match op.name:
            case 'PROTO':
                pass
            case 'MARK':
                marks.append(len(stack))
            case 'NONE' | 'NEWTRUE' | 'NEWFALSE':
                stack.append({'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}[op.name])
            case 'BININT' | 'BININT1' | 'BININT2' | 'LONG1' | 'BINFLOAT' | 'BINUNICODE':
                stack.append(arg)
            case 'EMPTY_DICT' | 'EMPTY_LIST' | 'EMPTY_TUPLE':
                stack.append(
                    {'EMPTY_DICT': dict, 'EMPTY_LIST': list, 'EMPTY_TUPLE': tuple}[op.name]()
                )
            case 'TUPLE':
                stack.append(tuple(since_mark()))
            case 'TUPLE1' | 'TUPLE2' | 'TUPLE3':
                n = int(op.name[-1])
                stack[-n:] = [(*stack[-n:],)]
            case 'APPEND':
                _list(stack[-2]).append(stack.pop())
            case 'APPENDS':
                items = since_mark()
                _list(stack[-1]).extend(items)
            case 'SETITEM':
                value, key = stack.pop(), stack.pop()
                _set_items(stack[-1], [key, value])
            case 'SETITEMS':
                items = since_mark()
                _set_items(stack[-1], items)
            case 'BINPUT' | 'LONG_BINPUT':
                memo[arg] = stack[-1]
            case 'BINGET' | 'LONG_BINGET':
                stack.append(memo[arg])
            case 'GLOBAL':
                stack.append(_global(str(arg)))
            case 'REDUCE':
                args, function = stack.pop(), stack.pop()
                stack.append(_reduce(function, args))
            case 'BUILD':  # attributes, such as the versions of modules
                stack.pop()
                if not isinstance(stack[-1], dict):
                    raise ValueError('it sets attributes of something that is no dictionary')
            case 'BINPERSID':
                storage = _storage(stack.pop())
                if storages is not None:
                    storages[storage.key] = storage
                stack.append(storage)
            case 'STOP':
                return stack.pop()
            case name:
                raise ValueError(f'the instruction {name} is not one that a state dict needs')
    raise ValueError('it ends too early')


def _list(value: Any) -> list:
    if not isinstance(value, list):
        raise ValueError(f'it appends to a {type(value).__name__}')
    return value


def _set_items(target: Any, items: list) -> None:
    if not isinstance(target, dict) or len(items) % 2:
        raise ValueError(f'it sets items of a {type(target).__name__}')
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(key, str):
            raise ValueError(f'a key is a {type(key).__name__}, not a name')
        target[key] = value


def _global(name: str) -> _Name | np.dtype:
    module, _, what = name.partition(' ')
    if module == 'torch' and what in _DTYPES:
        return _DTYPES[what]
    if name in (_DICT, _TENSOR):
        return _Name(name)
    raise ValueError(f'it asks for {module}.{what}, which is never run; save tensors only')


def _reduce(function: Any, args: Any) -> Any:
    if function == _Name(_DICT) and args == ():
        return {}
    if function != _Name(_TENSOR) or not isinstance(args, tuple) or len(args) < 4:
        raise ValueError('it calls something with arguments that a state dict does not have')
    storage, offset, size, stride = args[:4]
    for sizes in (size, stride):
        whole = isinstance(sizes, tuple) and len(sizes) <= _MAX_DIMS
        if not whole or not all(type(n) is int for n in sizes):
            raise ValueError('a tensor whose shape is not made of integers')
    if not isinstance(storage, _Storage) or type(offset) is not int or len(size) != len(stride):
        raise ValueError('a tensor without a block of numbers')
    return _Tensor(storage, offset, size, stride)


def _storage(pid: Any) -> _Storage:
    match pid:
        case ('storage', np.dtype() as dtype, str(key), str(), int(numel), *rest) if (
            rest in ([], [None]) and numel >= 0
        ):
            return _Storage(dtype, key, numel)
    raise ValueError('a block of numbers that is not described as torch does')
