"""Runs a sweep file, or what a table lacks, many trials at once.

    python experiments/sweep.py experiments/sweeps/omniglot_protonet.py
    python experiments/sweep.py --rows=omniglot_fewshot
    python experiments/sweep.py experiments/sweeps/omniglot_protonet.py --engine=ray

A trial is a workdir of its own, so the same command goes on where it was stopped and skips what
is finished. The engine `local` starts processes of this machine; `ray` uses a running cluster
(`pip install -e '.[sweep]'`, `ray start --head`). Bad input ends in one line and exit code 2, a
trial that failed in 1.
"""

import argparse
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import leaderboard
import local_engine
import run_rows
import tables
import trials
from tables import HERE, ROOT, Row
from tqdm import tqdm
from trials import Sweep, Trial

from anyshot_jax import logbook
from anyshot_jax.types import InputError

Ended = Callable[[Trial, str], None]


def run(args: argparse.Namespace) -> dict[str, str]:
    """Does what the flags say.

    Returns:
      What went wrong, by the names of the trials.
    Raises:
      InputError: something given can't be; no trial was started.
    """
    if bool(args.sweep) == bool(args.rows):
        raise InputError('give either a sweep file or --rows=<table>')
    if args.jobs < 0 or args.cpus_per_trial <= 0 or args.max_failures < 0:
        raise InputError('--jobs and --max_failures must be >= 0, --cpus_per_trial above 0')
    if args.rows and args.leaderboard:
        raise InputError('--leaderboard is that of a sweep file')
    if args.sweep:
        return run_sweep(args.sweep, args)
    return run_table(Path(args.rows).stem, args)


def run_sweep(path: Path, args: argparse.Namespace) -> dict[str, str]:
    """Runs the trials of a sweep file that aren't finished and writes the leaderboard."""
    sweep = trials.load(path)
    workdir = (args.workdir or ROOT / 'runs' / 'sweeps' / sweep.name).resolve()
    every = trials.make_trials(sweep, workdir / 'trials')
    if sweep.search == 'asha' and args.engine == 'local' and not args.leaderboard:
        raise InputError(f"{path}: SEARCH='asha' is Ray Tune's; use --engine=ray")
    if not args.leaderboard:
        _check_engine(args)
    failures: dict[str, str] = {}
    with logbook.locked(workdir):
        _say_strangers(workdir / 'trials', every)
        over = [t for t in every if t.finished or (sweep.search == 'asha' and t.stopped.exists())]
        todo = [t for t in every if t not in over]

        def ended(trial: Trial, failure: str) -> None:
            _say(trial, failure)
            failures.update({trial.name: failure} if failure else {})
            leaderboard.write(workdir, sweep, every, failures)

        print(f'{sweep.name}: {len(over)} of {len(every)} trials are over', flush=True)
        leaderboard.write(workdir, sweep, every, failures)  # what is wrong in it shows now
        try:
            if todo and not args.leaderboard:
                _run(todo, ended, args, workdir, sweep, over)
        finally:
            leaderboard.write(workdir, sweep, every, failures)
            print(f'leaderboard: {workdir / "leaderboard.html"}', flush=True)
    return failures


def run_table(name: str, args: argparse.Namespace) -> dict[str, str]:
    """Runs what a table lacks, each result added to results/<table>.jsonl when it is there."""
    path = args.results / f'{name}.jsonl'
    rows = tables.load_rows(name).ROWS
    folder = (args.workdir or ROOT / 'runs' / name).resolve()
    missing = run_rows.wanted(rows, path, only=args.only, seed=args.seed)
    asked = {run_rows.runs(*m, folder, rows)[-1].result: m for m in missing}
    todo = group_rows(missing, folder, rows)
    _check_engine(args)
    failures: dict[str, str] = {}
    with logbook.locked(folder):

        def ended(trial: Trial, failure: str) -> None:
            for result in (run.result for run in trial.runs if run.result in asked):
                if result.exists():
                    found = json.loads(result.read_text())
                    try:
                        run_rows.put_line(path, run_rows.make_line(*asked[result], found))
                    except InputError as e:  # one row must not cost the night of the others
                        failure = str(e)
            _say(trial, failure)
            failures.update({trial.name: failure} if failure else {})

        print(f'{name}: {len(missing)} results are missing', flush=True)
        if todo:
            _run(todo, ended, args, folder)
    return failures


