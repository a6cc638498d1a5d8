"""1-nearest neighbour on pixels, Omniglot, Vinyals split, 28x28: the floor.

python -m anyshot_jax.main --config=configs/omniglot_knn.py --config.data.dir=DIR
"""

from anyshot_jax.config import defaults, variant


def get_config(arg: str = ''):
    variant(arg)
    config = defaults(method='knn', data='omniglot')
    config.num_steps = 0
    config.eval.tasks = ((5, 1), (5, 5), (20, 1), (20, 5))
    config.eval.episodes = 1000
    return config
