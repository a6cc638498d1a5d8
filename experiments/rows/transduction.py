"""Queries answered together (transductive) beside single answers, spread evenly and unevenly.

Made by experiments/compare_transduction.py, not by run_rows.py.
"""

from pathlib import Path

import tables


def table(lines, root: Path = tables.ROOT) -> str:
    """Markdown: a row for each set and number of examples."""
    if not lines:
        return 'Not measured yet.\n'
    head = ('set', 'classes', 'examples of each', 'even: single', 'together', 'gain',
            'uneven: single', 'together', 'gain')  # fmt: skip
    body: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for x in lines:
        key = x['set'], str(x['classes']), str(x['shots'])
        gain = [b - a for a, b in zip(x['single'], x['together'], strict=True)]
        cells = [tables.percent_of_draws(values) for values in (x['single'], x['together'], gain)]
        body.setdefault(key, {})[x['queries']] = cells
    rows = [(*key, *of['even'], *of['uneven']) for key, of in body.items()]
    note = (
        'Accuracy in per cent over ten queries a class on the mean; mean and 95 % interval over '
        'ten draws (t). Together: `AnyShotClassifier(method="refine")`, which fits a mixture of '
        'the classes with their shares to all queries (classify/transduce.py); single: the same '
        'fit with every query by itself. Uneven: shares of the classes from Dirichlet(1). '
        'Features are those that the examples chose (table own_features).'
    )
    return f'{tables.markdown(head, rows)}\n\n{note}\n'
