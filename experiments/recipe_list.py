"""configs/README.md, the list of recipes: their docstrings and what each reached."""

import ast
import inspect
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

MOST = 4  # values shown of a result

INTRODUCTION = """# Recipes

Each is one file: `python -m anyshot_jax.main --config=NAME`, or `--config=NAME:VARIANT`; every
field is a flag, `--config.field=value`. Written by `python experiments/tables.py` from the
docstrings and the results; minutes are those of training on the machine that the
[tables](../experiments/tables/README.md) name, test values are means over seeds.

"""


def page(configs: Path, lines: Iterable[dict[str, Any]]) -> str:
    """Markdown: a line for each recipe, then its docstring and results.

    Args:
      configs: the folder of recipes. lines: result lines that name a recipe, of all tables.
    """
    by_recipe: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        by_recipe.setdefault(Path(line['recipe'].split(':')[0]).stem, []).append(line)
    index, sections = [], []
    for file in sorted(configs.glob('*.py')):
        text = ast.get_docstring(ast.parse(file.read_text(encoding='utf-8'))) or ''
        first, _, rest = text.partition('\n')
        index.append(f'| [{file.stem}](#{file.stem}) | {first} |')
        body = _code_blocks(rest.strip())
        sections.append(
            f'## {file.stem}\n\n{first}\n\n{body}\n{_results(by_recipe.get(file.stem, []))}'
        )
    head = '| recipe | |\n| --- | --- |\n'
    return f'{INTRODUCTION}{head}{chr(10).join(index)}\n\n{chr(10).join(sections)}'


def _code_blocks(text: str) -> str:
    """Lines that are commands or flags become code."""
    lines = []
    for line in inspect.cleandoc(text).splitlines():
        command = line.strip().startswith(('python ', '--config'))
        lines.append(f'    {line.strip()}' if command and not line.startswith('    ') else line)
    return '\n'.join(lines)


def _results(lines: Sequence[dict[str, Any]]) -> str:
    runs: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for line in lines:
        fields = [o for o in line['overrides'] if 'seed' not in o.partition('=')[0]]
        runs.setdefault((line['recipe'], *fields), []).append(line)
    if not runs:
        return ''
    rows = []
    for (recipe, *fields), every in runs.items():
        _, colon, variant = recipe.partition(':')
        percent = every[0].get('measure', {}).get('percent', True)
        names = list(every[0]['values'])[:MOST]
        means = [statistics.mean(e['values'][n]['mean'] for e in every) for n in names]
        values = ', '.join(
            f'{name} {100 * mean:.1f}' if percent else f'{name} {mean:.3f}'
            for name, mean in zip(names, means, strict=True)
        )
        minutes = statistics.mean(e['seconds'] for e in every) / 60
        shown = ' '.join(f'`{part}`' for part in (*([f':{variant}'] if colon else []), *fields))
        rows.append(
            f'| {shown or "as it is"} | {values} | {len(every)} | '
            f'{f"{minutes:.1f}" if minutes >= 0.05 else "-"} |'
        )
    head = '| variant and fields | test values | seeds | minutes |\n| --- | --- | --- | --- |\n'
    return f'\n{head}{chr(10).join(rows)}\n'
