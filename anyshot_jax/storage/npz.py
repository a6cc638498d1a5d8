"""Reading .npz files that may be foreign, damaged or hostile: no pickle, sizes checked first."""

import lzma
import zipfile
import zlib
from pathlib import Path

import numpy as np

from anyshot_jax.types import Array, InputError

DAMAGED = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


def read_npz(path: Path, max_bytes: int, only: tuple[str, ...] = ()) -> dict[str, Array]:
    """The arrays of an npz file by name, all of them or those in `only` that are there.

    Args:
      max_bytes: refused when the unpacked arrays need more (a small file can unpack to a huge one).
    Raises:
      InputError: not an npz, damaged, too large, or an array of Python objects; names file and key.
    """
    arrays = {}
    key = ''
    try:
        with zipfile.ZipFile(path) as z:
            infos = [i for i in z.infolist() if not only or i.filename.removesuffix('.npy') in only]
            total = sum(i.file_size for i in infos)
        if total > max_bytes:
            raise InputError(
                f'{path} unpacks to {total:,} bytes, more than the {max_bytes:,} allowed '
                '(config.data.max_bytes, where the dataset has it)'
            )
        with np.load(path, allow_pickle=False) as z:
            for key in [k for k in z.files if not only or k in only]:
                arrays[key] = z[key]
                if not isinstance(arrays[key], np.ndarray):  # numpy hands out the bytes
                    raise ValueError('not an array')
    except InputError:
        raise
    except DAMAGED as e:
        what = f', array {key!r}' if key else ''
        if 'allow_pickle' in str(e):
            raise InputError(
                f'{path}{what} holds Python objects, which are never loaded: '
                'save plain number or string arrays'
            ) from e
        raise InputError(f'{path}{what} is not a whole npz file: {e}') from e
    return arrays
