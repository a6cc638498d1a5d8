"""Regression on sine waves as in the MAML paper, section 5.1: error after steps of descent.

Plain data, read by tables.py and run_rows.py. The paper gives curves only, hence no published row.
"""

COLUMNS = tuple(
    f'{shots}-shot after {steps} step{"" if steps == 1 else "s"}'
    for shots in (5, 10)
    for steps in (0, 1, 5, 10)
)

ROWS = (
    {
        'name': 'maml',
        'title': 'MAML, trained on 10 points',
        'config': 'configs/sinusoid_maml.py',
        'overrides': (),
        'seeds': (0, 1, 2),
        'published': (),
        'source': '',
    },
    {
        'name': 'maml5',
        'title': 'MAML, trained on 5 points',
        'config': 'configs/sinusoid_maml.py',
        'overrides': ('train.shots=5',),
        'seeds': (0, 1, 2),
        'published': (),
        'source': '',
    },
    {
        'name': 'fomaml',
        'title': 'FOMAML, trained on 10 points',
        'config': 'configs/sinusoid_maml.py',
        'overrides': ('method.order=first',),
        'seeds': (0, 1, 2),
        'published': (),
        'source': '',
    },
    {
        'name': 'pretrained',
        'title': 'Pretrained, no meta-learning',
        'config': 'configs/sinusoid_maml.py:pretrained',
        'overrides': (),
        'seeds': (0, 1, 2),
        'published': (),
        'source': '',
    },
)
