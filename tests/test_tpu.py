"""Programs compiled for four chips of a TPU v5e by its own compiler, with none of them there.

Needs libtpu: pip install '.[aot]'. A GPU's compiler is asked by hand, for it takes 3 GB:
experiments/accelerators_table.py.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from method_cases import NAMES, Case

from anyshot_jax import config as configs
from anyshot_jax import target
from anyshot_jax.encoders.efficientnet_lite import EfficientNetLite
from anyshot_jax.episodes.episodic import episode_accuracies
from anyshot_jax.ops.neighbours import nearest
from anyshot_jax.ops.transport import sinkhorn
from anyshot_jax.runtime import ahead
from anyshot_jax.training import loop, population
from anyshot_jax.training.step import make_population_step, make_step
from anyshot_jax.types import InputError

pytest.importorskip('libtpu', reason="needs the TPU's compiler: pip install '.[aot]'")
MB = 2**20


@pytest.fixture(scope='module')
def chips():
    """Of a v5e, for which everything is written while they are borrowed."""
    found = ahead.devices(ahead.machine('v5e'))
    with target.written_for('tpu'):
        yield found


def text_of(function, *args, most: int, donate=()):
    """The optimised program, and what it needs; it speaks with no host and needs few bytes."""
    traced = jax.jit(function, donate_argnums=donate).trace(*args)
    program = traced.lower(lowering_platforms=('tpu',)).compile()
    text, memory = program.as_text(), program.memory_analysis()
    assert not re.search(r' (infeed|outfeed|send|recv)\(|callback', text)
    assert memory.temp_size_in_bytes < most
    return text, memory


def sums(text: str) -> int:
    """Over all devices."""
    return len(re.findall(r' all-reduce(?:-start)?\(', text))


def size(tree) -> int:
    return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(tree))


UNTRAINED = {'hausdorff', 'knn', 'lda', 'refine', 'simpleshot'}


@pytest.mark.parametrize('name', sorted(set(NAMES) - UNTRAINED))
def test_a_step(name, chips):
    """One sum over the devices, the state used up in place, and no convolution in groups."""
    case = Case(name, {})
    state, data = ahead.shapes((case.init, case.data), chips)
    step = make_step(case.build(), batch_size=4, steps_per_call=2, devices=chips)
    key = ahead.shapes(jax.random.key(0), chips)
    text, memory = text_of(step, state, data, key, most=16 * MB, donate=0)
    assert sums(text) == 1
    assert memory.alias_size_in_bytes >= size(state)
    assert 'feature_group_count' not in text and 'batch_group_count' not in text


@pytest.mark.parametrize('name', ['protonet', 'maml'])
def test_an_evaluation(name, chips):
    """Several episodes at once on each chip, each with its own; what they gave is gathered once."""
    found = Case(name, {})
    shape = {'tasks': ((3, 1),), 'queries': 2, 'count': 64, 'devices': chips}

    def accuracies(state, dataset, key):
        return episode_accuracies(found.method.predict, state, dataset, key, **shape)

    args = ahead.shapes((found.init, found.data.roles['test'], jax.random.key(0)), chips)
    text, _ = text_of(accuracies, *args, most=64 * MB)
    assert sums(text) + len(re.findall(r' all-gather(?:-start)?\(', text)) == 1


def test_a_population(tiny_config, chips):
    """Eight seeds by vmap: still one sum."""
    config = configs.check(tiny_config('protonet', 'conv4', num_seeds=8, batch_size=4))
    data = configs.find('data', config.data.name).load(config.data)
    everyone = population.build(config, data)
    data = ahead.shapes(data, chips)
    states = ahead.shapes(jax.eval_shape(everyone.init, data), chips)
    step = make_population_step(everyone, batch_size=4, steps_per_call=2, devices=chips)
    text, memory = text_of(step, states, data, most=64 * MB, donate=0)
    assert everyone.chunk == 8 and sums(text) == 1
    assert memory.alias_size_in_bytes >= size(states)


def like(*shape, dtype=np.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def test_an_encoder(chips):
    net = EfficientNetLite()
    x = like(8, 224, 224, 3)
    params = jax.eval_shape(net.init, jax.random.key(0), x)
    text_of(net.apply, *ahead.shapes((params, x), chips[:1]), most=256 * MB)


def test_searches(chips):
    """What compares features asks for all bits: bfloat16 takes part in no product."""
    x, bank, cost = ahead.shapes((like(600, 64), like(3000, 64), like(75, 5)), chips[:1])
    text_of(nearest, x, bank, most=64 * MB)
    rows, columns = jnp.ones(75), jnp.ones(5)
    text_of(lambda cost: sinkhorn(cost, rows, columns)[0], cost, most=MB)


def test_devices_are_the_same_every_time(chips):
    """JAX takes two objects of one number for two devices."""
    assert ahead.devices(ahead.machine('v5e')) is chips


def test_a_plan(tiny_config, tmp_path, capsys, monkeypatch):
    """Of 16 GiB all fits; of 1 MiB not one task, which is said. Parts of it: tests/test_fit.py."""
    fields = {'plan_for': 'v5e', 'batch_size': 4, 'task_chunk': 0, 'net__features': 64}
    config = tiny_config('protonet', 'conv4', **fields, train__queries=5, data__size=28)
    assert loop.run(config, tmp_path / 'run').means == {}
    printed = capsys.readouterr().out
    assert 'for one v5e: compiled for it' in printed and 'all at once' in printed
    assert 'largest meta-batch' in printed and not (tmp_path / 'run').exists()
    v5e = ahead.MACHINES['v5e']
    monkeypatch.setitem(ahead.MACHINES, 'v5e', v5e._replace(memory=MB, usable=1.0))
    with pytest.raises(InputError, match=r'a step of one unit at once needs .*choose a smaller'):
        loop.run(config, tmp_path / 'run')
    monkeypatch.setitem(ahead.MACHINES, 'v5e', v5e._replace(memory=1000, usable=1.0))
    with pytest.raises(InputError, match=r'state need .* a v5e, of which 1000 bytes can be used'):
        loop.run(config, tmp_path / 'run')
