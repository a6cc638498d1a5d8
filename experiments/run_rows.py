"""Runs what a published table still lacks: python experiments/run_rows.py rows/omniglot_fewshot.py

Every (row, seed) without a line in results/<table>.jsonl is trained by the command that a user
would type, in a workdir of its own that has its log.txt; an interrupted one goes on from its
checkpoint. --only and --seed choose rows and seeds, --engine and --jobs say where and how many at
once. Datasets are found through ANYSHOT_DATA_DIR.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import tables
from tables import HERE, ROOT, Line, Row

from anyshot_jax.config import config_hash
from anyshot_jax.storage.lock import Lock, beside
from anyshot_jax.sweep import run as engine
from anyshot_jax.sweep import trials
from anyshot_jax.sweep.command import add_engine_flags, call
from anyshot_jax.sweep.recipes import load_config
from anyshot_jax.sweep.trials import Run, Trial
from anyshot_jax.training import logbook
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
    """Pending work of the rows named in `only`, or of all.

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
    return not tables.changed(line, load_config(row['config'], overrides, root))


def make_line(row: Row, seed: int, result: dict, root: Path = ROOT) -> Line:
    """A result.json with what says how it was made.

    Raises:
      InputError: it was made by another config.
    """
    overrides = tables.seeded(row, seed)
    config = load_config(row['config'], overrides, root)
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
    with Lock(beside(path), '', wait=True):  # another call's runs may end just now
        old = tables.read_lines(path)
        keep = [x for x in old if (x['row'], x['seed']) != (line['row'], line['seed'])]
        tables.write_lines(path, [*keep, line])


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
    config = load_config(row['config'], overrides, ROOT)
    return [first, Run(row['config'], overrides, first.workdir, config)]


def _run(row: Row, seed: int, folder: Path) -> Run:
    overrides = tuple(tables.seeded(row, seed))
    config = load_config(row['config'], overrides, ROOT)
    workdir = trials.workdir_of(config, f'{row["name"]}-seed{seed}', folder)
    return Run(row['config'], overrides, workdir, config)


def run_table(name: str, args: argparse.Namespace) -> dict[str, str]:
    """Runs what a table lacks, each result added to results/<table>.jsonl when it is there."""
    path = args.results / f'{name}.jsonl'
    rows = tables.load_rows(name).ROWS
    folder = args.workdirs.resolve() / name
    missing = wanted(rows, path, only=args.only, seed=args.seed)
    if args.list:
        for row, seed in missing:
            print(f'{name}: {row["name"]}, seed {seed}')
        return {}
    asked = {runs(*m, folder, rows)[-1].result: m for m in missing}
    todo = group_rows(missing, folder, rows)
    engine.check_flags(args)
    engine.check_engine(args)
    failures: dict[str, str] = {}
    with logbook.locked(folder):

        def ended(trial: Trial, failure: str) -> None:
            for result in (run.result for run in trial.runs if run.result in asked):
                if result.exists():
                    found = json.loads(result.read_text())
                    try:
                        put_line(path, make_line(*asked[result], found))
                    except InputError as e:  # one row must not cost the night of the others
                        failure = str(e)
            engine.say(trial, failure)
            failures.update({trial.name: failure} if failure else {})

        print(f'{name}: {len(missing)} results are missing', flush=True)
        if todo:
            engine.start(todo, ended, args, folder)
    return failures


def group_rows(
    missing: Sequence[tuple[Row, int]], folder: Path, rows: Sequence[Row]
) -> list[Trial]:
    """A trial for each workdir: rows that evaluate what one row trains wait for each other."""
    groups: dict[Path, Trial] = {}
    for row, seed in missing:
        steps = runs(row, seed, folder, rows)
        name = f'{row["name"]} seed {seed}'
        if others := groups.get(steps[0].workdir):
            name = f'{others.name} + {name}'
            steps = [*others.runs, *(s for s in steps if s.result not in _results(others))]
        groups[steps[0].workdir] = Trial(name, tuple(steps), {}, seed)
    return list(groups.values())


def _results(trial: Trial) -> list[Path]:
    return [run.result for run in trial.runs]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('rows', help='rows/<table>.py, or the name of the table')
    parser.add_argument('--only', default='', help='names of rows, with commas')
    parser.add_argument('--seed', type=int, help='this seed only')
    parser.add_argument('--workdirs', type=Path, default=ROOT / 'runs', help='where the runs go')
    parser.add_argument('--results', type=Path, default=ROOT / HERE / 'results')
    parser.add_argument('--list', action='store_true', help='say what is missing, run nothing')
    add_engine_flags(parser)
    parser.set_defaults(jobs=1)  # minutes of a row are those of the whole machine
    args = parser.parse_args()
    args.workdirs, args.results = args.workdirs.resolve(), args.results.resolve()
    os.chdir(ROOT)  # rows name recipes by their paths in the checkout
    call(lambda: run_table(Path(args.rows).stem, args))


if __name__ == '__main__':
    main()
