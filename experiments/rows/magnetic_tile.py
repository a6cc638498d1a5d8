"""Types of defects of magnetic tiles (MVTec AD's layout, a manifest that says which tile is whose).

Plain data, read by tables.py and run_rows.py. Support and query never show the same tile; the five
types have 5 to 19 tiles once three tiles of two types are left out, and `fray` with its five is not
asked at 5 shots. Published: the mean over 14 categories of MVTec AD at 2 shots.
"""

COLUMNS = (
    '1-shot macro',
    '1-shot micro',
    '2-shot macro',
    '2-shot micro',
    '5-shot macro',
    '5-shot micro',
)
TILES = ('data.category=magnetic_tile',)
DTD = (*TILES, 'data.pseudo.textures=dtd')


def _row(name, title, variant, overrides=DTD, seeds=(0,), published=(), source=''):
    fields = {'name': name, 'title': title, 'config': f'configs/mvtec_types.py:{variant}'}
    return fields | {
        'overrides': overrides, 'seeds': seeds, 'published': published, 'source': source,
    }  # fmt: skip


GAO = '[arXiv 2406.05645](https://arxiv.org/abs/2406.05645), 2 shots, 14 categories of MVTec AD'
THREE = (0, 1, 2)
INFONCE = ('method.loss=infonce', 'method.temperature=0.07')

ROWS = (
    _row('plain', 'Prototypes on frozen features', 'plain', TILES, THREE),
    _row('residual', 'Prototypes on residuals, no pretraining', 'residual', TILES, THREE),
    _row('types', 'Residuals, pretrained on 40 synthetic types', 'types', DTD, THREE),
    _row('types20', 'The same, 20 synthetic types', 'types', (*DTD, 'data.pseudo.classes=20')),
    _row('types10', 'The same, 10 synthetic types', 'types', (*DTD, 'data.pseudo.classes=10')),
    _row(
        'types5', 'The same, 5 synthetic types', 'types',
        (*DTD, 'data.pseudo.classes=5', 'train.ways=5'),
    ),
    _row('drawn', 'The same, 40 synthetic types with drawn textures', 'types', TILES),
    _row('types_infonce', 'The same, 40 synthetic types, InfoNCE', 'types', (*DTD, *INFONCE)),
    _row('types_pairs', 'The same, 40 synthetic types, RelationNet', 'pairs'),
    _row('types_pixels', 'The same, prototypes of mean images', 'pixels', DTD, THREE),
    _row('infonce', "The paper's encoder of maps, InfoNCE", 'infonce', DTD, (0,), (37.16,), GAO),
    _row('relation', "The paper's RelationNet on maps", 'relation'),
)  # fmt: skip
