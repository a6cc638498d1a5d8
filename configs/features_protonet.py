"""ProtoNet with a small perceptron on an npz of feature vectors (x [N, D], y [N]).

python -m anyshot_jax.main --config=configs/features_protonet.py --config.data.dir=FILE_OR_DIR
"""

from anyshot_jax.config import defaults, variant


def get_config(arg: str = ''):
    variant(arg)
    config = defaults(method='protonet', data='features', net='mlp')
    config.fit_tasks = True
    config.train.queries = 5
    config.eval.queries = 5
    config.batch_size = 16
    config.num_steps = 2000
    config.steps_per_call = 50
    config.early_stop = 5
    return config
