"""Writes the tables from results/*.jsonl: python experiments/tables.py [--check]

Each goes to tables/<name>.md; in the README one stands between `<!-- table:NAME -->` and
`<!-- /table -->`. NAME is a file of rows/. With --check nothing is written, and the exit code is 1
if a file says anything else.
"""

import argparse
import json
import math
import os
import re
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import recipe_list
from ml_collections import ConfigDict

from anyshot_jax import config as configs
from anyshot_jax.config import NOT_HASHED, config_hash
from anyshot_jax.storage import files
from anyshot_jax.sweep.recipes import load_config, load_module
from anyshot_jax.training.intervals import interval_over_seeds
from anyshot_jax.types import ACCURACY, InputError, Measure, nearest

ROOT = Path(__file__).resolve().parent.parent
HERE = Path('experiments')  # inside a root: tests have roots of their own
MARKED = re.compile(r'<!-- table:(\w+) -->\n(.*?)<!-- /table -->', re.DOTALL)
NO_VALUE = '-'

Row = dict[str, Any]
Line = dict[str, Any]


# Files.


def load_rows(name: str, root: Path = ROOT) -> ModuleType:
    """The module rows/<name>.py: COLUMNS and ROWS."""
    return load_module(root / HERE / 'rows' / f'{name}.py')


def read_lines(path: Path) -> list[Line]:
    """The records of a .jsonl; none if it isn't there."""
    if not path.exists():
        return []
    lines = []
    for number, text in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError as e:
            raise InputError(f'{path}:{number} is not JSON: {e}') from e
    return lines


def write_lines(path: Path, lines: Iterable[Line]) -> None:
    """Replaces the file as a whole, so that an interruption leaves the old one."""
    files.write_text(path, ''.join(json.dumps(line) + '\n' for line in lines))


def machine(device: str, num_devices: int) -> str:
    """Name of a result's machine in a table."""
    if device.lower() != 'cpu':
        return device if num_devices == 1 else f'{num_devices} x {device}'
    affinity = getattr(os, 'sched_getaffinity', None)
    return f'{len(affinity(0)) if affinity else os.cpu_count()} CPU cores'


# Configs, and whether a result is still that of its config.


def seeded(row: Row, seed: int) -> list[str]:
    """A row's overrides for one seed: `seed=` comes last, unless they place {seed} themselves."""
    given = ' '.join(row['overrides'])
    overrides = [*row['overrides']] if '{seed}' in given else [*row['overrides'], 'seed={seed}']
    return [o.replace('{seed}', str(seed)) for o in overrides]


def published_config(config: ConfigDict) -> dict:
    """The config as a line keeps it: without the paths of a machine."""
    fields = json.loads(configs.to_json(config))
    for part in (fields, *(fields[name] for name in fields.get('stages', ()))):
        part.get('data', {})['dir'] = ''
        for name in NOT_HASHED:
            part.pop(name, None)
    return fields


def changed(line: Line, config: ConfigDict) -> list[str]:
    """'config.a: 1 -> 2' for every field in which `config` isn't what the line was made by.

    A field that is newer than the line is no change: defaults of new fields keep what was before.
    """
    return configs.differences(line['config'], _known(published_config(config), line['config']))


def _known(fields: dict, old: dict) -> dict:
    return {
        k: _known(v, old[k]) if isinstance(v, dict) and isinstance(old[k], dict) else v
        for k, v in fields.items()
        if k in old
    }


def check_lines(name: str, lines: list[Line], rows: Sequence[Row], root: Path = ROOT) -> None:
    """Refuses lines that can't be shown as results of the rows.

    Raises:
      InputError: names the line: no such row, twice the same seed, a config file that isn't there,
        one that was changed since, or a record that contradicts itself.
    """
    by_name = {row['name']: row for row in rows}
    seen = set()
    for number, line in enumerate(lines, 1):
        where = f'{name}.jsonl:{number} ({line.get("row")}, seed {line.get("seed")})'
        row = by_name.get(line.get('row', ''))
        if row is None:
            raise InputError(f'{where}: no such row{nearest(str(line.get("row")), by_name)}')
        if (line['row'], line['seed']) in seen:
            raise InputError(f'{where}: this row and seed stands there twice')
        seen.add((line['row'], line['seed']))
        if config_hash(ConfigDict(line['config'])) != line['config_hash']:
            raise InputError(f'{where}: its config does not have its hash {line["config_hash"]}')
        overrides = seeded(row, line['seed'])
        if (line['recipe'], line['overrides']) != (row['config'], overrides):
            raise InputError(
                f'{where}: made by {line["recipe"]} {line["overrides"]}, '
                f'but the row says {row["config"]} {overrides}'
            )
        try:
            fields = changed(line, load_config(row['config'], overrides, root))
        except InputError as e:
            raise InputError(f'{where}: {e}') from e
        if fields:
            raise InputError(
                f'{where}: {row["config"]} was changed since; run the row again or undo:\n  '
                + '\n  '.join(fields)
            )


# Tables.


