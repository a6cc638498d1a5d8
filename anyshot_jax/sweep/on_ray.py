"""Trials as actors of a running Ray cluster: Ray Tune places, stops and retries them.

A trial writes to its workdir as any run does, so the sweep's --workdir must be one folder for all
nodes, such as a network file system. A worker that dies is replaced by Tune, and the new one goes
on from the newest checkpoint there. Nodes need this package's requirements (`pip install` it
there); its code and the environment's settings of JAX come from here.
"""

import contextlib
import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ml_collections import ConfigDict
from ray import tune
from ray.tune.schedulers import ASHAScheduler

import anyshot_jax
from anyshot_jax.runtime.bars import bar, say
from anyshot_jax.storage import files
from anyshot_jax.storage.lock import is_held
from anyshot_jax.sweep.trials import Sweep, Trial
from anyshot_jax.types import InputError

PASSED_ON = ('ANYSHOT_', 'JAX_', 'XLA_', 'XDG_CACHE_', 'TF_CPP_')  # variables of the environment
PATIENCE = 20  # seconds that a cluster has to answer
LAST_SAVE = 120  # seconds that a worker of a lost node may take to end


def check_cluster(address: str) -> None:
    """Refuses at once an address that Ray itself would wait for during minutes.

    Raises:
      InputError: no cluster answers.
    """
    where = f'at --address={address}' if address else 'on this machine'
    nobody = InputError(
        f'no Ray cluster answers {where}; start one with `ray start --head` and give the address '
        'that it prints'
    )
    command = [sys.executable, '-m', 'ray.scripts.scripts', 'health-check']
    if address:
        host, _, port = address.rpartition(':')
        if not host or not port.isdigit() or '/' in host:
            raise InputError(f'--address={address} must be HOST:PORT, such as 10.0.0.1:6379')
        try:
            socket.create_connection((host, int(port)), timeout=PATIENCE / 4).close()
        except (OSError, OverflowError) as e:
            raise nobody from e
        command += ['--address', address]
    try:  # what listens may be no Ray
        subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as e:
        raise nobody from e


def run(
    trials: Sequence[Trial],
    ended: Callable[[Trial, str], None],
    *,
    address: str,
    storage: Path,
    cpus: float,
    gpus: float | None,
    max_failures: int,
    sweep: Sweep | None = None,
    told: Sequence[Trial] = (),
) -> None:
    """Runs all of them, as many at once as the cluster has room for.

    Args:
      ended: called for each trial that has ended, with what went wrong, or ''.
      storage: the folder where Tune keeps its own account.
      cpus, gpus: of one trial; gpus None: one where the cluster has any.
      max_failures: how often a trial whose worker died is started again.
      sweep: if its search is asha, Tune stops the worse trials early.
      told: trials that have ended before, whose validations asha compares the others with.
    Raises:
      InputError: the cluster has no room for one trial.
    """
    os.environ.setdefault('RAY_AIR_NEW_OUTPUT', '0')  # else it prints tables beside our bar
    logging.getLogger('ray.tune').setLevel(logging.CRITICAL)  # `ended` says what failed
    asha = sweep if sweep and sweep.search == 'asha' else None
    entered = [*(told if asha else ()), *trials]
    env = {k: v for k, v in os.environ.items() if k.startswith(PASSED_ON)}
    env['PJRT_NPROC'] = str(max(int(cpus), 1))  # Ray counts cores, but does not bind to them
    ray.init(
        address=address or 'auto', log_to_driver=False, logging_level=logging.ERROR,
        runtime_env={'env_vars': env, 'py_modules': [str(Path(anyshot_jax.__file__).parent)]},
    )  # fmt: skip
    try:
        gpus = _room(cpus, gpus)
        plain = {trial.name: _plain(trial, trial in told) for trial in entered}
        trainable = tune.with_parameters(train_trial, plain=plain, replays=asha is not None)
        follow = Follow(trials, ended, asha is not None)
        # Ray has taken SIGTERM for itself; Tune ends well on SIGINT only.
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
        tune.Tuner(
            tune.with_resources(trainable, {'cpu': cpus, 'gpu': gpus}),
            param_space={'trial': tune.grid_search(list(plain))},
            tune_config=tune.TuneConfig(
                scheduler=_scheduler(asha, entered) if asha else None,
                trial_name_creator=_name, trial_dirname_creator=_name,
            ),
            run_config=tune.RunConfig(
                storage_path=str(storage), verbose=0, callbacks=[follow],
                failure_config=tune.FailureConfig(max_failures=max_failures),
            ),
        ).fit()  # fmt: skip
        if follow.error:
            raise follow.error
        if follow.left:  # Tune ends in peace after a Ctrl-C
            raise KeyboardInterrupt
    finally:
        ray.shutdown()


def _room(cpus: float, gpus: float | None) -> float:
    """The GPUs that a trial gets, if there is a node for it: Tune would wait for one forever."""
    have = [node['Resources'] for node in ray.nodes() if node['Alive']]
    wanted = float(any(h.get('GPU') for h in have)) if gpus is None else gpus
    if not any(h.get('CPU', 0) >= cpus and h.get('GPU', 0) >= wanted for h in have):
        raise InputError(
            f'no node of the cluster has {cpus:g} CPUs and {wanted:g} GPUs for a trial; lower '
            '--cpus_per_trial or --gpus_per_trial'
        )
    return wanted


