"""Commands that were ended at random moments and started again, beside calls that nobody ended.

Made by experiments/chaos.py, not by run_rows.py.
"""

from pathlib import Path

import tables


def table(lines, root: Path = tables.ROOT) -> str:
    """Markdown: the signals that each command got."""
    if not lines:
        return 'Not measured yet.\n'
    signals = ('SIGTERM', 'SIGINT', 'SIGKILL')
    head = ('', *signals, 'of these hit a running call', 'folders')
    body = [
        (
            x['target'],
            *(str(x['sent'][s]) for s in signals),
            str(x['hit']),
            str(x['folders']),
        )
        for x in lines
    ]
    note = (
        'A folder gets one to five signals at random moments, each to a call that goes on where '
        'the one before was ended, and then a call that nobody ends. All folders have the results '
        'of a call that nobody ended, bit by bit (states, losses, test values; the table of '
        'predictions; features), no file was left but named temporaries, and no trial outlived its '
        'sweep; else there is no line (experiments/chaos.py).'
    )
    return f'{tables.markdown(head, body)}\n\n{note}\n'
