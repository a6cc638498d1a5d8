"""Trials as processes of this machine, whose devices and cores are shared out among them."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from anyshot_jax.runtime import start
from anyshot_jax.runtime.bars import bar, say
from anyshot_jax.storage.files import append_to
from anyshot_jax.storage.lock import is_held
from anyshot_jax.sweep.trials import Trial
from anyshot_jax.types import InputError, printable

ASK = 'import jax; print(jax.default_backend(), jax.local_device_count())'
PATIENCE = 120  # seconds to save in; after that a trial is ended


class Share(NamedTuple):
    """The part of the machine that one trial has."""

    env: dict[str, str]
    cores: frozenset[int]  # none: as the sweep itself


class _Process:
    """A trial that is running: its runs one after another, their output in its log."""

    def __init__(self, trial: Trial, share: Share):
        self.trial, self.share = trial, share
        self._left = [run for run in trial.runs[:-1] if not run.result.exists()] + [trial.runs[-1]]
        self._start()

    def _start(self) -> None:
        self._run = run = self._left.pop(0)
        with append_to(self.trial.log) as log:
            self._popen = subprocess.Popen(
                [sys.executable, *run.command],
                env={**os.environ, **self.share.env, start.PARENT: str(os.getpid())},
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is passed on as SIGTERM, which saves
            )  # fmt: skip
        if self.share.cores:
            os.sched_setaffinity(self._popen.pid, self.share.cores)

    def ended(self) -> bool:
        """True if the last run has ended, or one that others need, finished or not."""
        code = self._popen.poll()
        if code == 0 and self._left and self._run.result.exists():  # a SIGTERM ends with 0 too
            self._start()
            return False
        return code is not None

    def failure(self) -> str:
        """Reason of the failure, or ''; the log can't have it where the disk is full."""
        if self._popen.returncode > 0:
            try:
                with append_to(self.trial.log) as log:
                    log.write('\n')
            except (InputError, OSError) as e:
                return f'{self.trial.log} could not be written: {getattr(e, "strerror", e)}'
        if self._popen.returncode < 0:
            return f'killed by signal {-self._popen.returncode}'
        if self._popen.returncode:
            return last_line(self.trial) or f'exit code {self._popen.returncode}'
        return '' if self.trial.finished else 'stopped before its end'

    def stop(self) -> None:
        self._left = []
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)

    def wait(self, seconds: float) -> None:
        try:
            self._popen.wait(max(seconds, 0))
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


def run(trials: Sequence[Trial], jobs: int, ended: Callable[[Trial, str], None]) -> None:
    """Runs all of them, `jobs` at once (0: as many as the machine has devices, or cores).

    Args:
      ended: called for each trial that has ended, with what went wrong, or ''.
    """
    free = shares(len(trials), jobs)
    waiting, running, told = list(trials), list[_Process](), list[Trial]()
    try:
        with bar(total=len(trials), unit='trial') as shown:
            while waiting or running:
                while free and (trial := next((t for t in waiting if not _busy(t)), None)):
                    waiting.remove(trial)
                    running.append(_Process(trial, free.pop(0)))
                for trial in (
                    waiting if free else ()
                ):  # that of a sweep that was killed may yet save
                    if trial not in told:
                        say(f'{trial.name}: waits for another run in its workdir to end')
                        told.append(trial)
                time.sleep(0.1)
                for process in [p for p in running if p.ended()]:
                    running.remove(process)
                    free.append(process.share)
                    ended(process.trial, process.failure())
                    shown.update()
    except BaseException:
        for process in running:
            process.stop()
        until = time.monotonic() + PATIENCE
        try:
            for process in running:
                process.wait(until - time.monotonic())
        finally:  # a second Ctrl-C does not wait
            for process in running:
                process.wait(0)
        raise


def _busy(trial: Trial) -> bool:
    """True if another process runs one of its runs."""
    return any(is_held(lock) for run in trial.runs for lock in run.locks)


def shares(num_trials: int, jobs: int) -> list[Share]:
    """The machine in as many parts as trials run at once.

    Raises:
      InputError: more trials at once than an accelerator that can't be shared allows.
    """
    kind, devices = _devices()
    affinity = getattr(os, 'sched_getaffinity', None)
    cores = sorted(affinity(0)) if affinity else []
    most = {'cpu': start.cores(), 'gpu': devices}.get(kind, 1)
    if jobs > most and kind not in ('cpu', 'gpu'):
        raise InputError(f'--jobs={jobs}: one process has all {kind} devices; use --jobs=1')
    count = min(jobs or most, num_trials)
    return [
        Share(_gpus(i, count, devices) if kind == 'gpu' else {}, frozenset(_part(cores, i, count)))
        for i in range(count)
    ]


def _part(things: Sequence, i: int, count: int) -> list:
    """Share of the i-th of `count`: several things each, or one that others have too."""
    if not things:
        return []
    return list(things[i::count]) if count <= len(things) else [things[i % len(things)]]


def _gpus(i: int, count: int, devices: int) -> dict[str, str]:
    given = os.environ.get('CUDA_VISIBLE_DEVICES', '')
    names = given.split(',') if given else [str(k) for k in range(devices)]
    env = {'CUDA_VISIBLE_DEVICES': ','.join(_part(names, i, count))}
    sharing = math.ceil(count / devices)
    if sharing > 1:  # each process would take three quarters of the memory
        env['XLA_PYTHON_CLIENT_MEM_FRACTION'] = f'{0.75 / sharing:.3f}'
    return env


def _devices() -> tuple[str, int]:
    """Kind and number of JAX's devices, asked in a process that lets go of them again."""
    said = subprocess.run(
        [sys.executable, '-c', ASK], capture_output=True, text=True, check=False
    )  # fmt: skip
    if said.returncode:
        raise InputError(f'JAX finds no device: {said.stderr.strip().splitlines()[-1]}')
    kind, number = said.stdout.split()[-2:]
    return kind, int(number)


def last_line(trial: Trial) -> str:
    """The end of a trial's log, where an error says what to do."""
    lines = trial.log.read_text(errors='replace').split('\n') if trial.log.exists() else []
    return printable(next((line.strip() for line in reversed(lines) if line.strip()), ''))
