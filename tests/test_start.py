"""What is set before JAX makes its devices, each in a process of its own; and sharing work out."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from anyshot_jax.runtime import ahead, start
from anyshot_jax.runtime.devices import map_over_devices, on_all_devices
from anyshot_jax.runtime.start import cores
from anyshot_jax.types import InputError

pytestmark = pytest.mark.slow

SCRIPT = """
import jax
from ml_collections import ConfigDict
from anyshot_jax.runtime import start
from anyshot_jax.config import defaults

def config(batch_size, num_steps=10):
    c = defaults('protonet', 'synthetic', 'mlp')
    c.batch_size, c.num_steps = batch_size, num_steps
    return c

start.cores = lambda: 6
start.split_cpu({config})
print(jax.local_device_count())
"""


@pytest.mark.parametrize(
    ('config', 'count'),
    [
        ('config(12)', 6),
        ('config(8)', 4),
        ('config(5)', 5),
        ('config(1)', 1),
        ('config(7, num_steps=0)', 6),  # nothing is trained: any number will do
        ("ConfigDict({'stages': ('a', 'b'), 'a': config(6), 'b': config(4)})", 2),
    ],
)
def test_a_cpu_becomes_the_most_devices_over_which_every_batch_divides(python, config, count):
    done = python('-c', SCRIPT.format(config=config), XLA_FLAGS='')
    assert done.stdout.split() == [str(count)], done.stderr


def test_what_the_user_set_goes_before(python):
    script = SCRIPT.format(config='config(12)')
    assert python('-c', script, XLA_FLAGS='', JAX_NUM_CPU_DEVICES='3').stdout.split() == ['3']
    flag = '--xla_force_host_platform_device_count=2'
    assert python('-c', script, XLA_FLAGS=flag).stdout.split() == ['2']


def test_cores_are_those_of_this_process():
    assert cores() >= 1


@pytest.mark.parametrize('num_devices', [1, 2])
@pytest.mark.parametrize('count', [1, 4, 7])
def test_work_shared_out_over_devices_comes_back_in_order(num_devices, count):
    x = jnp.arange(10.0)
    devices = jax.devices()[:num_devices]
    x = on_all_devices(x) if num_devices == 2 else jax.device_put(x, devices[0])
    got = map_over_devices(lambda i, x: {'a': x[i] ** 2, 'b': i}, count, devices, x)
    np.testing.assert_array_equal(got['a'], np.arange(count) ** 2)
    np.testing.assert_array_equal(got['b'], np.arange(count))


def test_a_plan_for_a_gpu_has_jax_keep_its_compiler(tiny_config, monkeypatch):
    """Its plugin refuses to be loaded where no driver answers, unless it is told beforehand."""
    name = 'JAX_SKIP_CUDA_CONSTRAINTS_CHECK'
    monkeypatch.setenv(name, '')  # so that it is put back
    monkeypatch.delenv(name)
    monkeypatch.setattr(ahead.importlib.util, 'find_spec', lambda package: package)
    monkeypatch.setattr(ahead.jax, '__version_info__', (0, 11, 0))
    start.load_compilers(tiny_config())
    assert name not in os.environ
    start.load_compilers(ConfigDict({'stages': ('a',), 'a': tiny_config(plan_for='h100')}))
    assert os.environ[name] == '1'
    with pytest.raises(InputError, match='there are v4, v5e, a100, h100'):
        start.load_compilers(tiny_config(plan_for='tpu3'))
