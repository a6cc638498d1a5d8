"""Your own images, nothing trained: frozen EfficientNet-Lite0 features and class means.

python -m anyshot_jax.main --config=configs/folder_simpleshot.py --config.data.dir=MY_IMAGES

MY_IMAGES/<class>/<image>, at least 10 a class. Classes are split by fraction (val is unused);
--config.eval.tasks, .queries and .data.split fit it to fewer.
"""

from anyshot_jax.config import defaults, variant


def get_config(arg: str = ''):
    variant(arg)
    config = defaults(method='simpleshot', data='folder')
    config.encoder = 'efficientnet_lite0'
    config.data.size = 224
    config.data.split = (0.4, 0.1, 0.5)
    config.eval.tasks = ((5, 1), (5, 5))
    config.eval.queries = 5
    config.num_steps = 0
    return config
