"""Every recipe with stand-ins for its data, at its own size or at a small one."""

import importlib.util
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from anyshot_jax import config as configs
from anyshot_jax.runtime.devices import on_all_devices
from anyshot_jax.training import population
from anyshot_jax.training.step import make_step
from anyshot_jax.types import Data, from_arrays

FILES = sorted((Path(__file__).resolve().parent.parent / 'configs').glob('*.py'))


def recipe(file):
    spec = importlib.util.spec_from_file_location(f'recipe_{file.stem}', file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def variants(file):
    """The arguments that the docstring names as `:argument`, and none."""
    return ['', *re.findall(r'`:(\w+)`', recipe(file).__doc__)]


ALL = [pytest.param(f, arg, id=':'.join(filter(None, [f.stem, arg])))
       for f in FILES for arg in variants(f)]  # fmt: skip


# Not tried at a small size: those that are other recipes at other sizes or on other data.
SAME = ('bench_', 'omniglot_maml:hour', 'frozen_simpleshot:', 'product_retrieval:emoji',
        'product_retrieval:grocery', 'industrial_anyshot:b', 'weak_shots:choose',
        'weak_shots:rungs', 'weak_shots:folder_')  # fmt: skip
TRIED = [p for p in ALL if not p.id.startswith(SAME) or p.id.startswith('product_retrieval:emoji_')]


WEAK = ('noisy', 'weak')  # data of weak-shot learning, which has roles of its own


def stages_of(config):
    return [config[name] for name in config.stages] if 'stages' in config else [config]


def stand_in(config, num_classes, per_class):
    """Synthetic data of the kind and size that the recipe's own data would have."""
    own = config.data
    if own.name == 'sinusoid':
        return own  # it is synthetic
    fields = configs.defaults('knn', 'synthetic').data
    vectors = config.encoder or config.features_from or own.get('kind') == 'features'
    vectors = vectors or own.name == 'features'
    vectors = vectors or (config.residual.encoder and config.residual.output == 'peak')
    kind = 'features' if vectors else 'images'
    fields.update({'kind': kind, 'num_classes': (num_classes,) * 3, 'noise': 1.0})
    fields.per_class = (per_class, per_class)
    fields.dim = 32  # more than the shares of colours
    if kind == 'images':  # those that the encoder brings to a size itself may have any
        fields.size = 32 if config.method.get('encoder') else own.get('size', 28)
        fields.channels = own.get('channels', 1)
    fields.turns, fields.turns_eval = own.get('turns', 1), own.get('turns_eval', 1)
    return fields


def load(config, fields):
    """The stand-in, with what the recipe's own classes have besides: kinds, words, made items."""
    data = configs.find('data', fields.name).load(fields)
    extras = {}
    if kind := config.train.get('within') or config.eval.get('within'):
        extras[kind] = lambda num: np.zeros(num, np.int32)
    if config.describe.by:
        extras['attribute'] = lambda num: np.eye(num, 7, dtype=np.float32)
    if config.describe.colours:
        extras['colours'] = lambda num: np.eye(num, 11, dtype=np.float32)
    if extras:
        data = of_every_role(
            data, lambda d: d.replace(extras={n: f(len(d.count)) for n, f in extras.items()})
        )
    if config.data.name in WEAK:
        data = weak_roles(data)
    if config.method.name == 'anomaly':  # items that are no copies of each other
        data = of_every_role(data, lambda d: d.replace(group=np.arange(len(d.x), dtype=np.int32)))
    if config.residual.encoder and config.residual.output == 'map':  # of small images
        maps = lambda x: np.repeat(x[:, :28:4, :28:4, :1], 16, -1).astype(np.float16) / 255
        data = of_every_role(data, lambda d: d.replace(x=maps(d.x)))
    if shots := config.residual.average_shots:  # mean images, seen as items are
        test, draws = data.roles['test'], config.residual.average_draws
        seen = np.zeros((draws, len(test.count), *test.x.shape[1:]), test.x.dtype)
        support = np.zeros((draws, len(test.count), max(shots)), np.int32)
        seen_means = {'support': support, **{f'{k}-shot': seen for k in shots}}
        data = data.replace(averaged=seen_means)
    if config.data.name == 'mvtec':  # images without a defect
        good = lambda d: from_arrays(d.x[:2], np.zeros(2, int), ('good',))
        data.roles['good'] = good(data.roles['train'])
        data.roles['good_test'] = good(data.roles['val'])
    if config.method.name == 'patch_net':  # defects made on the first two normal ones, the last two
        data.roles['good'] = from_arrays(data.roles['train'].x[:4], np.zeros(4, int), ('good',))
        for role, first in (('train', 0), ('val', 2)):
            x = data.roles[role].x
            data.roles[role] = data.roles[role].replace(
                group=first + np.arange(len(x), dtype=np.int32) % 2, mask=x[..., 0] > 128
            )
    if config.method.get('synthesised_from'):
        made = {
            r: np.ones((len(d.count), 2, *d.x.shape[1:]), np.float32) for r, d in data.roles.items()
        }
        data = data.replace(stages={config.method.synthesised_from: made})
    return data


def of_every_role(data, function):
    return data.replace(roles={role: function(d) for role, d in data.roles.items()})


def weak_roles(data):
    """Stand-ins for the roles of weak-shot data: base classes, and novel ones with a web set."""
    train, test = data.roles['train'], data.roles['test']
    web = test.replace(clean=np.arange(len(test.label)) % 3 > 0)
    return Data({'base': train, 'test_base': train, 'test': test, 'web': web})


def handed_on(method, state, data):
    """What a stage of weak-shot learning exports, of any state of its shapes; `weigh`: ones."""
    if method.update is None:
        return {'weight': np.ones(len(data.roles['web'].label), np.float32)}
    zeros = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), state)
    return {n: np.asarray(a) for n, a in method.export(zeros, data, None).items()}


