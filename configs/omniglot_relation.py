"""RelationNet on Omniglot, Vinyals split, 28x28, rotated classes in training.

    python -m anyshot_jax.main --config=configs/omniglot_relation.py --config.data.dir=DIR

The embedding is the paper's: two blocks without padding and with pooling, two with padding and
without pooling; 28x28 becomes 5x5x64.

Reached (seed 0, 69 minutes on two CPU cores that other work shared; 47 on quiet ones at the speed
measured): 98.68 / 99.60 / 95.64 / 98.78 at 5-way 1/5-shot and 20-way 1/5-shot among upright test
characters; 99.00 / 99.69 / 96.50 / 99.05 with --config.data.turns_eval=4, the published lists.
"""

from anyshot_jax.config import defaults, variant


def get_config(arg: str = ''):
    variant(arg)
    config = defaults(method='relation', data='omniglot', net='conv4')
    config.net.pools = (True, True, False, False)
    config.net.padding = ('VALID', 'VALID', 'SAME', 'SAME')
    config.net.flatten = False

    # Episodes.
    config.train.ways = 20
    config.train.shots = 1
    config.train.queries = 10
    config.eval.tasks = ((5, 1), (5, 5), (20, 1), (20, 5))
    config.eval.select = '20-way 1-shot'
    config.eval.episodes = 1000
    config.eval.val_episodes = 400

    # Small moves of the images, as drawers make them.
    config.augment.degrees = 10.0
    config.augment.shear = 0.1
    config.augment.scale = 0.1
    config.augment.shift = 1.5

    # Schedule.
    config.batch_size = 2
    config.num_steps = 20_000
    config.steps_per_call = 50
    config.log_every = 100
    config.eval_every = 2000
    config.save_every = 500
    config.optim.learning_rate = 1e-3
    config.optim.schedule = 'cosine'
    config.optim.warmup_steps = 200
    return config
