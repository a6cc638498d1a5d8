"""The speed workload of README's table: MAML, 5-way 1-shot 15-query, 32 tasks a step, 28x28.

    python experiments/bench.py --config=configs/bench_maml.py --data=random

One inner step of second order; `:steps5` has five, `:first` is FOMAML. Batch norm by batch
statistics at evaluation too, as the peers have it. Nothing is learnt from it.
"""

from anyshot_jax.config import defaults, variant


def get_config(arg: str = ''):
    arg = variant(arg, 'steps5', 'first')
    config = defaults(method='maml', data='synthetic', net='conv4')
    config.data.num_classes = (1100, 20, 20)
    config.method.batch_norm = 'transductive'
    if arg == 'steps5':
        config.method.update({'inner_steps': 5, 'inner_lr': 0.1})
    if arg == 'first':
        config.method.order = 'first'

    config.train.ways = 5
    config.train.shots = 1
    config.train.queries = 15
    config.eval.tasks = ((5, 1),)
    config.eval.queries = 15

    config.batch_size = 32
    config.num_steps = 20
    # A call on several CPU devices keeps half a megabyte a task and step until it ends.
    config.steps_per_call = 1
    config.log_every = 5
    config.eval_every = 20
    config.save_every = 20
    return config