def results_table(lines: list[Line], rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Markdown: one line a row, in the order of the rows; those without results are named below."""
    measure = Measure(**next((x['measure'] for x in lines if 'measure' in x), ACCURACY._asdict()))
    head = ('', *columns, 'seeds', 'episodes', 'batch norm', 'minutes', 'machine', 'published')
    body = []
    missing = []
    for row in rows:
        runs = sorted((x for x in lines if x['row'] == row['name']), key=lambda x: x['seed'])
        if not runs:
            missing.append(row['title'])
            continue
        cells = [cell([r['values'].get(column) for r in runs], measure) for column in columns]
        episodes = [v['n'] for r in runs for c, v in r['values'].items() if c in columns]
        minutes = statistics.mean(r['seconds'] for r in runs) / 60
        body.append(
            (
                row['title'],
                *cells,
                str(len(runs)),
                _distinct(episodes),
                _distinct(r['batch_norm'] for r in runs),
                f'{minutes:.1f}' if minutes > 0 else NO_VALUE,
                _distinct(r['machine'] for r in runs),
                _published(row),
            )
        )
    note = (
        f'Test {measure.name}{" in per cent" * measure.percent} with a 95 % confidence interval: '
        'over episodes where there is '
        "one seed, over the seeds' means (Student's t) where there are more. Minutes are those of "
        'training, validation included, the mean over seeds.'
    )
    if missing:
        note += f' Without a result so far: {"; ".join(missing)}.'
    return f'{markdown(head, body)}\n\n{note}\n'


def cell(values: Sequence[dict | None], measure: Measure = ACCURACY) -> str:
    """'98.86 ± 0.07' from the records of one column, one a seed."""
    known = [v for v in values if v is not None]
    if not known:
        return NO_VALUE
    means = [v['mean'] for v in known]
    if not all(map(math.isfinite, means)):
        return 'diverged'  # in a task at least, and with it the mean
    half = interval_over_seeds(means) if len(known) > 1 else known[0]['ci95']
    unit, digits = (100, 2) if measure.percent else (1, 3)
    return f'{unit * statistics.mean(means):.{digits}f} ± {unit * half:.{digits}f}'


def markdown(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [head, ['---'] * len(head), *body]
    return '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines)


def percent_of_draws(values: Sequence[float]) -> str:
    """Mean of shares and their 95 % interval over draws (t), in per cent."""
    return f'{100 * statistics.mean(values):.1f} ± {100 * interval_over_seeds(values):.1f}'


def _distinct(values: Iterable[Any]) -> str:
    return ', '.join(dict.fromkeys(str(v) for v in values)) or NO_VALUE


def _published(row: Row) -> str:
    if not row['published']:
        return NO_VALUE
    return f'{" / ".join(str(v) for v in row["published"])} ({row["source"]})'


# Documents.


def table(name: str, root: Path = ROOT) -> str:
    """The table of results/<name>.jsonl as Markdown, its lines checked."""
    lines = read_lines(root / HERE / 'results' / f'{name}.jsonl')
    module = load_rows(name, root)
    if hasattr(module, 'table'):  # it has no ROWS that run_rows.py runs
        return module.table(lines, root)
    check_lines(name, lines, module.ROWS, root)
    return results_table(lines, module.ROWS, module.COLUMNS)


def documents(root: Path = ROOT) -> dict[Path, str]:
    """Every file that has tables, with the content that the results give it.

    Those are tables/<name>.md, one for each file of rows/, their index, configs/README.md, and
    README.md, whose tables stand between markers.

    Raises:
      InputError: a table that can't be made.
    """
    folder = root / HERE / 'tables'
    titles = {}
    for path in sorted((root / HERE / 'rows').glob('*.py')):
        titles[path.stem] = (load_rows(path.stem, root).__doc__ or path.stem).strip()
    contents = {
        folder / f'{name}.md': f'# {name}\n\n{title}\n\n{table(name, root)}'
        for name, title in titles.items()
    }
    index = [f'- [{name}]({name}.md): {titles[name].splitlines()[0]}' for name in sorted(titles)]
    contents[folder / 'README.md'] = (
        '# Tables\n\nWritten by `python experiments/tables.py` from `experiments/results`; each '
        'row has a committed results line and the recipe that reruns it.\n\n'
        + '\n'.join(index)
        + '\n'
    )
    results = [read_lines(p) for p in sorted((root / HERE / 'results').glob('*.jsonl'))]
    rows = [line for lines in results for line in lines if {'row', 'recipe'} <= line.keys()]
    contents[root / 'configs' / 'README.md'] = recipe_list.page(root / 'configs', rows)
    readme = root / 'README.md'
    if readme.exists():
        fill = lambda m: f'<!-- table:{m[1]} -->\n{table(m[1], root)}<!-- /table -->'
        contents[readme] = MARKED.sub(fill, readme.read_text(encoding='utf-8'))
    return contents


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--check', action='store_true', help='write nothing, compare')
    args = parser.parse_args()
    try:
        for path, text in documents().items():
            if path.exists() and path.read_text(encoding='utf-8') == text:
                continue
            if args.check:
                sys.exit(
                    f'{path.relative_to(ROOT)} differs from experiments/results: run '
                    'python experiments/tables.py'
                )
            files.write_text(path, text)
    except InputError as e:
        sys.exit(f'error: {e}')


if __name__ == '__main__':
    main()
