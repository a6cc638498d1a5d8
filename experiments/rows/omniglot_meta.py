"""MAML and its family on Omniglot, Vinyals split, 28x28, rotated classes in training.

Plain data, read by tables.py and run_rows.py. The papers' schedules want an accelerator; `:short`
is made for two cores. Batch norm takes the statistics of the set at hand, as in the papers.
"""

COLUMNS = ('5-way 1-shot', '5-way 5-shot', '20-way 1-shot', '20-way 5-shot')


def _row(name, title, config, overrides=(), published=(), source=''):
    fields = {'name': name, 'title': title, 'config': config, 'overrides': overrides}
    return fields | {'seeds': (0,), 'published': published, 'source': source}


FINN = '[Finn et al. 2017](https://arxiv.org/abs/1703.03400)'
NICHOL = '[Nichol et al. 2018](https://arxiv.org/abs/1803.02999)'
LI = '[Li et al. 2017](https://arxiv.org/abs/1707.09835)'
MAML, REPTILE = 'configs/omniglot_maml.py', 'configs/omniglot_reptile.py'
FIRST, HEAD, SGD = 'method.order=first', 'method.adapt=head', 'method.learn_lr=parameter'
SHORT, FIXED = f'{MAML}:short', 'method.learn_lr=no'

ROWS = (
    _row('maml_short', 'MAML, short CPU recipe', SHORT),
    _row('maml_hour', 'MAML, an hour of two CPU cores', f'{MAML}:hour'),
    _row('fomaml_short', 'FOMAML, short CPU recipe', SHORT, (FIRST, FIXED)),
    _row('anil_short', 'ANIL, short CPU recipe', SHORT, (HEAD, FIXED)),
    _row('meta_sgd_short', 'Meta-SGD, short CPU recipe', SHORT, (SGD,)),
    _row('reptile_short', 'Reptile, short CPU recipe', f'{REPTILE}:short'),
    _row('maml5', 'MAML, 5 ways', MAML, (), (98.7, 99.9), FINN),
    _row('maml20', 'MAML, 20 ways', f'{MAML}:ways20', (), (95.8, 98.9), FINN),
    _row('fomaml5', 'FOMAML, 5 ways', MAML, (FIRST,), (98.3, 99.2), NICHOL),
    _row('fomaml20', 'FOMAML, 20 ways', f'{MAML}:ways20', (FIRST,), (89.4, 97.9), NICHOL),
    _row('reptile5', 'Reptile, 5 ways', REPTILE, (), (97.7, 99.5), NICHOL),
    _row('reptile20', 'Reptile, 20 ways', f'{REPTILE}:ways20', (), (89.4, 97.1), NICHOL),
    _row('anil5', 'ANIL, 5 ways', MAML, (HEAD,)),
    _row('anil20', 'ANIL, 20 ways', f'{MAML}:ways20', (HEAD,)),
    _row('meta_sgd5', 'Meta-SGD, 5 ways', MAML, (SGD,), (99.5, 99.9), LI),
    _row('meta_sgd20', 'Meta-SGD, 20 ways', f'{MAML}:ways20', (SGD,), (95.9, 99.0), LI),
)
