"""Koch's task: drawings named from one example, in Lake's runs and in random 20-way trials.

Trained on background alphabets only, 25 of 30 (the other five validate), or on all thirty (every
tenth character validates). The runs are the ten of Lake's twenty that the data has: 200 drawings to
name, each among 20 of its own alphabet.
"""

COLUMNS = ("Lake's runs", '20-way 1-shot within alphabet', '20-way 1-shot')
KOCH = '[Koch et al. 2015](https://www.cs.cmu.edu/~rsalakhu/papers/oneshot1.pdf), all 20 runs'
LAKE = '[Lake et al. 2015](https://doi.org/10.1126/science.aab3050), all 20 runs'
# Of an alphabet too few characters validate there for a task within it.
ALL = ('data.split=lake30', 'eval.within=', 'eval.select=')

ROWS = tuple(
    {
        'name': name,
        'title': title,
        'config': f'configs/omniglot_lake.py{":" * bool(arg)}{arg}',
        'overrides': overrides,
        'seeds': (0,),
        'published': published,
        'source': source,
    }
    for name, title, arg, overrides, published, source in (
        ('siamese', 'Siamese network on 35x35, triplet loss, 25 alphabets', '', (), (), ''),
        ('siamese30', 'The same, all 30 alphabets', '', ALL, (), ''),
        ('koch', "Koch's network on 105x105", 'koch', (), (92.0,), KOCH),
        ('knn', '1-NN on pixels of 105x105', 'knn', (), (), ''),
        ('hausdorff', '1-NN by modified Hausdorff distance', 'hausdorff', (), (61.2,), LAKE),
    )
)