def small(config):
    """The config with few of everything, and its stand-in's fields."""
    classes = config.data.name != 'sinusoid'
    ways = 3 if classes else 1
    # Neither makes another program: numbers that may vary within one, and counts of steps.
    usual = configs.defaults(config.method.name, config.data.name, config.net.name)
    for path in population.traced(config):
        section, field = path.split('.')
        config[section][field] = usual[section][field] if config[section][field] else 0.0
    config.num_steps = min(config.num_steps, 2)
    config.update(dict.fromkeys(('log_every', 'eval_every', 'save_every', 'early_stop'), 1))
    config.train.update({'ways': ways, 'shots': 1, 'queries': 2})
    config.eval.update({'tasks': ((ways, 1),), 'queries': 3, 'episodes': 4, 'val_episodes': 4})
    if isinstance(config.net.get('features'), int):
        config.net.features = 8
    if 'dense' in config.net:
        config.net.update({'features': (4,) * len(config.net.features), 'dense': 8})
    if config.net.name == 'resnet12':
        config.net.features = (4, 4)  # blocks: four take four times as long to compile
    if config.method.get('small_batch'):
        config.method.small_batch = 2
    config.batch_size = 2
    if config.method.get('size'):
        config.method.size = 64
    if config.method.name == 'anomaly':
        config.method.update({'draws': 4, 'adapt_steps': min(config.method.adapt_steps, 2)})
    fields = stand_in(config, 4, 6)
    if classes:
        fields.size = min(fields.size, 85 if config.net.name == 'koch' else 28)
    if 'widths' in config.method:
        config.method.widths = (8,) * len(config.method.widths)
    return config, fields


def two_steps(config, fields, exported):
    """Runs a stage; what it exports where it is one of weak-shot learning."""
    data = load(config, fields)
    data = jax.device_put(data.replace(stages={**data.stages, **exported}))
    method = configs.find('methods', config.method.name).build(config, data)
    key = jax.random.key(0)
    state, data = on_all_devices((jax.jit(method.init)(key, data), data))
    if config.num_steps:
        step = make_step(method, batch_size=2, steps_per_call=2)
        state, metrics = step(state, data, key)
        assert int(state.step) == 2
        assert all(np.isfinite(m).all() for m in metrics.values())
    values = method.evaluate(state, data, key, 'test')
    if config.data.name in WEAK:
        assert all(np.isfinite(v).all() and (v >= 0).all() for v in values.values())
        return handed_on(method, state, data)
    classes = config.data.name != 'sinusoid'
    name = '3-way 1-shot' if classes else '1-shot after 1 step'
    # Of four classes, not of four episodes; of every test item.
    names = (name, 'zero-shot', 'image AUROC', '1-shot macro')
    name = next(n for n in names if n in values)
    value = np.asarray(values[name])
    assert value.shape == (24 if name == 'image AUROC' else 4,) and (value >= 0).all()
    assert not classes or (value <= 1).all()
    return None
