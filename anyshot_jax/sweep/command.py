"""python -m anyshot_jax.sweep SWEEP.py [--engine=local|ray]: runs many trials at once.

A sweep file says which recipe, which values of which fields, and which seeds. A trial is a workdir
of its own, so the same command goes on where it was stopped and skips what is finished. The engine
`local` starts processes of this machine; `ray` uses a running cluster
(`pip install 'anyshot-jax[sweep]'`, `ray start --head`). Bad input ends in one line and exit code
2, a trial that failed in 1.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from anyshot_jax.sweep.run import run
from anyshot_jax.types import InputError


def add_engine_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that say where trials run."""
    parser.add_argument('--engine', choices=('local', 'ray'), default='local')
    parser.add_argument('--jobs', type=int, default=0, help='local: trials at once; 0: what fits')
    parser.add_argument('--address', default='', help='ray: HOST:PORT; default: this machine')
    parser.add_argument('--cpus_per_trial', type=float, default=1, help='ray')
    parser.add_argument('--gpus_per_trial', type=float, help='ray; default: 1 if there are any')
    parser.add_argument('--max_failures', type=int, default=3, help='ray: new starts of a trial')


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The flags; argv: instead of the process's own."""
    parser = argparse.ArgumentParser(
        prog='python -m anyshot_jax.sweep', description=(__doc__ or '').split('\n\n')[1]
    )
    parser.add_argument('sweep', type=Path, help='a sweep file')
    parser.add_argument('--workdir', type=Path, help='default: runs/sweeps/<sweep>')
    parser.add_argument('--leaderboard', action='store_true', help='write it again, run nothing')
    add_engine_flags(parser)
    return parser.parse_args(argv)


def call(run: Callable[[], dict[str, str]]) -> None:
    """Ends the process as `run`'s failures (by names of trials), errors and Ctrl-C ask for."""
    # A scheduler's SIGTERM is a Ctrl-C, which a shell's background jobs ignore: the trials save
    # and end.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        failures = run()
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


def cli() -> None:
    args = parse()
    call(lambda: run(args))
