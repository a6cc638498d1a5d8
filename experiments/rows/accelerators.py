"""Full-size training steps by the compilers of accelerators that were not there.

Made by experiments/accelerators_table.py, not by run_rows.py.
"""

from pathlib import Path

import tables

COLUMNS = (
    'step', 'machine', 'jax', 'GFLOP', 'GB moved', 'GB temporary', 'M cycles', 'M cycles a task',
    'convolutions', 'of them in groups',
)  # fmt: skip


def table(lines, root: Path = tables.ROOT) -> str:
    """Markdown: the newest line of each step and machine."""
    if not lines:
        return 'Not measured yet.\n'
    newest = {(x['machine'], x['step']): x for x in lines}
    body = [[_cell(x, c) for c in COLUMNS] for x in newest.values()]
    body.sort(key=lambda cells: cells[1], reverse=True)
    note = (
        'Conv4-64, 28x28, 5-way 1-shot, 15 queries, 32 tasks a step and seed on one device, images '
        "as many as Omniglot's training classes have. Nothing ran: a TPU's compiler estimates "
        'cycles (1.5 G a second on a v5e; loops as often as they run), good for comparing two '
        "forms of a program, not for promising a time; a GPU's says neither cycles nor bytes. "
        "Bytes moved are those of XLA's count, a loop's body once."
    )
    refused = [f'{x["step"]}, {x["machine"]}: {x["not compiled"]}' for x in newest.values()
               if 'not compiled' in x]  # fmt: skip
    return '\n\n'.join([tables.markdown(COLUMNS, body), note, *refused]) + '\n'


def _cell(line: dict, column: str) -> str:
    value = line.get(column)
    return tables.NO_VALUE if value is None else str(value)
