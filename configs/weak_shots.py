"""Novel classes from noisy web pictures, cleaned by a similarity that base classes teach.

python -m anyshot_jax.main --config=configs/weak_shots.py --config.data.dir=FILE
"""

from anyshot_jax.config import defaults, in_stages

CLASSES = (0.593, 0.148, 0.259)  # 48 + 12 base classes and 21 novel ones of 81


def get_config(arg: str = ''):
    stages = ladder() if arg == 'ladder' else method()
    for stage in stages.values():
        stage.encoder = 'efficientnet_lite0'
        stage.data.source_fields = (('set', 'grocery'), ('size', 112))
        stage.data.split = CLASSES
    return in_stages(**stages)


def method():
    return {
        'simnet': simnet(),
        'weights': weights('simnet'),
        'classify': classifier('weights', 'simnet', ALPHA),
    }


def ladder():
    """Every rung by itself, from plain cross-entropy to the whole method, and the oracle."""
    return {
        'simnet_alone': simnet(adversary=0.0),
        'simnet': simnet(),
        'cosine': weights('', kind='mean', bound=0.0),
        'mean': weights('simnet_alone', kind='mean', bound=0.0),
        'votes': weights('simnet_alone'),
        'weights': weights('simnet'),
        'ce': classifier(),
        'ce_cosine': classifier('cosine'),
        'ce_mean': classifier('mean'),
        'ce_votes': classifier('votes'),
        'ce_graph': classifier('', 'simnet_alone', ALPHA),
        'ce_both': classifier('votes', 'simnet_alone', ALPHA),
        'classify': classifier('weights', 'simnet', ALPHA),
        'oracle': classifier('truth'),
    }


ALPHA = 0.001


def simnet(adversary=0.1):
    config = defaults(method='simnet', data='noisy', net='projection')
    config.net.update({'features': 512, 'length': 10.0})
    config.method.update({'widths': (256, 128, 64), 'adversary': adversary})
    config.method.update({'batch_items': 32, 'base_ways': 12})
    config.update({'batch_size': 1, 'num_steps': 600, 'steps_per_call': 50, 'log_every': 50})
    config.update({'eval_every': 0, 'save_every': 300})
    config.eval.episodes = 20
    config.optim.update({'name': 'adamw', 'learning_rate': 1e-3, 'schedule': 'cosine'})
    config.optim.weight_decay = 1e-4
    return config


def weights(simnet_from, kind='votes', bound=0.3):
    config = defaults(method='weigh', data='noisy')
    config.method.update({'simnet_from': simnet_from, 'kind': kind, 'bound': bound})
    config.num_steps = 0
    return config


def classifier(weights_from='', simnet_from='', alpha=0.0):
    config = defaults(method='weakshot', data='noisy', net='projection')
    config.net.update({'features': 256, 'length': 10.0})
    config.method.update({'weights_from': weights_from, 'simnet_from': simnet_from})
    config.method.alpha = alpha
    config.update({'batch_size': 128, 'num_steps': 300, 'steps_per_call': 50, 'log_every': 50})
    config.update({'eval_every': 0, 'save_every': 300})
    config.optim.update({'learning_rate': 3e-4})
    return config
