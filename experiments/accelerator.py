"""Measures this package on an accelerator in eight minutes: python experiments/accelerator.py

A line of JSON a figure is printed and added to experiments/tables/accelerator_runs.jsonl as soon as
it is there, so that a run that is cut off keeps what it has. Ten items in order of their worth,
each with its own limit in seconds; a call is timed five times after two that count for nothing, and
the median is told. The peer is torch.func on the same card, where PyTorch is installed. The limits
add up to eight minutes, when the command ends whatever it does: no compiler can be interrupted.

    --items=1,2            only these
    --first=2              so many figures of each, the most telling ones
    --tenth                a rehearsal on a CPU: every size divided by ten, one timed call
    --compile_for=h100     nothing is run: programs are compiled by that machine's compiler
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jax

from anyshot_jax import target
from anyshot_jax.runtime import ahead
from anyshot_jax.runtime.start import keep_compiled

HERE = Path(__file__).parent
OUT = HERE / 'tables' / 'accelerator_runs.jsonl'
LIMITS = {1: 60, 2: 100, 3: 40, 4: 40, 5: 50, 6: 40, 7: 40, 8: 40, 9: 30, 10: 40}
NAMES = {
    1: "form of each task's own convolution", 2: 'MAML, a step', 3: 'published schedules',
    4: 'ProtoNet, a step', 5: 'populations', 6: 'encoders', 7: 'PatchCore', 8: 'evaluation',
    9: 'numbers', 10: 'quickstart from a cold start',
}  # fmt: skip
Record = dict[str, Any]


class Bench(NamedTuple):
    """Mode of measuring: run, rehearsed or only compiled."""

    tenth: bool
    machine: str  # for which programs are only compiled; '': for this one, and they are run

    def size(self, full: int, least: int = 1) -> int:
        return max(full // 10, least) if self.tenth else full

    def device(self):
        """Where a program runs, or would run."""
        return ahead.devices(ahead.machine(self.machine))[0] if self.machine else jax.devices()[0]

    def time(self, function: Callable, *args: Any, count: float = 1, **jit: Any) -> Record:
        """Seconds of a call of jit(function), `count` things a second, memory.

        Args:
          args: arrays, or of a program that is only compiled their shapes.
        """
        if self.machine:
            args = ahead.shapes(args, [self.device()])
            platform = (ahead.machine(self.machine).lowering,)
            traced = jax.jit(function, **jit).trace(*args)
            started = time.perf_counter()
            program = traced.lower(lowering_platforms=platform).compile()
        else:
            started = time.perf_counter()
            program = jax.jit(function, **jit).trace(*args).lower().compile()
        record = {'compile_s': round(time.perf_counter() - started, 2)}
        if memory := program.memory_analysis():
            record['temporary_bytes'] = memory.temp_size_in_bytes
        return record if self.machine else record | self.repeat(lambda: program(*args), count)

    def repeat(self, call: Callable[[], Any], count: float = 1) -> Record:
        """Seconds of a call whose result is waited for: the median of five after two, or of one."""
        warm, timed = (0, 1) if self.tenth else (2, 5)
        for _ in range(warm):
            jax.block_until_ready(call())
        times = []
        for _ in range(timed):
            before = time.perf_counter()
            jax.block_until_ready(call())
            times.append(time.perf_counter() - before)
        seconds = statistics.median(times)
        return {'seconds': seconds, 'per_s': count / seconds, 'peak_bytes': peak_bytes()}


def peak_bytes() -> int | None:
    """The most that the device has held; it never falls."""
    return (jax.devices()[0].memory_stats() or {}).get('peak_bytes_in_use')


class TooLong(Exception):
    """An item's limit is over."""


@contextlib.contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raises TooLong inside once they are over; a call into a library ends first."""

    def end(*_):
        raise TooLong

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def quickstart(bench: Bench) -> Iterator[Record]:
    """Item 10: as a user has it, with an empty cache, from the command to the table."""
    if bench.machine:
        yield {'not_compiled': "a process of its own; its programs are like items 4's and 8's"}
        return
    short = ('--config.num_steps=40', '--config.eval.episodes=60') if bench.tenth else ()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, '-m', 'anyshot_jax.main', '--config=configs/quickstart.py',
                   f'--workdir={folder}/run', *short]  # fmt: skip
        env = {**os.environ, 'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}
        env |= {'JAX_COMPILATION_CACHE_DIR': f'{folder}/cache', 'PYTHONPATH': str(HERE.parent)}
        started = time.perf_counter()
        done = subprocess.run(command, cwd=HERE.parent, env=env, capture_output=True, text=True)
        seconds = time.perf_counter() - started
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        result = json.loads(Path(folder, 'run', 'result.json').read_text())
        means = {name: value['mean'] for name, value in result['values'].items()}
        yield {'seconds': seconds, 'values': means}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--items', default=','.join(map(str, LIMITS)))
    parser.add_argument('--first', type=int, help='So many figures of each item.')
    parser.add_argument('--tenth', action='store_true')
    parser.add_argument('--compile_for', default='', choices=('', *ahead.MACHINES))
    parser.add_argument('--out', type=Path, default=OUT)
    parser.add_argument('--slower', type=float, default=1.0, help='Limits times this.')
    args = parser.parse_args()
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # PyTorch's process needs some
    keep_compiled()
    sys.path.insert(0, str(HERE))
    import accelerator_items as items

    work = {**items.ITEMS, 10: quickstart}
    bench = Bench(args.tenth, args.compile_for)
    device = args.compile_for or jax.devices()[0].device_kind
    kind = 'compiled only' if args.compile_for else 'rehearsal at a tenth' if args.tenth else 'run'
    fixed = {'device': device, 'kind': kind, 'jax': jax.__version__,
             'python': sys.version.split()[0]}  # fmt: skip

    def write(number: int, record: Record) -> None:
        line = {'item': number, 'what': NAMES[number], **record, **fixed}
        text = json.dumps({k: _short(v) for k, v in line.items() if v is not None})
        print(text, flush=True)
        with args.out.open('a') as file:
            file.write(text + '\n')

    args.out.parent.mkdir(exist_ok=True)
    chosen = [int(item) for item in args.items.split(',')]
    number, deadline = chosen[0], time.perf_counter() + args.slower * sum(LIMITS[n] for n in chosen)

    def give_up() -> None:
        write(number, {'end': 'cut off by the limit of the whole'})
        os._exit(1)

    last = threading.Timer(deadline - time.perf_counter(), give_up)
    last.daemon = True
    last.start()
    platform = ahead.machine(args.compile_for).platform if args.compile_for else target.platform()
    for number in chosen:
        started = time.perf_counter()
        try:
            with target.written_for(platform), limit(args.slower * LIMITS[number]):
                for record in islice(work[number](bench), args.first):
                    write(number, record)
            end = 'done' if args.first is None else f'first {args.first} done'
        except TooLong:
            end = 'cut off by its limit'
        except Exception:  # the next item may still run
            end = traceback.format_exc(limit=-3)[-1500:]
        write(number, {'end': end, 'item_s': time.perf_counter() - started})


def _short(value: Any) -> Any:
    return float(f'{value:.4g}') if isinstance(value, float) else value


if __name__ == '__main__':
    main()
