"""Runs what a published table still lacks: python experiments/run_rows.py rows/omniglot_fewshot.py

Every (row, seed) without a line in results/<table>.jsonl is trained by the command that a user
would type, in a workdir of its own; an interrupted one goes on from its checkpoint. --only and
--seed choose rows and seeds. Datasets are found through ANYSHOT_DATA_DIR.
"""

import argparse
import fcntl
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import tables
import trials
from tables import HERE, ROOT, Line, Row
from trials import Run

from anyshot_jax.evaluate import config_hash
from anyshot_jax.types import InputError


def pending(rows, lines: list[Line], *, only: str = '', seed: int | None = None, root: Path = ROOT):
    """(row, seed) of every wanted run without a line that still holds."""
    for row in rows:
        if only and row['name'] not in only.split(','):
            continue
        for s in row['seeds'] if seed is None else (seed,):
            if not any(_holds(line, row, s, root) for line in lines):
                yield row, s


def wanted(rows, path: Path, *, only: str = '', seed: int | None = None) -> list[tuple[Row, int]]:
    """What is pending, of the rows named in `only` or of all.

    Raises:
      InputError: `only` names no row.
    """
    unknown = set(filter(None, only.split(','))) - {row['name'] for row in rows}
    if unknown:
        raise InputError(f'no row {", ".join(sorted(unknown))} in {path.stem}')
    return list(pending(rows, tables.read_lines(path), only=only, seed=seed))


def _holds(line: Line, row: Row, seed: int, root: Path) -> bool:
    overrides = tables.seeded(row, seed)
    made_by = (line['row'], line['recipe'], line['overrides'])
    if made_by != (row['name'], row['config'], overrides):
        return False
    return not tables.changed(line, tables.load_config(row['config'], overrides, root))


def make_line(row: Row, seed: int, result: dict, root: Path = ROOT) -> Line:
    """A result.json with what says how it was made.

    Raises:
      InputError: it was made by another config.
    """
    overrides = tables.seeded(row, seed)
    config = tables.load_config(row['config'], overrides, root)
    stage = config[config.stages[-1]] if 'stages' in config else config
    if config_hash(stage) != result['config_hash']:
        raise InputError(
            f'{row["name"]}: result.json was made by another config; use a new workdir'
        )
    return {
        'row': row['name'],
        **result,
        'seed': seed,
        'recipe': row['config'],
        'overrides': overrides,
        'machine': tables.machine(result['device'], result['num_devices']),
        'config_hash': config_hash(config),
        'config': tables.published_config(config),
    }


def put_line(path: Path, line: Line) -> None:
    """Appends the line; an older one of the same row and seed goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # another table's or sweep's runs may end just now
        old = tables.read_lines(path)
        keep = [x for x in old if (x['row'], x['seed']) != (line['row'], line['seed'])]
        tables.write_lines(path, [*keep, line])
    finally:
        os.close(folder)


def runs(row: Row, seed: int, folder: Path, rows: Sequence[Row] = ()) -> list[Run]:
    """The calls of main.py that the row's result takes, in folder/<row>-seed<n>-<hash>.

    A row with `trained_by` evaluates what that row has trained, which is trained first if need be.

    Raises:
      InputError: `trained_by` names no row.
    """
    if 'trained_by' not in row:
        return [_run(row, seed, folder)]
    trained = next((r for r in rows if r['name'] == row['trained_by']), None)
    if trained is None:
        raise InputError(f'{row["name"]}: no row is called {row["trained_by"]!r}')
    first = _run(trained, seed, folder)
    overrides = (*tables.seeded(row, seed), 'eval_only=True')
    config = tables.load_config(row['config'], overrides)
    return [first, Run(row['config'], overrides, first.workdir, config)]


def _run(row: Row, seed: int, folder: Path) -> Run:
    overrides = tuple(tables.seeded(row, seed))
    config = tables.load_config(row['config'], overrides)
    workdir = trials.workdir_of(config, f'{row["name"]}-seed{seed}', folder)
    return Run(row['config'], overrides, workdir, config)


def run(row: Row, seed: int, folder: Path, rows: Sequence[Row] = ()) -> Line:
    """One run to its end, or what is left of it.

    Raises:
      InputError: `trained_by` names no row, or the run was stopped before its end.
    """
    steps = runs(row, seed, folder, rows)
    for i, step in enumerate(steps):
        if i == len(steps) - 1 or not step.result.exists():
            print(shlex.join(['python', *step.command]), flush=True)
            subprocess.run([sys.executable, *step.command], cwd=ROOT, check=True)
        if not step.result.exists():  # a SIGTERM ends with 0 too
            raise InputError(f'{step.workdir} was stopped before its end; the same command goes on')
    return make_line(row, seed, json.loads(steps[-1].result.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('rows', help='rows/<table>.py, or the name of the table')
    parser.add_argument('--only', default='', help='names of rows, with commas')
    parser.add_argument('--seed', type=int, help='this seed only')
    parser.add_argument('--workdirs', type=Path, default=ROOT / 'runs', help='where the runs go')
    parser.add_argument('--results', type=Path, default=ROOT / HERE / 'results')
    parser.add_argument('--list', action='store_true', help='say what is missing, run nothing')
    args = parser.parse_args()
    name = Path(args.rows).stem
    path = args.results / f'{name}.jsonl'
    failed = []
    try:
        rows = tables.load_rows(name).ROWS
        for row, seed in wanted(rows, path, only=args.only, seed=args.seed):
            print(f'{name}: {row["name"]}, seed {seed}', flush=True)
            if args.list:
                continue
            try:
                put_line(path, run(row, seed, args.workdirs.resolve() / name, rows))
            except subprocess.CalledProcessError as e:
                # One row that fails must not cost the night of the others.
                failed.append(f'{row["name"]}, seed {seed} (exit code {e.returncode})')
    except InputError as e:
        sys.exit(f'error: {e}')
    if failed:
        sys.exit(f'failed: {"; ".join(failed)}')


if __name__ == '__main__':
    main()
