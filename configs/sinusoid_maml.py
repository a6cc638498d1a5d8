"""MAML on sine waves, the set-up of its paper: amplitude 0.1-5, phase 0-pi, x in [-5, 5].

    python -m anyshot_jax.main --config=configs/sinusoid_maml.py

Two layers of 40, one inner step of 0.01 on 10 points, 25 functions a step. `:pretrained` is the
paper's baseline, the same net trained on the points of all functions without an inner loop.
"""

from anyshot_jax.config import defaults, variant


def get_config(arg: str = ''):
    arg = variant(arg, 'pretrained')
    config = defaults(method='maml_regression', data='sinusoid', net='mlp')
    config.net.hidden = (40, 40)
    config.net.features = 1

    config.train.update({'ways': 1, 'shots': 10, 'queries': 10})
    config.eval.tasks = ((1, 10), (1, 5))
    config.eval.queries = 100
    config.eval.episodes = 600
    config.eval.val_episodes = 600

    config.batch_size = 25
    config.task_chunk = 25  # so small a net is all overhead: as many at once as there are
    config.num_steps = 70_000
    config.steps_per_call = 1000
    config.log_every = 1000
    config.eval_every = 5000
    config.save_every = 5000
    config.optim.learning_rate = 1e-3
    if arg == 'pretrained':
        config.method.inner_steps = 0
    return config
