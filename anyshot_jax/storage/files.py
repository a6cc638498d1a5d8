"""Files of a workdir, on a disk or, as gs://BUCKET/... or s3://BUCKET/..., in cloud storage."""

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from etils import epath

from anyshot_jax.types import InputError


def folder(path: str | os.PathLike) -> Path:
    """Path of a folder, on disk or in cloud storage (etils.epath)."""
    return Path(path) if on_disk(path) else epath.Path(path)


def on_disk(path: str | os.PathLike) -> bool:
    return '://' not in os.fspath(path)


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file so that it is there whole or, after a kill or on a full disk, not at all.

    Raises:
      InputError: it can't be written.
    """
    temporary = None
    try:
        if not on_disk(path):  # an object appears when it is complete
            path.write_bytes(content)
            return
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as f:
            temporary = f.name
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as e:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise InputError(f'{path} could not be written: {e}') from e


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8."""
    write_bytes(path, text.encode())


def save_artifacts(path: Path, arrays: dict[str, Any]) -> None:
    """Keeps what a stage exports for later stages, as an npz of plain arrays."""
    made = io.BytesIO()
    np.savez(made, allow_pickle=False, **{name: np.asarray(a) for name, a in arrays.items()})
    write_bytes(path, made.getvalue())


def load_artifacts(path: Path) -> dict[str, np.ndarray]:
    """Reads what `save_artifacts` kept; never unpickles."""
    with path.open('rb') as f, np.load(f, allow_pickle=False) as z:
        return {name: z[name] for name in z.files}


def read_json(path: Path) -> Any:
    """The file's content, or None if there is no such file.

    Raises:
      InputError: it is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise InputError(f'{path} is damaged ({e}): restore or remove it') from e


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """A file whole or not at all: a temporary one in the same directory, renamed at the end.

    Args:
      write: puts the content into the open file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix='.', suffix='.tmp')
    try:
        with os.fdopen(handle, 'wb') as f:
            write(f)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
