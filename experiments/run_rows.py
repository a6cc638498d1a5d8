"""Runs what a published table still lacks: python experiments/run_rows.py rows/omniglot_fewshot.py

Every (row, seed) without a line in results/<table>.jsonl is trained by the command that a user
would type, in a workdir of its own; an interrupted one goes on from its checkpoint. --only and
--seed choose rows and seeds. Datasets are found through ANYSHOT_DATA_DIR.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import tables
from ml_collections import ConfigDict
from tables import HERE, ROOT, Line, Row

from anyshot_jax import config as configs
from anyshot_jax import files
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
    old = tables.read_lines(path)
    keep = [x for x in old if (x['row'], x['seed']) != (line['row'], line['seed'])]
    tables.write_lines(path, [*keep, line])


def run(row: Row, seed: int, folder: Path, rows: Sequence[Row] = ()) -> Line:
    """One run to its end in folder/<row>-seed<n>-<hash>, or what is left of it.

    A row with `trained_by` evaluates what that row has trained, which is trained first if need be.

    Raises:
      InputError: `trained_by` names no row, or the run was stopped before its end.
    """
    config = _config(row, seed)
    if 'trained_by' in row:
        trained = next((r for r in rows if r['name'] == row['trained_by']), None)
        if trained is None:
            raise InputError(f'{row["name"]}: no row is called {row["trained_by"]!r}')
        workdir = _workdir(trained, seed, folder)
        if not (workdir / 'result.json').exists():
            _start(trained, seed, workdir)
        _start(row, seed, workdir, '--config.eval_only=True')
        result = workdir / f'eval-{config_hash(config)}.json'
    else:
        workdir = _workdir(row, seed, folder)
        _start(row, seed, workdir)
        last = workdir / config.stages[-1] if 'stages' in config else workdir
        result = last / 'result.json'
    if not result.exists():
        raise InputError(f'{workdir} was stopped before its end; the same command goes on')
    return make_line(row, seed, json.loads(result.read_text()))


def _start(row: Row, seed: int, workdir: Path, *more: str) -> None:
    """The command that a user would type."""
    overrides = [f'--config.{o}' for o in tables.seeded(row, seed)]
    command = ['-m', 'anyshot_jax.main', f'--config={row["config"]}', *overrides, *more]
    command.append(f'--workdir={workdir}')
    print(shlex.join(['python', *command]), flush=True)
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


def _config(row: Row, seed: int) -> ConfigDict:
    return tables.load_config(row['config'], tables.seeded(row, seed))


def _workdir(row: Row, seed: int, folder: Path) -> Path:
    """Where the row's run is, also if the package has gained fields since it began."""
    config = _config(row, seed)
    made = f'{row["name"]}-seed{seed}'
    for workdir in sorted(folder.glob(f'{made}-*')):
        old = files.read_json(workdir / 'config.json')
        if old and not configs.differences(old, json.loads(configs.to_json(config))):
            return workdir
    return folder / f'{made}-{config_hash(config)}'


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
        unknown = set(filter(None, args.only.split(','))) - {row['name'] for row in rows}
        if unknown:
            raise InputError(f'no row {", ".join(sorted(unknown))} in {args.rows}')
        for row, seed in list(
            pending(rows, tables.read_lines(path), only=args.only, seed=args.seed)
        ):
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
