"""Frozen EfficientNet-Lite0 features and class means (SimpleShot), nothing trained.

    python -m anyshot_jax.main --config=configs/frozen_simpleshot.py --config.data.dir=FILE

FILE is a packed npz, here that of the Grocery Store photos (Klasson et al. 2019, 81 classes;
`:grocery` is the same); `:emoji` is for 1040 emoji in 8 drawing styles. Half of the classes are for
the test. The features are computed once and kept in the cache directory.
"""

from anyshot_jax.config import defaults, variant


def get_config(arg: str = ''):
    arg = variant(arg, 'grocery', 'emoji')
    name = arg or 'grocery'
    config = defaults(method='simpleshot', data='packed')
    config.encoder = 'efficientnet_lite0'
    config.data.set = name
    config.data.size = {'grocery': 112, 'emoji': 64}[name]  # as they are packed
    config.data.split = (0.4, 0.1, 0.5)
    config.eval.tasks = ((5, 1), (5, 5))
    config.eval.queries = {'grocery': 15, 'emoji': 3}[name]  # an emoji has 8 images
    config.num_steps = 0
    return config
