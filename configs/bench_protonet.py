"""The speed workload of README's table: ProtoNet, 5-way 1-shot 15-query, 32 tasks a step, 28x28.

    python experiments/bench.py --config=configs/bench_protonet.py --data=random

Batch norm by batch statistics at evaluation too, as the peers have it. Nothing is learnt from it.
"""

from anyshot_jax.config import defaults, variant


def get_config(arg: str = ''):
    variant(arg)
    config = defaults(method='protonet', data='synthetic', net='conv4')
    config.data.num_classes = (1100, 20, 20)
    config.method.batch_norm = 'transductive'

    config.train.ways = 5
    config.train.shots = 1
    config.train.queries = 15
    config.eval.tasks = ((5, 1),)
    config.eval.queries = 15

    config.batch_size = 32
    config.num_steps = 20
    config.steps_per_call = 5
    config.log_every = 5
    config.eval_every = 20
    config.save_every = 20
    return config
