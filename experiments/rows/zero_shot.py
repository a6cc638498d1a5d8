"""Zero-shot accuracy over random splits of the classes (zero_shot_splits.py), a quarter new.

Per cent with a 95 % interval over the splits, every class alike. `balanced` looks at all queries
and takes the classes for equally frequent (transductive); seen, unseen and their harmonic mean are
among all classes, of items held out. What a run chooses it chooses by its seen classes. The
baseline is ridge regression on TF-IDF of the descriptions: no colours, no parts of words, cosines
as they are.
"""

import numpy as np
import tables

TITLES = {'ridge': 'chosen in the run', 'tfidf': 'baseline', 'generator': 'contrastive generator'}


def table(lines, root) -> str:
    """Markdown: a line for each set and method."""
    if not lines:
        return 'Not measured yet.\n'
    columns = list(lines[0]['values'])
    body = []
    for data, method in dict.fromkeys((x['data'], x['method']) for x in lines):
        runs = [x for x in lines if (x['data'], x['method']) == (data, method)]
        cells = [_cell([x['values'][c] for x in runs]) for c in columns]
        body.append((f'{data}, {TITLES[method]}', *cells, str(runs[0]['new']), str(len(runs))))
    return f'{tables.markdown(("", *columns, "new classes", "splits"), body)}\n'


def _cell(values) -> str:
    v = 100 * np.array(values)
    half = 1.96 * v.std(ddof=1) / len(v) ** 0.5 if len(v) > 1 else float('nan')
    return f'{v.mean():.1f} ± {half:.1f}'
