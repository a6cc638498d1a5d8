"""Seeds trained by one program, beside the same seeds in sequence.

Made by experiments/bench_population.py, not by run_rows.py.
"""

from pathlib import Path

import tables


def table(lines, root: Path = tables.ROOT) -> str:
    """Markdown: wall time, peak memory, and how far the numbers are apart."""
    if not lines:
        return 'Not measured yet.\n'
    head = (
        '', 'in sequence, s', 'one program, s', 'ratio', 'peak memory in sequence, MB',
        'one program, MB', 'largest difference of a test accuracy', 'machine',
    )  # fmt: skip
    body = [
        (
            x['what'],
            f'{x["sequence_s"]:.0f}',
            f'{x["program_s"]:.0f}',
            f'{x["sequence_s"] / x["program_s"]:.2f}',
            str(x['sequence_peak_mb']),
            str(x['program_peak_mb']),
            f'{100 * x["largest_difference"]:.2f} points',
            f'{x["machine"]}, jax {x["jax"]}',
        )
        for x in lines
    ]
    note = (
        'Whole processes from start to report, each side with an empty cache of compiled programs, '
        'which the runs in sequence share (experiments/bench_population.py).'
    )
    return f'{tables.markdown(head, body)}\n\n{note}\n'
