"""Reptile on Omniglot, Vinyals split, 28x28, four turns of a character as classes in training.

    python -m anyshot_jax.main --config=configs/omniglot_reptile.py --config.data.dir=DIR

5-way as in the paper (table 4): ten items a class in training, five inner steps of Adam on ten of
them, five tasks a step, the outer rate falling from 1 to 0 over 100,000 steps; fifty inner steps
on five items at evaluation; batch norm by the statistics of the set at hand (transductive).
`:ways20` is its 20-way recipe. `:short` is a run for a quarter of an hour on two cores.
"""

from anyshot_jax.config import defaults, variant


def get_config(arg: str = ''):
    arg = variant(arg, 'ways20', 'short')
    config = defaults(method='reptile', data='omniglot', net='conv4')
    config.method.batch_norm = 'transductive'

    # Training takes both sets of an episode together.
    config.train.update({'ways': 5, 'shots': 1, 'queries': 9})
    config.eval.tasks = ((5, 1), (5, 5))
    config.eval.episodes = 1000
    config.eval.val_episodes = 200

    # Schedule.
    config.batch_size = 5
    config.num_steps = 100_000
    config.steps_per_call = 50
    config.log_every = 100
    config.eval_every = 5000
    config.save_every = 1000
    config.optim.update({'name': 'sgd', 'momentum': 0.0, 'learning_rate': 1.0})
    config.optim.schedule = 'linear'
    if arg == 'ways20':
        config.train.ways = 20
        config.eval.tasks = ((20, 1), (20, 5))
        config.method.update({'inner_steps': 10, 'inner_lr': 5e-4, 'inner_batch': 20})
        config.method.eval_batch = 10
        config.num_steps = 200_000
    if arg == 'short':
        config.batch_size = 4
        config.num_steps = 8000
        config.eval_every = 4000
    return config
