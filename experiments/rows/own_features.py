"""Features that a support of one's own images chooses, beside the usual ones.

Made by experiments/compare_own_features.py, not by run_rows.py.
"""

from pathlib import Path

import tables


def table(lines, root: Path = tables.ROOT) -> str:
    """Markdown: a row for each set and number of examples."""
    if not lines:
        return 'Not measured yet.\n'
    head = ('set', 'classes', 'examples of each', 'usual', 'chosen', 'gain', '+stride16 chosen')
    body = []
    for x in lines:
        gain = [b - a for a, b in zip(x['usual'], x['chosen'], strict=True)]
        cells = (tables.percent_of_draws(values) for values in (x['usual'], x['chosen'], gain))
        joined = f'{x["joined"]} of {len(gain)}'
        body.append((x['set'], str(x['classes']), str(x['shots']), *cells, joined))
    note = (
        'Accuracy in per cent, the mean over classes, of all images that are no examples; mean and '
        '95 % interval over ten draws (t). Usual: the features of the last map, power 0.5. Chosen: '
        'with the map +stride16 or without, power 0.5 or 1, by the likelihood of held-out examples '
        '(classify/choice.py). One example of each class has nothing to choose by.'
    )
    return f'{tables.markdown(head, body)}\n\n{note}\n'
