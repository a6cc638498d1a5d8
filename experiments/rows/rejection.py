"""Scores that tell items of unknown classes: which ranks them best, on sets that choose it.

Made by experiments/compare_rejection.py, not by run_rows.py.
"""

from pathlib import Path

import tables


def table(lines, root: Path = tables.ROOT) -> str:
    """Markdown: a row for each score, the best on emoji first."""
    if not lines:
        return 'Not measured yet.\n'
    mean = lambda values: sum(values) / len(values)
    on_emoji = lambda score: -mean([mean(x['auroc'][score]) for x in lines if x['set'] == 'emoji'])
    head = ('score', *(f'{x["set"]}, {x["classes"]} classes, {x["shots"]} shots' for x in lines))
    body = [
        (score, *(tables.percent_of_draws(x['auroc'][score]) for x in lines))
        for score in sorted(lines[0]['auroc'], key=on_emoji)
    ]
    note = (
        'Area under the ROC curve in per cent, items of known classes against those of a quarter '
        'of the classes that has no example, with a 95 % interval over six draws (t), '
        'by emoji the best first. AnyShotClassifier takes `familiarity` (ops/open_set.py).'
    )
    return f'{tables.markdown(head, body)}\n\n{note}\n'
