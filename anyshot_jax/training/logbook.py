"""Files of a workdir besides checkpoints: its lock, its config, metrics.jsonl, TensorBoard."""

import contextlib
import json
import math
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from tensorboardX import SummaryWriter
from tqdm import tqdm

from anyshot_jax import config as configs
from anyshot_jax.storage import files
from anyshot_jax.storage.lock import Lock
from anyshot_jax.training import processes
from anyshot_jax.training.intervals import Values, over_members
from anyshot_jax.types import InputError

GAINED = ('num_seeds', 'vary')  # fields of config.SPINE that say what a checkpoint holds


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
        yield
        return
    with Lock(workdir / '.lock', f'{workdir} is in use by another run; give another --workdir'):
        yield


def keep_config(config: ConfigDict, workdir: Path) -> None:
    """Writes config.json, or refuses a workdir that was made with other fields.

    `eval_only` may differ, and with it the sections `eval` and `data`: a trained model is tried in
    other tasks and on other data.

    Raises:
      InputError: names the fields that differ.
    """
    path = workdir / 'config.json'
    old, new = files.read_json(path), json.loads(configs.to_json(config))
    if old is None:
        if not config.eval_only:
            files.write_text(path, configs.to_json(config) + '\n')
        return
    free = ('eval_only', 'eval', 'data') if config.eval_only else ('eval_only',)
    # What the package has gained since was at its default then.
    old = {**json.loads(json.dumps({k: configs.SPINE[k] for k in GAINED})), **old}
    pick = lambda fields: {k: v for k, v in fields.items() if k not in free}
    if lines := configs.differences(pick(old), pick(new)):
        raise InputError(
            f'{workdir} was made with another config; give another --workdir or undo:\n  '
            + '\n  '.join(lines)
        )


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
        self._bar = tqdm(
            total=num_steps, initial=step, unit='step', disable=None if processes.first() else True
        )
        self._chunks = [{k: np.asarray(v, np.float32) for k, v in pending.items()}] * bool(pending)
        self._seconds, self._file, self._board = 0.0, None, None
        if not processes.first():
            return
        self._path = workdir / 'metrics.jsonl'
        kept = [line for line in _lines(self._path) if line['step'] <= step]
        self._text = ''.join(json.dumps(line) + '\n' for line in kept)
        files.write_text(self._path, self._text)
        if files.on_disk(workdir):
            self._file = files.append_to(self._path)
            self._board = SummaryWriter(str(workdir / 'tensorboard'), purge_step=step + 1)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._bar.close()
        for opened in filter(None, (self._board, self._file)):
            opened.close()

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
        own = {k: [x if math.isfinite(x) else None for x in v] for k, v in members.items()}
        line = {'step': step, 'kind': kind, **values, **({'members': own} if many else {})}
        try:
            self._add_line(json.dumps(line) + '\n')
            if many:
                values = values | {
                    f'{name}/member {i}': v for name, c in members.items() for i, v in enumerate(c)
                }
            if self._board:
                for name, value in values.items():
                    self._board.add_scalar(f'{kind}/{name}', value, step)
        except OSError as e:
            raise InputError(
                f'metrics of step {step} could not be written: {e.strerror}; free disk space and '
                'start the same command again'
            ) from e

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
        for line in path.read_bytes().decode(errors='replace').splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                record = json.loads(line)
                if isinstance(record, dict) and isinstance(record.get('step'), int):
                    yield record
