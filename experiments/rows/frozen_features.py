"""Class means of frozen EfficientNet-Lite0 features (SimpleShot, CL2N), nothing trained.

Test classes are half of all, chosen by data.split_seed=0; the training classes only give the mean
that is subtracted.
"""

COLUMNS = ('5-way 1-shot', '5-way 5-shot')

ROWS = tuple(
    {
        'name': name,
        'title': title,
        'config': f'configs/frozen_simpleshot.py:{name}',
        'overrides': (),
        'seeds': (0,),  # nothing is trained: the seed draws the episodes
        'published': (),
        'source': '',
    }
    for name, title in (
        ('grocery', 'Grocery Store, 41 test classes of photos'),
        ('emoji', 'Emoji, 520 test classes in 8 styles'),
    )
)
