"""Seeds in one program beside the same seeds in sequence: python experiments/bench_population.py

Both sides are whole processes by the command that a user would type: MAML on Omniglot with Conv4-32
and the paper's 32 tasks of 5-way 1-shot a step, from start to report. Each side starts with an
empty cache of compiled programs, which the runs in sequence share. Wall time is of the whole side,
memory the largest process's peak. The members' test values must be those of the runs alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tables
from tables import HERE, ROOT

RECIPE = 'configs/omniglot_maml.py'
FIELDS = ('net.features=32', 'steps_per_call=50', 'eval.episodes=600', 'eval.val_episodes=100')


def run(workdir: Path, cache: Path, *fields: str) -> tuple[float, int, dict]:
    """Wall seconds, peak bytes and result.json of one process."""
    flags = [f'--config.{f}' for f in (*FIELDS, *fields)]
    command = [sys.executable, '-m', 'anyshot_jax.main', f'--config={RECIPE}', *flags]
    start = time.monotonic()
    process = subprocess.Popen(
        [*command, f'--workdir={workdir}'], cwd=ROOT, stdout=subprocess.DEVNULL,
        env={**os.environ, 'JAX_COMPILATION_CACHE_DIR': str(cache)},
    )  # fmt: skip
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f'exit code {process.returncode}: {" ".join(command)}')
    result = json.loads((workdir / 'result.json').read_text())
    return time.monotonic() - start, used.ru_maxrss * 1024, result


def difference(member: dict, alone: dict) -> float:
    """The largest between the test means of a member and of its run alone."""
    return max(abs(member['values'][t]['mean'] - v['mean']) for t, v in alone['values'].items())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--seeds', type=int, default=8)
    parser.add_argument('--steps', type=int, default=200)
    parser.add_argument('--out', type=Path, default=ROOT / HERE / 'results' / 'population.jsonl')
    args = parser.parse_args()
    length = [f'{name}={args.steps}' for name in ('num_steps', 'eval_every', 'save_every')]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        alone = []
        for seed in range(args.seeds):
            alone.append(run(folder / str(seed), folder / 'cache1', f'seed={seed}', *length))
            print(f'seed {seed}: {alone[-1][0]:.1f} s', flush=True)
        one = run(folder / 'all', folder / 'cache2', f'num_seeds={args.seeds}', *length)
    pairs = zip(one[2]['members'], (result for *_, result in alone), strict=True)
    line = {
        'what': f'{args.seeds} seeds of MAML (Conv4-32), {args.steps} steps',
        'sequence_s': round(sum(seconds for seconds, *_ in alone), 1),
        'program_s': round(one[0], 1),
        'sequence_peak_mb': round(max(peak for _, peak, _ in alone) / 1e6),
        'program_peak_mb': round(one[1] / 1e6),
        'largest_difference': max(difference(*pair) for pair in pairs),
        'machine': tables.machine(one[2]['device'], one[2]['num_devices']),
        'jax': one[2]['versions']['jax'],
    }
    print(json.dumps(line))
    keep = [x for x in tables.read_lines(args.out) if x['what'] != line['what']]
    tables.write_lines(args.out, [*keep, line])


if __name__ == '__main__':
    main()
