"""Metal surface defects (MSD), five classes that training never saw, 15 queries each.

Encoder EfficientNet-Lite0, all fifteen seen classes train, nothing is trained by steps; the
generator, whose features are not used here, is left out. Settings were chosen by choose_anyshot.py
on classes that are new in none of the three sets.
`transductive` looks at all queries at once and assumes that the classes are equally frequent;
`+ synthesis` adds features made from the words.
"""

COLUMNS = tuple(
    f'5-way {shots}-shot{kind}'
    for shots, kinds in (
        (0, ('', ' transductive')),
        (1, ('', ' + synthesis', ' transductive', ' transductive + synthesis')),
        (5, ('', ' + synthesis', ' transductive', ' transductive + synthesis')),
    )
    for kind in kinds
)
DONG = (
    '0, 1 and 5 shots of [Dong et al. 2024](https://doi.org/10.1109/TIM.2023.3329163), on CLIP '
    'features, class set not stated'
)

ROWS = tuple(
    {
        'name': f'set_{letter.lower()}',
        'title': f'MSD, class set {letter}',
        'config': f'configs/industrial_anyshot.py:{letter.lower()}',
        'overrides': ('stages=("embed","ridge","refine")',),
        'seeds': (0, 1, 2),
        'published': (46.33, 79.81, 89.59) if letter == 'B' else (),
        'source': DONG if letter == 'B' else '',
    }
    for letter in 'ABD'
)
