"""Few-shot classification on Omniglot, Vinyals split, 28x28, rotated classes in training.

Plain data, read by tables.py and run_rows.py. The published columns are the papers' own numbers.
Vinyals' published lists have the turned test characters as classes too (1692 of them): a task of
those is easier than one of upright characters only, so both are reported, from one trained model.
"""

COLUMNS = ('5-way 1-shot', '5-way 5-shot', '20-way 1-shot', '20-way 5-shot')

ROWS = (
    {
        'name': 'protonet',
        'title': 'ProtoNet',
        'config': 'configs/omniglot_protonet.py',
        'overrides': (),
        'seeds': (0,),  # one seed: an hour of two cores each
        'published': (),
        'source': '',
    },
    {
        'name': 'protonet_lists',
        'title': 'ProtoNet, turned test classes',
        'config': 'configs/omniglot_protonet.py',
        'overrides': ('data.turns_eval=4',),
        'trained_by': 'protonet',
        'seeds': (0,),
        'published': (98.8, 99.7, 96.0, 98.9),
        'source': '[Snell et al. 2017](https://arxiv.org/abs/1703.05175)',
    },
    {
        'name': 'protonet_short',
        'title': 'ProtoNet, short CPU recipe',
        'config': 'configs/omniglot_protonet.py:short',
        'overrides': (),
        'seeds': (0, 1, 2),
        'published': (),
        'source': '',
    },
    {
        'name': 'relation',
        'title': 'RelationNet',
        'config': 'configs/omniglot_relation.py',
        'overrides': (),
        'seeds': (0,),  # one seed: an hour of two cores each
        'published': (),
        'source': '',
    },
    {
        'name': 'relation_lists',
        'title': 'RelationNet, turned test classes',
        'config': 'configs/omniglot_relation.py',
        'overrides': ('data.turns_eval=4',),
        'trained_by': 'relation',
        'seeds': (0,),
        'published': (99.6, 99.8, 97.6, 99.1),
        'source': '[Sung et al. 2018](https://arxiv.org/abs/1711.06025), on a random split',
    },
    {
        'name': 'matching',
        'title': 'MatchingNet',
        'config': 'configs/omniglot_matching.py',
        'overrides': (),
        'seeds': (0,),  # one seed: an hour of two cores each
        'published': (),
        'source': '',
    },
    {
        'name': 'matching_lists',
        'title': 'MatchingNet, turned test classes',
        'config': 'configs/omniglot_matching.py',
        'overrides': ('data.turns_eval=4',),
        'trained_by': 'matching',
        'seeds': (0,),
        'published': (98.1, 98.9, 93.8, 98.5),
        'source': '[Vinyals et al. 2016](https://arxiv.org/abs/1606.04080)',
    },
    {
        'name': 'knn',
        'title': '1-NN on pixels',
        'config': 'configs/omniglot_knn.py',
        'overrides': (),
        'seeds': (0,),  # nothing is trained: the seed draws the episodes
        'published': (),
        'source': '',
    },
)
