"""Novel classes from noisy web images, cleaned by what base classes teach.

    python -m anyshot_jax.main --config=configs/weak_shots.py --config.data.dir=FILE
    python -m anyshot_jax.main --config=configs/weak_shots.py:folder --config.data.dir=DIR

FILE is a packed npz, here that of the Grocery Store photos (Klasson et al. 2019, 81 classes; 60 are
base, 21 novel), where 40 % of the novel classes' labels are made wrong: data.noise says how many.
DIR holds base/<class>/*, web/<class>/* and test/<class>/* of your own. Stages: `weights` plants
wrong labels among the base classes, learns from these how votes of similar images tell wrong from
right, and gives every web image the chance that its label is right; `classify` learns from them by
these chances, on features of a frozen EfficientNet-Lite0.

`:beside` (`:folder_beside`) learns a SimNet first, on two thirds of the base classes, and judges it
on the others: it takes part where it is clearly better than the cosine of the features. `:rungs`
and `:folder_rungs` (your own DIR) run cross-entropy, weights by cosine, the whole method and, where
truth is known, the oracle; `:ladder` holds every rung of the published table; `:choose` takes the
validation classes for novel ones, which is what everything here was chosen on;
`:generalised` asks for base and novel classes alike; `:folder` reads DIR. `:finetune` trains a
ResNet-12 end to end on your images, with a stage `pretrain` before the others (for an
accelerator; only a tiny one was run). `:cub` is the paper's setting, head and schedule on
CUB-200-2011 with frozen ResNet-50 features (not run: the images were not at hand). Reached in a
few minutes on two cores: see the README's table.
"""

from anyshot_jax.config import defaults, in_stages, variant

CLASSES = (0.593, 0.148, 0.259)  # 48 + 12 base classes and 21 novel ones of 81
ALPHA = 0.001  # of features of length 10
KEPT_BACK = 1 / 3  # of the base classes, to judge SimNet by
PLANTED = {'kind': 'planted', 'bound': 0.0, 'power': 2.0}

VARIANTS = (
    'folder', 'rungs', 'folder_rungs', 'beside', 'folder_beside', 'ladder', 'choose',
    'generalised', 'finetune', 'cub',
)  # fmt: skip


def get_config(arg: str = ''):
    arg = variant(arg, *VARIANTS)
    if arg == 'finetune':
        return in_stages(**finetune())
    if arg == 'cub':
        return in_stages(**cub())
    data = 'weak' if arg.startswith('folder') else 'noisy'
    of = {'ladder': ladder, 'rungs': rungs, 'beside': beside}
    stages = of.get(arg.removeprefix('folder_'), method)(data)
    for stage in stages.values():
        stage.encoder = 'efficientnet_lite0'
        if data == 'noisy':
            stage.data.source_fields = (('set', 'grocery'), ('size', 112))
            stage.data.split = CLASSES
            stage.data.validation = 'novel' if arg == 'choose' else 'base'
    if arg == 'generalised':
        stages['classify'].method.update({'generalised': True, 'balance': 'sample'})
    return in_stages(**stages)


def method(data):
    return {'weights': weights(data, '', **PLANTED), 'classify': classifier(data, 'weights')}


def beside(data):
    """SimNet beside cosine: judged on classes that it never saw, taken where it is better."""
    return {
        'simnet': simnet(data, keep_back=KEPT_BACK),
        'weights': weights(data, 'simnet', **PLANTED),
        'classify': classifier(data, 'weights'),
    }


def rungs(data):
    """Ladder on one's own data: cross-entropy, cosine, the whole method, perhaps the oracle."""
    return {
        'cosine': weights(data, '', kind='mean', bound=0.0),
        'ce': classifier(data),
        'ce_cosine': classifier(data, 'cosine'),
        **method(data),
        **({'oracle': classifier(data, 'truth')} if data == 'noisy' else {}),
    }


def ladder(data):
    """Every rung by itself, from plain cross-entropy to the whole method, and the oracle."""
    return {
        'simnet_alone': simnet(data, adversary=0.0),
        'simnet': simnet(data),
        'cosine': weights(data, '', kind='mean', bound=0.0),
        'mean': weights(data, 'simnet_alone', kind='mean', bound=0.0),
        'votes': weights(data, 'simnet_alone'),
        'weights': weights(data, 'simnet'),
        'planted': weights(data, '', **PLANTED),
        'ce': classifier(data),
        'ce_cosine': classifier(data, 'cosine'),
        'ce_mean': classifier(data, 'mean'),
        'ce_votes': classifier(data, 'votes'),
        'ce_graph': classifier(data, '', 'simnet_alone', ALPHA),
        'ce_both': classifier(data, 'votes', 'simnet_alone', ALPHA),
        'ce_adversary': classifier(data, 'weights', 'simnet', ALPHA),
        'classify': classifier(data, 'planted'),
        'oracle': classifier(data, 'truth'),
    }


