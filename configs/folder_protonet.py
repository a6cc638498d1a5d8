"""ProtoNet on your own images: a folder `<class>/<image>`, or train/ val/ test/ of such folders.

    python -m anyshot_jax.main --config=configs/folder_protonet.py --config.data.dir=DIR

Without the three folders, classes are dealt to the roles by config.data.split. Tasks that
these can't give are refused; --config.fit_tasks=True takes the ways and shots that they allow.
"""

from anyshot_jax.config import defaults, variant


def get_config(arg: str = ''):
    variant(arg)
    config = defaults(method='protonet', data='folder', net='conv4')
    config.train.ways = 5
    config.train.shots = 1
    config.train.queries = 5
    config.eval.tasks = ((5, 1), (5, 5))
    config.eval.queries = 5
    config.augment.degrees = 10.0
    config.augment.scale = 0.1
    config.augment.shift = 4.0
    config.batch_size = 4
    config.num_steps = 1000
    config.steps_per_call = 10
    config.log_every = 20
    config.eval_every = 100
    config.save_every = 100
    config.early_stop = 5
    config.optim.schedule = 'cosine'
    return config
