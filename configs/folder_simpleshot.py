"""Your own images, nothing trained: frozen EfficientNet-Lite0 features and class means.

python -m anyshot_jax.main --config=configs/folder_simpleshot.py --config.data.dir=MY_IMAGES

MY_IMAGES/<class>/<image>. Classes are split by fraction (val is unused); with few classes or images
the tasks become what these allow, and a line says so.
"""

from anyshot_jax.config import defaults, variant


def get_config(arg: str = ''):
    variant(arg)
    config = defaults(method='simpleshot', data='folder')
    config.fit_tasks = True
    config.encoder = 'efficientnet_lite0'
    config.data.size = 224
    config.data.split = (0.4, 0.1, 0.5)
    config.eval.tasks = ((5, 1), (5, 5))
    config.eval.queries = 5
    config.num_steps = 0
    return config
