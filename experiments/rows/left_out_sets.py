"""Constants chosen on all sets but one, and what that costs the one (leave_one_set_out.py).

Per cent, of five new classes: 1 shot, of the last constant the mean of 1 and 5 shots, all queries
together. `loss` is the set's own best value less that of what the other sets choose: the price of
not having been tuned on, which no setting chosen elsewhere can be below.
"""

import numpy as np
import tables


def table(lines, root) -> str:
    """Markdown: a line for each constant and set."""
    if len(lines) < 2:
        return 'Not measured yet: it takes two sets.\n'
    body = []
    for constant in lines[0]['values']:
        of_set = {line['data']: line['values'][constant] for line in lines}
        for name, own in of_set.items():
            best, theirs = max(own, key=lambda s: own[s]), choice_of_others(of_set, name)
            loss = f'{own[best] - own[theirs]:.2f}'
            cells = (f'{best}: {own[best]:.2f}', f'{theirs}: {own[theirs]:.2f}', loss)
            body.append((constant, name, *cells, str(lines[0]['folds'])))
    head = ('constant', 'set', 'own choice', 'choice of the others', 'loss', 'folds')
    return f'{tables.markdown(head, body)}\n'


def choice_of_others(of_set: dict[str, dict[str, float]], name: str) -> str:
    """The setting with the best mean over the other sets, each less its own mean."""
    others = [v for other, v in of_set.items() if other != name]
    gain = lambda s: np.mean([v[s] - np.mean(list(v.values())) for v in others])
    return max(of_set[name], key=lambda s: round(float(gain(s)), 4))
