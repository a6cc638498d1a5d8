"""Koch's task: a Siamese network trained on background alphabets names drawings from one example.

    python -m anyshot_jax.main --config=configs/omniglot_lake.py --config.data.dir=DIR

DIR also holds Lake's one-shot runs (all_runs.zip): 20 characters of one alphabet each. The result
has their accuracy beside that of random 20-way trials over all evaluation characters. Trained on
25 background alphabets in four turns, validated on the other five; tasks stay within an alphabet.
This is the twin on 35x35 for two cores; `:koch` is the paper's network on 105x105 for an
accelerator, `:knn` and `:hausdorff` are nearest neighbours of pixels and of ink. Reached in
about ten minutes on two cores: 92.0 on Lake's runs (ten of them), 91.0 in random trials.
"""

from anyshot_jax.config import defaults, variant


def get_config(arg: str = ''):
    arg = variant(arg, 'koch', 'knn', 'hausdorff')
    if arg in ('knn', 'hausdorff'):
        config = defaults(method=arg, data='omniglot')
        config.num_steps = 0
    else:
        config = defaults(method='siamese', data='omniglot', net='koch' if arg else 'conv4')
    config.data.update({'split': 'lake', 'runs': 'all_runs'})
    config.data.size = 105 if arg else 35
    config.eval.tasks = ((20, 1),)
    config.eval.queries = 1
    config.eval.within = 'alphabet'
    config.eval.episodes = 1000 if arg != 'hausdorff' else 100
    config.eval.val_episodes = 400
    if arg in ('knn', 'hausdorff'):
        return config

    config.eval.select = '20-way 1-shot within alphabet'
    config.train.update({'ways': 20, 'shots': 1, 'queries': 4, 'within': 'alphabet'})
    config.augment.update({'degrees': 10.0, 'shear': 0.3, 'scale': 0.2, 'shift': 1.5})
    config.batch_size = 2
    config.num_steps = 6000
    config.steps_per_call = 50
    config.eval_every = 1500
    config.optim.update({'learning_rate': 1e-3, 'schedule': 'cosine', 'warmup_steps': 200})
    if arg == 'koch':
        config.method.update({'squash': 'sigmoid', 'pairs': 'twins'})
        config.train.update({'shots': 1, 'queries': 1, 'within': ''})
        config.augment.shift = 2.0
        config.batch_size = 8
        config.num_steps = 100_000
        config.optim.update({'learning_rate': 1e-4, 'schedule': 'constant', 'warmup_steps': 0})
        return config
    config.net.pools = (True, True, True, False)  # 4x4 places left
    config.method.update({'loss': 'triplet', 'mining': 'semi_hard'})
    config.method.update({'squash': 'unit', 'margin': 0.5})
    return config
