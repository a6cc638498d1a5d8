"""Reading .npz files that may be foreign, damaged or hostile: no pickle, sizes checked first."""

import math
import zipfile
from pathlib import Path
from typing import IO

from numpy.lib import format as npy

from anyshot_jax.types import Array, InputError


def read_npz(path: Path, max_bytes: int, only: tuple[str, ...] = ()) -> dict[str, Array]:
    """The arrays of an npz file by name, all of them or those in `only` that are there.

    Nothing is made before every header agrees with the size of its array in the file.

    Args:
      max_bytes: refused when the unpacked arrays need more (a small file can unpack to a huge one).
    Raises:
      InputError: not an npz, damaged, too large, or an array of Python objects; names file and key.
    """
    arrays = {}
    key = ''
    try:
        if not path.is_file():
            raise ValueError('there is no such file')
        with zipfile.ZipFile(path) as z:
            named = [(i.filename.removesuffix('.npy'), i) for i in z.infolist()]
            infos = {key: info for key, info in named if not only or key in only}
            total = sum(i.file_size for i in infos.values())
            if total > max_bytes:
                raise InputError(
                    f'{path} unpacks to {total:,} bytes, more than the {max_bytes:,} allowed '
                    '(config.data.max_bytes, where the dataset has it)'
                )
            for key, info in infos.items():  # noqa: B007 (named where one is refused)
                with z.open(info) as f:
                    _check_header(f, info.file_size)
            for key, info in infos.items():
                with z.open(info) as f:
                    arrays[key] = npy.read_array(f, allow_pickle=False)
    except InputError:
        raise
    except Exception as e:  # zipfile and numpy raise a dozen kinds for what is no npz
        what = f', array {key[:100]!r}' if key else ''
        if isinstance(e, _Objects):
            raise InputError(
                f'{path}{what} holds Python objects, which are never loaded: '
                'save plain number or string arrays'
            ) from e
        why = ' '.join(str(e).split())[:300] or type(e).__name__
        raise InputError(f'{path}{what} is not a whole npz file: {why}') from e
    return arrays


class _Objects(ValueError):
    """An array of Python objects."""


def _check_header(f: IO[bytes], size: int) -> None:
    """Raises ValueError unless what the header says takes exactly the `size` bytes of the file."""
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(f)
    if version not in readers:
        raise ValueError(f'an array of format {version}')
    shape, _, dtype = readers[version](f)
    if dtype.hasobject:
        raise _Objects
    if dtype.fields or not dtype.itemsize:  # texts of no width would make any shape fit
        raise ValueError(f'items of type {dtype}, which is none of numbers or texts')
    if min(shape, default=0) < 0 or f.tell() + math.prod(shape) * dtype.itemsize != size:
        raise ValueError(f'{size:,} bytes for items {dtype} {shape}')
