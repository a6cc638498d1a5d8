"""Files of a workdir, on a disk or, as gs://BUCKET/... or s3://BUCKET/..., in cloud storage."""

import contextlib
import io
import json
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from etils import epath

from anyshot_jax.storage.folders import user_path
from anyshot_jax.storage.npz import read_npz
from anyshot_jax.types import InputError

MAX_JSON = 200_000_000  # bytes of a JSON file
MAX_LOG = 1 << 30  # bytes of metrics.jsonl
MAX_ARTIFACTS = 64 << 30  # bytes of what a stage exported, unpacked


def folder(path: str | os.PathLike) -> Path:
    """Path of a folder as a user writes it, on disk or in cloud storage (etils.epath).

    Raises:
      InputError: there is no such home folder.
    """
    return user_path(path) if on_disk(path) else epath.Path(path)


def on_disk(path: str | os.PathLike) -> bool:
    return '://' not in os.fspath(path)


# Writing.


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a new file that takes the place of `path` at the end, whole, or never.

    It is written under a name of its own beside `path`, in folders that are made if need be, and is
    on the disk before it is renamed: after a kill, an error inside the context or on a full disk
    the file before is still there. A link at `path` is replaced, not followed. The mode is that of
    the file before, else what the umask leaves of 0666.

    Raises:
      InputError: it can't be written; names it.
    """
    try:
        if not on_disk(path):  # an object appears when it is complete
            content = io.BytesIO()
            yield content
            path.write_bytes(content.getvalue())
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = _mode(path)
        temporary = path.with_name(f'.{path.name[:40]}-{secrets.token_hex(6)}.tmp')
        # O_EXCL opens no file, and no link, that is there already.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, 'O_BINARY', 0)
        handle = os.open(temporary, flags, 0o666 if mode is None else mode)
        try:
            with os.fdopen(handle, 'wb') as f:
                yield f
                f.flush()
                os.fsync(f.fileno())
            move(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as e:
        raise InputError(f'{path} could not be written: {e.strerror or e}') from e


def move(temporary: Path, path: Path) -> None:
    """Puts a complete file, which is on the disk, in its place, with the mode of the one before."""
    if (mode := _mode(path)) is not None:
        os.chmod(temporary, mode)
    os.replace(temporary, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder where the system can, are on the disk."""
    is_folder = path.is_dir()
    if is_folder and os.name != 'posix':
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not is_folder:
            raise
    finally:
        os.close(handle)


def _mode(path: Path) -> int | None:
    """The permissions of a file that is there; None of a link."""
    try:
        before = path.lstat()
    except FileNotFoundError:
        return None
    return stat.S_IMODE(before.st_mode) & 0o777 if stat.S_ISREG(before.st_mode) else None


def write_bytes(path: Path, content: bytes) -> None:
    """`replacing` by bytes."""
    with replacing(path) as f:
        f.write(content)


def write_text(path: Path, text: str) -> None:
    """`replacing` by UTF-8."""
    write_bytes(path, text.encode())


def append_to(path: Path) -> Any:
    """A text file open for appending, a line at a time, made if need be; never through a link.

    Raises:
      InputError: it is a link, a pipe that nobody reads, or can't be opened; names it.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    flags |= getattr(os, 'O_NOFOLLOW', 0) | getattr(os, 'O_NONBLOCK', 0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.fdopen(os.open(path, flags, 0o666), 'a', buffering=1, encoding='utf-8')
    except OSError as e:
        raise InputError(f'{path} could not be written: {e.strerror or e}') from e


def save_artifacts(path: Path, arrays: dict[str, Any]) -> None:
    """Keeps what a stage exports for later stages, as an npz of plain arrays."""
    with replacing(path) as f:
        np.savez(f, allow_pickle=False, **{name: np.asarray(a) for name, a in arrays.items()})


# Reading.


def load_artifacts(path: Path) -> dict[str, np.ndarray]:
    """Reads what `save_artifacts` kept; never unpickles.

    Raises:
      InputError: the file is damaged.
    """
    return read_npz(path, MAX_ARTIFACTS)


def read_whole(path: Path, most: int) -> bytes:
    """The bytes of a file; a pipe or a device, which may never end, is not waited for.

    Raises:
      InputError: no regular file, or larger than `most` bytes. OSError: not there, or unreadable.
    """
    if not path.is_file() and path.exists():
        raise InputError(f'{path} is no file, but a folder, a pipe or a device: remove it')
    with path.open('rb') as f:
        content = f.read(most + 1)
    if len(content) > most:
        raise InputError(f'{path} is larger than {most:,} bytes: restore or remove it')
    return content


def read_json(path: Path) -> Any:
    """The file's content, or None if there is no such file.

    Raises:
      InputError: it is not JSON, too large or too deep.
    """
    try:
        return json.loads(read_whole(path, MAX_JSON))
    except FileNotFoundError:
        return None
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as e:
        raise InputError(f'{path} is damaged ({e}): restore or remove it') from e
