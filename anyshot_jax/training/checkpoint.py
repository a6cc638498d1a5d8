"""Orbax checkpoints that are checked when they are read: save and restore_or_init."""

import contextlib
import hashlib
import json
import math
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from anyshot_jax.storage import files
from anyshot_jax.training import processes
from anyshot_jax.types import InputError

WHOLE = ('metadata', '.ocdbt')  # how the files end that Orbax reads whole,
MAX_WHOLE = 10_000_000  # and the most bytes of one


def open_manager(directory: Path, *, keep: int) -> ocp.CheckpointManager:
    """Orbax manager of `directory`; the last `keep` checkpoints stay.

    Raises:
      InputError: names what below it would be waited for or read without end, or the directory
        where Orbax can't use it.
    """
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, create=True, enable_async_checkpointing=False
    )
    if files.on_disk(directory):
        directory = directory.absolute()
        _check_files(directory)
    try:
        return ocp.CheckpointManager(directory, options=options)
    except Exception as e:
        raise InputError(
            f'{directory} cannot be used ({_first_line(e)}): restore or remove it'
        ) from e


def _check_files(directory: Path) -> None:
    """Refuses pipes, devices, linked folders, and files that are too large to be Orbax's."""
    waiting = [os.fspath(directory)] * directory.is_dir()
    while waiting:
        with os.scandir(waiting.pop()) as found:
            entries = list(found)
        for entry in entries:
            try:
                there = entry.stat()
            except OSError:  # a link to nowhere: Orbax lacks that file
                continue
            is_folder = stat.S_ISDIR(there.st_mode)
            if not (is_folder or stat.S_ISREG(there.st_mode)) or (is_folder and entry.is_symlink()):
                raise InputError(
                    f'{entry.path} is no file but a pipe, a device or a link to a folder: remove it'
                )
            if entry.name.lower().endswith(WHOLE) and there.st_size > MAX_WHOLE:
                raise InputError(
                    f'{entry.path} is larger than {MAX_WHOLE:,} bytes: restore or remove it'
                )
            waiting += [entry.path] * is_folder


def save(manager: ocp.CheckpointManager, step: int, state: Any, progress: dict[str, Any]) -> None:
    """Writes state and progress as checkpoint number `step`, with a digest of the arrays.

    Of several processes each holds the whole state on its devices and writes its part.

    The directory appears under its name only when it is complete, so a kill at any moment, or a
    full disk, leaves the checkpoints before it as they were.

    Raises:
      InputError: the disk is full or can't be written.
    """
    state = processes.to_global(state)
    progress = {**progress, 'digest': digest(state)}
    progress['own_digest'] = _own_digest(progress)
    if jax.process_count() == 1:  # else each process writes its part of arrays that are on all
        state = jax.tree.map(np.asarray, state)
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)  # Orbax logs the traceback of what it raises
    try:
        if step in manager.all_steps():  # a run that was killed after this save comes by again
            manager.delete(step)
        manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), progress=ocp.args.JsonSave(progress)
            ),
        )
        manager.wait_until_finished()
    except Exception as e:  # tensorstore wraps the system's error in types of its own
        manager.reload()
        last = [s for s in manager.all_steps() if s != step]
        raise InputError(
            f'checkpoint of step {step} could not be written to {manager.directory}: '
            f'{_first_line(e)}; free disk space or fix its permissions and start the same command '
            f'again: it goes on from step {max(last, default=0)}'
        ) from e
    finally:
        logging.set_verbosity(verbosity)


def restore_or_init(
    manager: ocp.CheckpointManager, state: Any, *, reads_only: bool = False
) -> tuple[Any, dict[str, Any]]:
    """The newest checkpoint that is whole and fits, else `state` as it is and no progress.

    Args:
      state: a freshly initialised state: tells the shapes that a checkpoint must have.
      reads_only: leaves what cannot be used where it is; else it is put aside.
    Returns:
      (state, progress); what was passed over is logged.
    """
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, processes.to_global(state))
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            restored, progress = _restore(manager, step, abstract)
            return processes.to_local(restored), progress
        except Exception as e:  # whatever is wrong with one, the one before may serve
            logging.warning(
                'checkpoint %s/%d cannot be used (%s): trying the one before it',
                manager.directory, step, _first_line(e),
            )  # fmt: skip
            if reads_only:
                continue
            with contextlib.suppress(Exception):
                aside = Path(
                    tempfile.mkdtemp(prefix=f'unusable-{step}-', dir=manager.directory.parent)
                )
                os.replace(Path(manager.directory) / str(step), aside / str(step))
            manager.reload()  # else it skips saves of steps below the one that is gone
    return state, {}


def drop_older(manager: ocp.CheckpointManager, state: Any, keep: int) -> None:
    """Removes all but the last `keep`, as every save does: a kill amid that leaves pieces of one.

    Nothing is removed where the newest can't be used, which an older one may have to replace.

    Args:
      state: tells the shapes that a checkpoint must have.
    """
    steps = sorted(manager.all_steps())
    if len(steps) <= keep:
        return
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, processes.to_global(state))
    try:
        _restore(manager, steps[-1], abstract)
    except Exception as e:
        logging.warning(
            'checkpoint %s/%d cannot be used (%s): older ones stay',
            manager.directory, steps[-1], _first_line(e),
        )  # fmt: skip
        return
    for step in steps[:-keep]:
        manager.delete(step)


def _restore(manager, step, abstract):
    _check_shapes(manager.directory / str(step) / 'state', abstract)
    restored = manager.restore(
        step,
        args=ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore()
        ),
    )
    progress = dict(restored['progress'])
    shapes = jax.tree.map(lambda a: (a.shape, a.dtype), restored['state'])
    if shapes != jax.tree.map(lambda a: (a.shape, a.dtype), abstract):
        raise ValueError('its arrays have other shapes')
    own = progress.pop('own_digest', None)
    if own not in (None, _own_digest(progress)):  # checkpoints of before have none
        raise ValueError('its progress is not what was saved')
    if progress.pop('digest', None) != digest(restored['state']):
        raise ValueError('its arrays are not what was saved')
    return restored['state'], progress


def _check_shapes(folder: Path, abstract: Any) -> None:
    """Refuses arrays of other shapes, or in pieces larger than they, before they are unpacked."""
    found = jax.tree.leaves(ocp.StandardCheckpointHandler().metadata(folder))
    shape = lambda a: (tuple(a.shape), str(a.dtype))
    if sorted(map(shape, found)) != sorted(map(shape, jax.tree.leaves(abstract))):
        raise ValueError('its arrays have other shapes')
    for a in found:
        piece = a.storage.chunk_shape if a.storage else a.shape
        if math.prod(piece or ()) > max(math.prod(a.shape), 1):
            raise ValueError('its arrays are stored in pieces larger than they')


def digest(state: Any) -> str:
    """SHA-256 over every leaf's path, type, shape and bytes."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        array = np.asarray(leaf)
        total.update(f'{jax.tree_util.keystr(path)} {array.dtype} {array.shape}'.encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def _own_digest(progress: dict[str, Any]) -> str:
    """SHA-256 of the progress as JSON has it."""
    as_read = json.loads(json.dumps(progress))  # keys are texts there
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()


def _first_line(e: Exception) -> str:
    return (str(e) or type(e).__name__).strip().splitlines()[0][:300]