def _scheduler(sweep: Sweep, trials: Sequence[Trial]) -> ASHAScheduler:
    longest = max(trial.runs[-1].last.num_steps for trial in trials)
    return ASHAScheduler(
        time_attr='step', metric='value', mode=sweep.mode, max_t=longest + 1,
        grace_period=sweep.grace_steps, reduction_factor=sweep.reduction_factor,
    )  # fmt: skip


def _name(trial) -> str:
    return trial.config['trial']


def _plain(trial: Trial, over: bool) -> dict[str, Any]:
    """A trial as a worker gets it, who has none of the classes of these files."""
    last = trial.runs[-1]
    return {
        'runs': [(run.config.to_dict(), str(run.workdir), run.recipe) for run in trial.runs],
        'locks': [str(lock) for run in trial.runs for lock in run.locks],
        'log': str(trial.log),
        'metrics': str(last.folder / 'metrics.jsonl'),
        'select': last.last.eval.select,
        'num_steps': last.last.num_steps,
        'over': over,
    }


def train_trial(
    config: Mapping[str, Any], plain: Mapping[str, Mapping[str, Any]], replays: bool
) -> None:
    """Runs a worker's trial, or what is left of it."""
    from anyshot_jax.report import logs
    from anyshot_jax.runtime import start
    from anyshot_jax.training import loop

    trial = plain[config['trial']]
    select, num_steps = trial['select'], trial['num_steps']
    if replays:  # a scheduler that starts anew learns what was measured before
        for line in logs.metrics(Path(trial['metrics']))[1]:
            names = [n for n in line if n not in ('step', 'kind') and not n.endswith('/ci95')]
            if line['step'] < num_steps:
                tune.report({'step': line['step'], 'value': line[select or names[0]]})
    if trial['over']:
        return

    def on_validation(step, values):
        # After the last step there is nothing to stop any more, but the test is still to come.
        if step < num_steps:
            tune.report({'step': step, 'value': values[select or next(iter(values))]['mean']})

    with (
        files.append_to(Path(trial['log'])) as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        start.keep_compiled()
        start.split_cpu(ConfigDict(trial['runs'][0][0]))
        try:
            wait_for(map(Path, trial['locks']))
            for fields, workdir, recipe in trial['runs']:
                saved = [p.name for p in Path(workdir).glob('checkpoints/*') if p.name.isdigit()]
                print(f'process {os.getpid()} goes on from step {max(map(int, saved), default=0)}')
                done = loop.run(
                    ConfigDict(fields), workdir, config_file=recipe, on_validation=on_validation
                )
                if not done.means:  # stopped: what needs it must not start
                    return
        except InputError as e:  # it would come again however often the trial is tried
            print(f'error: {e}')
            tune.report({'error': str(e), 'step': 0, 'value': math.nan})
        except Exception:  # Tune tries again; why it had to is read here
            traceback.print_exc()
            raise


def wait_for(locks: Iterable[Path]) -> None:
    """Waits, for a while, until no other process runs the trial.

    The worker of a node that is lost to the cluster may still be saving: Tune has started it again
    by then.
    """
    until = time.monotonic() + LAST_SAVE
    for lock in locks:
        if is_held(lock):
            print('waits for another run in its workdir to end')
        while is_held(lock) and time.monotonic() < until:
            time.sleep(0.5)


class Follow(tune.Callback):
    """Passes on what ends, and draws the bar."""

    def __init__(self, asked: Sequence[Trial], ended: Callable[[Trial, str], None], asha: bool):
        self.left = {trial.name: trial for trial in asked}
        self.error: InputError | None = None
        self._ended, self._asha = ended, asha
        self._bar = bar(total=len(asked), unit='trial')

    def on_trial_recover(self, iteration, trials, trial, **info):
        said = f'{_name(trial)}: its worker died or failed; Tune starts it again'
        say(said)

    def on_trial_complete(self, iteration, trials, trial, **info):
        result = trial.last_result or {}
        self._end(_name(trial), str(result.get('error', '')), result.get('step', 0))

    def on_trial_error(self, iteration, trials, trial, **info):
        lines = str(trial.get_error() or '').strip().splitlines()
        self._end(_name(trial), lines[-1] if lines else 'its worker died', 0)

    def _end(self, name: str, failure: str, step: int) -> None:
        trial = self.left.pop(name, None)
        if trial is None:  # it had ended before
            return
        if not failure and not trial.finished:
            if self._asha:
                files.write_text(trial.stopped, json.dumps({'step': step}) + '\n')
            else:
                failure = 'stopped before its end'
        self._bar.update()
        try:
            self._ended(trial, failure)
        except InputError as e:  # Tune would take it for the trial's and try that again
            self.error = e
            signal.raise_signal(signal.SIGINT)

    def on_experiment_end(self, trials, **info):
        self._bar.close()