def group_rows(
    missing: Sequence[tuple[Row, int]], folder: Path, rows: Sequence[Row]
) -> list[Trial]:
    """A trial for each workdir: rows that evaluate what one row trains wait for each other."""
    groups: dict[Path, Trial] = {}
    for row, seed in missing:
        steps = run_rows.runs(row, seed, folder, rows)
        name = f'{row["name"]} seed {seed}'
        if others := groups.get(steps[0].workdir):
            name = f'{others.name} + {name}'
            steps = [*others.runs, *(s for s in steps if s.result not in _results(others))]
        groups[steps[0].workdir] = Trial(name, tuple(steps), {}, seed)
    return list(groups.values())


def _results(trial: Trial) -> list[Path]:
    return [run.result for run in trial.runs]


def _check_engine(args: argparse.Namespace) -> None:
    if args.engine == 'local':
        if args.address:
            raise InputError('--address is that of a Ray cluster: add --engine=ray')
        return
    try:
        import ray_engine  # only where it is asked for: Ray is an extra
    except ImportError as e:
        raise InputError(f"--engine=ray needs Ray Tune: pip install -e '.[sweep]' ({e})") from e
    ray_engine.check_cluster(args.address)


def _run(
    todo: Sequence[Trial],
    ended: Ended,
    args: argparse.Namespace,
    workdir: Path,
    sweep: Sweep | None = None,
    over: Sequence[Trial] = (),
) -> None:
    if args.engine == 'local':
        local_engine.run(todo, args.jobs, ended)
        return
    import ray_engine

    storage = workdir / 'ray'
    try:
        ray_engine.run(
            todo, ended, address=args.address, storage=storage, cpus=args.cpus_per_trial,
            gpus=args.gpus_per_trial, max_failures=args.max_failures, sweep=sweep, told=over,
        )  # fmt: skip
    finally:
        shutil.rmtree(storage, ignore_errors=True)  # all that counts is in the trials' workdirs


def _say(trial: Trial, failure: str) -> None:
    state = f'failed: {failure}' if failure else 'finished' if trial.finished else 'stopped'
    tqdm.write(f'{trial.name}: {state}')


def _say_strangers(folder: Path, every: Sequence[Trial]) -> None:
    """Trials of an earlier sweep file stay where they are."""
    known = {trial.runs[0].workdir for trial in every}
    old = [p for p in folder.glob('*') if p.is_dir() and p not in known]
    if old:
        print(f'{len(old)} trials in {folder} are not in the sweep file any more; they stay')


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags; argv: instead of the process's own."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('sweep', nargs='?', type=Path, help='sweeps/<sweep>.py')
    parser.add_argument('--rows', default='', help='instead: the name of a table in rows/')
    parser.add_argument('--only', default='', help='with --rows: names of rows, with commas')
    parser.add_argument('--seed', type=int, help='with --rows: this seed only')
    parser.add_argument('--results', type=Path, default=ROOT / HERE / 'results')
    parser.add_argument('--workdir', type=Path, help='default: runs/sweeps/<sweep>, runs/<table>')
    parser.add_argument('--leaderboard', action='store_true', help='write it again, run nothing')
    parser.add_argument('--engine', choices=('local', 'ray'), default='local')
    parser.add_argument('--jobs', type=int, default=0, help='local: trials at once; 0: what fits')
    parser.add_argument('--address', default='', help='ray: HOST:PORT; default: this machine')
    parser.add_argument('--cpus_per_trial', type=float, default=1, help='ray')
    parser.add_argument('--gpus_per_trial', type=float, help='ray; default: 1 if there are any')
    parser.add_argument('--max_failures', type=int, default=3, help='ray: new starts of a trial')
    return parser.parse_args(argv)


def main() -> None:
    args = parse()
    # A scheduler's SIGTERM is a Ctrl-C, which a shell's background jobs ignore: the trials save
    # and end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        failures = run(args)
    except InputError as e:
        print(f'error: {e}', file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print('stopped; the same command goes on', file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    if failures:
        print(f'{len(failures)} failed; the same command tries them again:', file=sys.stderr)
        print(*(f'  {n}: {f}' for n, f in failures.items()), sep='\n', file=sys.stderr)
        sys.exit(1)


if __name__ == '__main__':
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    main()
