"""ProtoNet on glyphs: embedded data, no network, no arguments.

python -m anyshot_jax.main --config=configs/quickstart.py
"""

from anyshot_jax.config import defaults, variant


def get_config(arg: str = ''):
    variant(arg)
    config = defaults(method='protonet', data='glyphs', net='conv4')

    # Episodes: more ways in training than in the test make a better embedding.
    config.train.ways = 20
    config.train.shots = 1
    config.train.queries = 5
    config.eval.tasks = ((5, 1), (5, 5), (20, 1), (20, 5))

    # Schedule.
    config.batch_size = 2
    config.num_steps = 400
    config.steps_per_call = 20
    config.log_every = 20
    config.eval_every = 100
    config.save_every = 200
    config.optim.learning_rate = 2e-3
    config.optim.schedule = 'cosine'
    return config
