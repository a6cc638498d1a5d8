"""A config.json that came with a folder and asks for anything: refused before it costs anything."""

import json

import pytest

from anyshot_jax import config as configs
from anyshot_jax.training import workdir
from anyshot_jax.types import InputError

MANY = 10**9


def nested(levels):
    value: list = []
    for _ in range(levels):
        value = [value]
    return value


def stored(config, **fields):
    """Its JSON with fields of sections, 'a__b', assigned as no config would let them be."""
    given = json.loads(configs.to_json(config))
    for name, value in fields.items():
        *path, last = name.split('__')
        part = given
        for key in path:
            part = part[key]
        part[last] = value
    return json.dumps(given)


@pytest.mark.parametrize(
    ('field', 'value', 'said'),
    [
        ('num_steps', 10**30, 'num_steps is a number above'),
        ('seed', -(10**30), 'seed is a number above'),
        ('data__size', MANY, 'data.size is a number above 4,096'),
        ('net__steps', MANY, 'net.steps is a number above 10,000'),
        ('method__eval_steps', [0, MANY], 'method.eval_steps is a number above 10,000'),
        ('data__name', 'x' * 10**6, 'data.name has 1,000,000 characters'),
        ('eval__tasks', [[3, 1]] * 200_000, 'eval.tasks has 200,000 values'),
        ('net__hidden', [8] * 1000, 'net.hidden has 1,000 values'),
        ('data__per_class', [1] * 200_000, 'data.per_class has 200,000 values'),
        ('vary', nested(900), 'vary is nested more than'),
        ('vary', nested(20), 'vary is nested more than'),
        ('optim', {str(i): 0 for i in range(20_000)}, 'optim has 20,000 values'),
    ],
)
def test_values_beyond_any_config(tiny_config, field, value, said):
    with pytest.raises(InputError, match=rf'^config\.{said}'):
        configs.from_json(stored(tiny_config(), **{field: value}))


def test_what_configs_have_comes_back(tiny_config):
    """As long and as large as they may be."""
    config = tiny_config(seed=2**40, num_steps=10**12)
    config.data.num_classes = tuple(range(50_000))
    assert configs.from_json(configs.to_json(config)) == config


@pytest.mark.parametrize(
    ('field', 'value', 'said'),
    [
        ('data__num_classes', [MANY] * 3, 'num_classes = .* numbers, more than'),
        ('data__per_class', [1, MANY], 'per_class = .* numbers, more than'),
        ('data__dim', MANY, 'shape .* numbers, more than'),
        ('num_seeds', MANY, 'num_seeds and config.vary make 1,000,000,000 members'),
        ('num_seeds', -1, 'num_seeds=-1 must be'),
        ('train__ways', MANY, 'ways'),
        ('eval__tasks', [[MANY, MANY]], 'way episodes need'),
        ('data__seed', -1, 'holds no run to use: ValueError'),
        ('net__hidden', [-1], 'holds no run to use: '),
        ('eval__tasks', [5], 'holds no run to use: TypeError'),
    ],
)
def test_a_folder_that_asks_for_too_much_is_not_loaded(tiny_config, tmp_path, field, value, said):
    (tmp_path / 'config.json').write_text(stored(tiny_config(), **{field: value}))
    with pytest.raises(InputError, match=said):
        workdir.load(tmp_path)


@pytest.mark.parametrize('hidden', [[10**12], [10**6] * 50])
def test_a_state_of_that_size_is_never_made(tiny_config, tmp_path, hidden):
    (tmp_path / 'config.json').write_text(stored(tiny_config(), net__hidden=hidden))
    with pytest.raises(InputError, match='holds no checkpoint'):
        workdir.load(tmp_path)
