"""Frozen EfficientNet-Lite0 features and class means (SimpleShot) on the Grocery Store photos.

    python -m anyshot_jax.main --config=configs/grocery_frozen.py --config.data.dir=DIR

DIR holds the packed npz. Nothing is trained: 81 classes of food, half of them for the test.
"""

from anyshot_jax.config import defaults


def get_config(arg: str = ''):
    config = defaults(method='simpleshot', data='packed')
    config.encoder = 'efficientnet_lite0'
    config.data.size = 112
    config.data.split = (0.4, 0.1, 0.5)
    config.eval.tasks = ((5, 1), (5, 5))
    config.eval.episodes = 600
    config.num_steps = 0
    return config