def simnet(data, adversary=0.1, net='projection', keep_back=0.0):
    config = defaults(method='simnet', data=data, net=net)
    if net == 'projection':
        config.net.update({'features': 512, 'length': 10.0})
    config.method.update({'widths': (256, 128, 64), 'adversary': adversary})
    config.method.update({'batch_items': 32, 'base_ways': 12, 'keep_back': keep_back})
    config.update({'batch_size': 1, 'num_steps': 600, 'steps_per_call': 50, 'log_every': 50})
    config.update({'eval_every': 0, 'save_every': 300})
    config.eval.episodes = 20
    config.optim.update({'name': 'adamw', 'learning_rate': 1e-3, 'schedule': 'cosine'})
    config.optim.weight_decay = 1e-4
    return config


def weights(data, simnet_from, kind='votes', bound=0.3, power=1.0):
    config = defaults(method='weigh', data=data)
    config.method.update({'simnet_from': simnet_from, 'kind': kind})
    config.method.update({'bound': bound, 'power': power})
    config.num_steps = 0
    return config


def classifier(data, weights_from='', simnet_from='', alpha=0.0, net='projection'):
    config = defaults(method='weakshot', data=data, net=net)
    if net == 'projection':
        config.net.update({'features': 256, 'length': 10.0})
    config.method.update({'weights_from': weights_from, 'simnet_from': simnet_from})
    config.method.alpha = alpha
    config.update({'batch_size': 128, 'num_steps': 300, 'steps_per_call': 50, 'log_every': 50})
    config.update({'eval_every': 0, 'save_every': 300})
    config.optim.update({'learning_rate': 3e-4})
    return config


def finetune():
    pretrain = defaults(method='pretrain', data='weak', net='resnet12')
    pretrain.update({'batch_size': 64, 'num_steps': 20_000, 'eval_every': 0, 'save_every': 1000})
    pretrain.optim.update({'name': 'sgd', 'learning_rate': 0.1, 'schedule': 'cosine'})
    pretrain.optim.weight_decay = 5e-4
    stages = {
        'pretrain': pretrain,
        'simnet': simnet('weak', net='resnet12', keep_back=KEPT_BACK),
        'weights': weights('weak', 'simnet', **PLANTED),
        'classify': classifier('weak', 'weights', net='resnet12'),
    }
    for name, stage in stages.items():
        stage.data.size = 84
        if name in ('simnet', 'classify'):
            stage.method.start_from = 'pretrain'
            stage.update({'num_steps': 5000, 'save_every': 1000})
            stage.optim.update({'learning_rate': 1e-4})
        if stage.num_steps:
            stage.augment.update({'degrees': 30.0, 'scale': 0.2, 'shift': 6.0})
    return stages


def cub():
    """Spec of the paper's code: head 4, beta 0.1; weights by rows; 60 epochs, then 100 in turn."""
    sgd = {'name': 'sgd', 'momentum': 0.9, 'weight_decay': 1e-4}
    first = simnet('weak', net='projection')
    first.net.update({'features': 2048, 'power': 1.0, 'length': 30.0})
    first.method.update({'widths': (4096, 2048, 2048), 'batch_items': 50, 'base_ways': 20})
    first.update({'num_steps': 5000, 'save_every': 1000})
    first.optim.update({**sgd, 'learning_rate': 5e-3, 'schedule': 'halve', 'halve_every': 2500})
    last = classifier('weak', 'weights', 'simnet', 0.1)
    last.net.update({'features': 2048, 'power': 1.0, 'length': 30.0})
    last.method.update({'schedule': 'paper', 'stretch': -4.0, 'alpha': ALPHA})
    last.update({'num_steps': 62_500, 'save_every': 12_500})
    last.optim.update({**sgd, 'learning_rate': 1e-4})
    stages = {
        'simnet': first,
        'weights': weights('weak', 'simnet', kind='mean', bound=0.0),
        'classify': last,
    }
    for stage in stages.values():
        stage.encoder = 'resnet50'
        stage.data.layout = 'cub'
    return stages
