"""Models as .safetensors files: arrays, and JSON in the header. Nothing in them is run."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from anyshot_jax.storage.files import write_bytes
from anyshot_jax.types import Array, InputError

MAX_BYTES = 8 << 30


def check_suffix(path: Path) -> None:
    """Refuses (InputError) a path that is not called like a model."""
    if path.suffix != '.safetensors':
        raise InputError(f'{path}: a model is a .safetensors file')


def write(path: Path, key: str, said: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """The file, whole or not at all.

    Args:
      key: says whose file it is. said: what JSON can keep.
    Raises:
      InputError: another suffix, values that JSON can't keep, or it can't be written.
    """
    from safetensors.numpy import save

    check_suffix(path)
    try:
        header = {key: json.dumps(said, allow_nan=False)}
    except (TypeError, ValueError) as e:
        raise InputError(f'{path}: a parameter or label cannot be kept: {e}') from e
    write_bytes(path, save({k: np.array(v, order='C') for k, v in arrays.items()}, header))


def read(
    path: Path,
    key: str,
    what: str,
    formats: tuple[int, ...],
    restore: Callable[[dict[str, Any], dict[str, Array]], Any],
) -> Any:
    """Reads a file and returns what `restore` makes of its JSON and arrays.

    Args:
      key: as in `write`. what: the name of such a model. formats: values of the JSON's 'format'
        that can be read.
    Raises:
      InputError: no file, damaged, another program's, or as `restore`; names the file.
    """
    from safetensors import safe_open

    if not path.is_file():
        raise InputError(f'no model at {path}')
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f'{path} is larger than any model that is read here')
    try:
        with safe_open(str(path), framework='np') as f:
            said = json.loads((f.metadata() or {}).get(key, 'null'))
            if not isinstance(said, dict):
                raise InputError(f'{path} holds tensors, but no {what} of this package')
            if said.get('format') not in formats:
                raise InputError(
                    f'{path} has format {said.get("format")!r}, this reads '
                    + ', '.join(map(str, formats))
                )
            arrays = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118
        return restore(said, arrays)
    except InputError:
        raise
    except Exception as e:  # whatever hostile bytes lead to, the file is the reason
        raise InputError(f'{path} is damaged, or no model: {type(e).__name__}: {e}') from e


def has(path: Path, key: str) -> bool:
    """True if the header of a .safetensors file has this key."""
    from safetensors import safe_open

    try:
        with safe_open(str(path), framework='np') as f:
            return key in (f.metadata() or {})
    except Exception:  # of whatever is no such file
        return False


def shown(name: str) -> str:
    """A file's name as text: names may hold bytes that are none."""
    return name.encode(errors='backslashreplace').decode()


def misfit(path: Path, what: str) -> InputError:
    """The error that a part does not fit the others."""
    return InputError(f'{path}: {what} does not fit the rest of the file')
