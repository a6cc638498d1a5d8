"""Retrieval of classes never seen in training, on frozen EfficientNet-Lite0 features.

Three random splits of the classes. Grocery: every photo of the new classes asks for the others of
its class among all of them; emoji: not for those of its own family of styles.
"""

COLUMNS = ('mAP', 'mAP@R', 'R-precision', 'recall@1', 'recall@5', 'precision@5')

CONFIG = 'configs/product_retrieval.py'
LOSS = 'method.loss'
KINDS = (
    ('frozen', 'frozen features, square-rooted', '_frozen', ()),
    ('triplet', 'Siamese, triplet loss', '', ()),
    ('contrastive', 'Siamese, contrastive loss', '', (f'{LOSS}=contrastive',)),
    ('contrastive2', 'Siamese, squared contrastive loss', '',
     (f'{LOSS}=contrastive', 'method.squared=True', 'method.margin=1.0')),
    ('protonet', 'ProtoNet', '_protonet', ()),
    ('anil', 'ANIL, its body', '_maml', ()),
)  # fmt: skip

ROWS = tuple(
    {
        'name': f'{data}_{name}',
        'title': f'{data.capitalize()}: {title}',
        'config': f'{CONFIG}:{data}{kind}',
        'overrides': ('data.split_seed={seed}', 'seed={seed}', *fields),
        'seeds': (0, 1, 2),
        'published': (),
        'source': '',
    }
    for data in ('grocery', 'emoji')
    for name, title, kind, fields in KINDS
)
