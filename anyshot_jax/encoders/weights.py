"""Files of pretrained weights: read without running anything in them, names and shapes checked."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from anyshot_jax.encoders.torch_file import read_torch
from anyshot_jax.storage.npz import read_npz
from anyshot_jax.types import InputError

_MAX_BYTES = 16 << 30  # of an npz, unpacked


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a weights file by name.

    Args:
      path: .safetensors, .npz, or a PyTorch state dict (.pth, .pt, .bin), told by its suffix.
    Returns:
      Arrays in the file's own types; they may be read-only and share memory.
    Raises:
      InputError: no such file, another suffix, damaged, or more in it than tensors; names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f'no weights file at {path}')
    if path.suffix == '.npz':
        return read_npz(path, _MAX_BYTES)
    if path.suffix in ('.pth', '.pt', '.bin'):
        return read_torch(path)
    if path.suffix == '.safetensors':
        return _read_safetensors(path)
    raise InputError(f'{path}: weights are .safetensors, .npz, .pth, .pt or .bin files')


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        from safetensors.numpy import load_file
    except ImportError as e:
        raise InputError(
            f"{path} needs the safetensors library: pip install 'anyshot-jax[pretrained]'"
        ) from e
    try:
        return load_file(path)
    except Exception as e:  # whatever hostile bytes lead to, the file is the reason
        raise InputError(f'{path} is not a whole safetensors file: {e}') from e


def check_names(
    tensors: Mapping[str, np.ndarray],
    wanted: Mapping[str, tuple[int, ...]],
    *,
    what: str,
    ignore: str = '',
) -> None:
    """Refuse tensors that are not exactly those wanted.

    Args:
      wanted: shape by name. what: names the net (and file) in messages, e.g. 'ResNet-50 weights'.
      ignore: regular expression; a tensor that isn't wanted may be there when its whole name
        matches.
    Raises:
      InputError: names the first missing tensor and the first unexpected one, or the first of
        another shape.
    """
    missing = [name for name in wanted if name not in tensors]
    extra = [n for n in tensors if n not in wanted and not re.fullmatch(ignore, n)]
    if missing or extra:
        parts = [
            f'{word} {names[0]!r}' + (f' and {len(names) - 1} more' if len(names) > 1 else '')
            for word, names in (('no tensor', missing), ('an unexpected', extra))
            if names
        ]
        raise InputError(f'{what}: {", ".join(parts)}; is it a file of this net?')
    for name, shape in wanted.items():
        if tensors[name].shape != tuple(shape):
            raise InputError(
                f'{what}: tensor {name!r} has shape {tensors[name].shape}, expected {tuple(shape)}'
            )
