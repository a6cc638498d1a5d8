"""Every recipe is built and trained for two steps, with small data of the kind it wants."""

import importlib.util
import re

import jax
import numpy as np
import pytest
from conftest import ROOT
from ml_collections import ConfigDict

from anyshot_jax import config as configs
from anyshot_jax.train import make_step
from anyshot_jax.types import InputError

FILES = sorted((ROOT / 'configs').glob('*.py'))


def variants(path):
    """The file without an argument, and with each that its docstring names as `:word`."""
    return [path.name, *(f'{path.name}:{w}' for w in re.findall(r'`:(\w+)`', path.read_text()))]


def get_config(name) -> ConfigDict:
    file, _, arg = name.partition(':')
    spec = importlib.util.spec_from_file_location('recipe', ROOT / 'configs' / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*([arg] if arg else []))


@pytest.mark.parametrize('name', [v for path in FILES for v in variants(path)])
def test_recipe_takes_two_steps(name):
    whole = get_config(name)
    for stage in whole.get('stages', ('',)):
        config = configs.check(whole[stage] if stage else whole)
        two_steps(config)


def two_steps(config):
    features = config.data.name == 'features' or config.features_from
    small = configs.defaults('knn', 'synthetic').data
    small.update({'kind': 'features' if features else 'images', 'num_classes': (4, 3, 3)})
    small.update({'size': 28, 'channels': config.data.get('channels', 1), 'turns': 1})
    data = configs.find('data', 'synthetic').load(small)
    with config.unlocked():  # its method, net and optimiser stay; its tasks shrink with the data
        config.train.update({'ways': 3, 'queries': 2})
        config.eval.update({'tasks': ((3, 1),), 'select': '', 'episodes': 4, 'val_episodes': 4})
        if 'features' in config.net and isinstance(config.net.features, int):
            config.net.features = 8
    method = configs.find('methods', config.method.name).build(config, data)
    data = jax.device_put(data)
    state = method.init(jax.random.key(0), data)
    if config.num_steps:
        step = make_step(method, batch_size=2, steps_per_call=2)
        state, metrics = step(state, data, jax.random.key(1))
        assert int(state.step) == 2
        assert all(np.isfinite(m).all() for m in metrics.values())
    values = method.evaluate(state, data, jax.random.key(2), 'test')
    assert values['3-way 1-shot'].shape == (4,)


def test_periods_of_every_recipe_fit():
    from anyshot_jax.train import _check_periods

    for name in (v for path in FILES for v in variants(path)):
        whole = get_config(name)
        for stage in whole.get('stages', ('',)):
            _check_periods(whole[stage] if stage else whole)


def wrong(change):
    config = configs.defaults('protonet', 'synthetic', 'conv4').unlock()
    change(config)
    with pytest.raises(InputError) as caught:
        configs.check(config)
    return str(caught.value)


def test_unknown_fields_name_the_nearest():
    message = wrong(lambda c: c.update({'num_step': 3}))
    assert 'config.num_step' in message and "'num_steps'" in message
    message = wrong(lambda c: c.optim.update({'learning_rat': 0.1}))
    assert 'config.optim.learning_rat' in message and "'learning_rate'" in message
    message = wrong(lambda c: c.method.update({'batchnorm': 'inductive'}))
    assert 'config.method.batchnorm' in message and "'batch_norm'" in message


def test_wrong_types_and_names():
    def text(config):
        with config.ignore_type():
            config.num_steps = 'many'

    assert 'config.num_steps must be int' in wrong(text)
    assert "'protonet'" in wrong(lambda c: c.method.update({'name': 'protnet'}))
    assert "'synthetic'" in wrong(lambda c: c.data.update({'name': 'syntetic'}))


def test_helper_modules_are_no_datasets():
    with pytest.raises(InputError, match=r'no anyshot_jax/data/images\.py') as caught:
        configs.find('data', 'images')
    assert 'omniglot' in str(caught.value) and 'splits' not in str(caught.value)


def test_fields_that_came_later_are_no_difference():
    old, new = {'a': 1, 'b': {'c': 2}}, {'a': 1, 'b': {'c': 3, 'd': 4}, 'e': 5}
    assert configs.differences(old, new) == ['config.b.c: 2 -> 3']
    assert configs.differences({**old, 'gone': 1}, old) == ['config.gone: 1 -> None']
