"""Files of a workdir besides checkpoints: its lock, its config, metrics.jsonl, TensorBoard."""

import contextlib
import json
import math
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import logging

from anyshot_jax.runtime.bars import bar, moves, say
from anyshot_jax.storage import files
from anyshot_jax.storage.lock import Lock
from anyshot_jax.training import processes
from anyshot_jax.training.board import Board
from anyshot_jax.training.intervals import Values, over_members
from anyshot_jax.types import InputError


@contextlib.contextmanager
def locked(workdir: Path):
    """Creates `workdir` and locks it; the lock is released when the process ends in any way.

    In cloud storage there are no locks: nothing keeps two runs apart there.

    Raises:
      InputError: it can't be written, or another run holds it.
    """
    if not files.on_disk(workdir):
        try:
            workdir.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise InputError(f'--workdir {workdir} cannot be written: {e}') from e
        logging.warning('%s: nothing keeps two runs apart in cloud storage', workdir)
        yield
        return
    with Lock(workdir / '.lock', f'{workdir} is in use by another run; give another --workdir'):
        yield


class Sigterm:
    """Context in which SIGTERM only sets `came`, so that the loop can save and end."""

    came = False

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def _note(self, *_):
        self.came = True

    def __exit__(self, *_):
        if hasattr(self, '_before'):
            signal.signal(signal.SIGTERM, self._before)


class Logbook:
    """Progress bar, metrics.jsonl and TensorBoard events of one run, from `step` on.

    Lines after `step` are from a run that was killed; they are dropped, for they come again.
    `pending` is what the run had not written yet when it saved. Of several processes only the
    first one writes. In cloud storage there are no TensorBoard events.
    """

    def __init__(self, workdir: Path, step: int, num_steps: int, pending: dict[str, list]):
        self._bar = bar(total=num_steps, initial=step, unit='step', hidden=not processes.first())
        self._num_steps = num_steps
        self._chunks = [{k: np.asarray(v, np.float32) for k, v in pending.items()}] * bool(pending)
        self._seconds, self._file, self._board = 0.0, None, None
        if not processes.first():
            return
        self._path = workdir / 'metrics.jsonl'
        kept = [line for line in _lines(self._path) if line['step'] <= step]
        self._text = ''.join(json.dumps(line) + '\n' for line in kept)
        files.write_text(self._path, self._text)
        if files.on_disk(workdir):
            with self._writing():
                self._file = files.append_to(self._path)
                # TensorBoard forgets what it had and gets every line again: a kill may have lost
                # some.
                self._board = Board(workdir / 'tensorboard')
                for line in kept:
                    self._show(line['step'], line['kind'], line, line.get('members', {}))

    def __enter__(self):
        return self

    def __exit__(self, kind=None, *_):
        self._bar.close()
        # What a full disk has ended says so already, and can't write the rest either.
        told = contextlib.suppress(InputError) if kind else contextlib.nullcontext()
        with told, self._writing(), contextlib.ExitStack() as held:
            for opened in filter(None, (self._board, self._file)):
                held.callback(opened.close)

    @contextlib.contextmanager
    def _writing(self):
        """Makes what the system refuses an InputError."""
        try:
            yield
        except OSError as e:
            raise InputError(
                f'{self._path} and the curves in {self._path.parent / "tensorboard"} could not be '
                f'written: {e.strerror or e}; free disk space and start the same command again'
            ) from e

    def add(self, metrics: dict[str, np.ndarray], seconds: float) -> None:
        """Takes the metrics [M, K] of a call of K steps of M members."""
        self._chunks.append(metrics)
        self._seconds += seconds
        self._bar.update(metrics['loss'].shape[1])
        last = {k: _mean(v[:, -1]) for k, v in metrics.items()}
        self._bar.set_postfix({k: f'{v:.4g}' for k, v in last.items()}, refresh=False)

    def pending(self) -> dict[str, list]:
        """Every member's and step's metrics since the last line, for the checkpoint."""
        return {k: v.tolist() for k, v in self._columns().items()}

    def _columns(self) -> dict[str, np.ndarray]:
        names = self._chunks[0] if self._chunks else ()
        return {k: np.concatenate([c[k] for c in self._chunks], axis=1) for k in names}

    def train(self, step: int) -> None:
        """Writes the means since the last call."""
        columns = self._columns()
        each = {k: v.mean(1) for k, v in columns.items()}
        means = {k: _mean(v) for k, v in each.items()}
        means['steps_per_s'] = round(columns['loss'].shape[1] / self._seconds, 3)
        self._write(step, 'train', means, {k: v.tolist() for k, v in each.items()})
        self._chunks, self._seconds = [], 0.0

    def val(self, step: int, each: Sequence[Values | None]) -> None:
        """Writes the validation's means and confidence intervals: of the members, and of each."""
        values = over_members(each)
        flat: dict[str, float] = {}
        for name, v in values.items():
            flat |= {name: v['mean'], f'{name}/ci95': v['ci95']}
        members = {name: [v[name]['mean'] if v else math.nan for v in each] for name in values}
        self._write(step, 'val', flat, members)

    def _write(self, step: int, kind: str, values: dict, members: dict[str, list]) -> None:
        """A population's line also has the members' own values, null for one that has diverged."""
        if not processes.first():
            return
        many = len(next(iter(members.values()))) > 1
        self._say(step, kind, values)
        own = {k: [x if math.isfinite(x) else None for x in v] for k, v in members.items()}
        line = {'step': step, 'kind': kind, **values, **({'members': own} if many else {})}
        with self._writing():
            self._add_line(json.dumps(line) + '\n')
            self._show(step, kind, values, members if many else {})

    def _show(self, step: int, kind: str, values: dict, members: dict[str, list]) -> None:
        """Adds a line's numbers to TensorBoard."""
        if not self._board:
            return
        curves = {k: v for k, v in values.items() if k not in ('step', 'kind', 'members')}
        for name, of_each in members.items():
            curves |= {f'{name}/member {i}': v for i, v in enumerate(of_each)}
        for name, value in curves.items():
            self._board.add_scalar(f'{kind}/{name}', math.nan if value is None else value, step)

    def flush(self) -> None:
        """Brings TensorBoard's events to the disk, as a checkpoint is."""
        if self._board:
            with self._writing():
                self._board.flush()

    def _say(self, step: int, kind: str, values: dict) -> None:
        """Prints how far the run is where no bar moves, as in a log file."""
        if not moves():
            numbers = ', '.join(f'{k} {v:.4g}' for k, v in values.items() if '/ci95' not in k)
            say(f'step {step} of {self._num_steps}, {kind}: {numbers}')

    def _add_line(self, line: str) -> None:
        if self._file:
            self._file.write(line)
            self._file.flush()
        else:  # an object in cloud storage can't grow
            self._text += line
            files.write_text(self._path, self._text)


def _mean(values: np.ndarray) -> float:
    """Mean over the members that have not diverged."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.nan


def _lines(path: Path):
    """The whole records of metrics.jsonl; a kill may have cut the last one."""
    if path.exists():
        for line in files.read_whole(path, files.MAX_LOG).decode(errors='replace').splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                record = json.loads(line)
                if isinstance(record, dict) and isinstance(record.get('step'), int):
                    yield record
