"""Runs the trials of a sweep that aren't finished, on one of the engines."""

import argparse
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from anyshot_jax.storage.folders import user_path
from anyshot_jax.sweep import leaderboard, local, trials
from anyshot_jax.sweep.trials import Sweep, Trial
from anyshot_jax.training import logbook
from anyshot_jax.types import InputError

Ended = Callable[[Trial, str], None]


def run(args: argparse.Namespace) -> dict[str, str]:
    """Runs the trials of a sweep file that aren't finished and writes the leaderboard.

    Returns:
      What went wrong, by the names of the trials.
    Raises:
      InputError: something given can't be; no trial was started.
    """
    path = user_path(args.sweep)
    check_flags(args)
    sweep = trials.load(path)
    workdir = user_path(args.workdir or Path('runs') / 'sweeps' / sweep.name).resolve()
    every = trials.make_trials(sweep, workdir / 'trials')
    if sweep.search == 'asha' and args.engine == 'local' and not args.leaderboard:
        raise InputError(f"{path}: SEARCH='asha' is Ray Tune's; use --engine=ray")
    if not args.leaderboard:
        check_engine(args)
    failures: dict[str, str] = {}
    with logbook.locked(workdir):
        _say_strangers(workdir / 'trials', every)
        over = [t for t in every if t.finished or (sweep.search == 'asha' and t.stopped.exists())]
        todo = [t for t in every if t not in over]

        def ended(trial: Trial, failure: str) -> None:
            say(trial, failure)
            failures.update({trial.name: failure} if failure else {})
            leaderboard.write(workdir, sweep, every, failures)

        print(f'{sweep.name}: {len(over)} of {len(every)} trials are over', flush=True)
        leaderboard.write(workdir, sweep, every, failures)  # what is wrong in it shows now
        try:
            if todo and not args.leaderboard:
                start(todo, ended, args, workdir, sweep, over)
        finally:
            leaderboard.write(workdir, sweep, every, failures)
            print(f'leaderboard: {workdir / "leaderboard.html"}', flush=True)
    return failures


def check_flags(args: argparse.Namespace) -> None:
    """Refuses flags of an engine that can't be.

    Raises:
      InputError: names the flag.
    """
    if args.jobs < 0 or args.cpus_per_trial <= 0 or args.max_failures < 0:
        raise InputError('--jobs and --max_failures must be >= 0, --cpus_per_trial above 0')


def check_engine(args: argparse.Namespace) -> None:
    """Refuses an engine that isn't there.

    Raises:
      InputError: Ray is not installed or no cluster answers; or an address without Ray.
    """
    if args.engine == 'local':
        if args.address:
            raise InputError('--address is that of a Ray cluster: add --engine=ray')
        return
    try:
        from anyshot_jax.sweep import on_ray
    except ImportError as e:
        raise InputError(
            f"--engine=ray needs Ray Tune: pip install 'anyshot-jax[sweep]' ({e})"
        ) from e
    on_ray.check_cluster(args.address)


def start(
    todo: Sequence[Trial],
    ended: Ended,
    args: argparse.Namespace,
    workdir: Path,
    sweep: Sweep | None = None,
    over: Sequence[Trial] = (),
) -> None:
    """Runs the trials on the engine that the flags name; `ended` hears of each."""
    if args.engine == 'local':
        local.run(todo, args.jobs, ended)
        return
    from anyshot_jax.sweep import on_ray

    storage = workdir / 'ray'
    try:
        on_ray.run(
            todo, ended, address=args.address, storage=storage, cpus=args.cpus_per_trial,
            gpus=args.gpus_per_trial, max_failures=args.max_failures, sweep=sweep, told=over,
        )  # fmt: skip
    finally:
        shutil.rmtree(storage, ignore_errors=True)  # all that counts is in the trials' workdirs


def say(trial: Trial, failure: str) -> None:
    """Prints how a trial ended, above the bar."""
    state = f'failed: {failure}' if failure else 'finished' if trial.finished else 'stopped'
    tqdm.write(f'{trial.name}: {state}')


def _say_strangers(folder: Path, every: Sequence[Trial]) -> None:
    """Trials of an earlier sweep file stay where they are."""
    known = {trial.runs[0].workdir for trial in every}
    old = [p for p in folder.glob('*') if p.is_dir() and p not in known]
    if old:
        print(f'{len(old)} trials in {folder} are not in the sweep file any more; they stay')
