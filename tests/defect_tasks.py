"""Synthetic types of defects, and the classifier of types on them."""

import jax
import numpy as np

from anyshot_jax import config as configs
from anyshot_jax.methods import anomaly
from anyshot_jax.runtime.devices import on_all_devices
from anyshot_jax.types import Data, from_arrays

KEY = jax.random.key(3)
SMALL = {'mlp': {'hidden': (), 'features': 5}, 'pair_relation': {'widths': (4, 3), 'hidden': 3},
         'residual': {'widths': (4,), 'features': 5}, 'beside': {'features': 3}}  # fmt: skip


def make(test, net='mlp', *, train=None, averaged=None, fields=None, **method):
    """The method, its first state and the data on all devices."""
    config = configs.defaults('anomaly', 'synthetic', net)
    config.net.update(SMALL[net] | (fields or {}))
    config.update({'num_steps': 0, 'batch_size': 2, 'steps_per_call': 2})
    config.train.update({'ways': 3, 'shots': 2, 'queries': 2})
    config.eval.update({'tasks': ((3, 1), (2, 2)), 'queries': 2, 'val_episodes': 6})
    config.optim.update({'name': 'sgd', 'learning_rate': 0.1})
    config.method.update({'shots': (1, 2), 'draws': 20} | method)
    data = Data({'test': test}, averaged=averaged or {})
    if train is not None:
        config.num_steps = 4
        data.roles.update({'train': train, 'val': train})
    built = anomaly.build(config, data)
    data = on_all_devices(data)
    return built, on_all_devices(jax.jit(built.init)(KEY, data)), data


def types(counts, dim=6, noise=0.0, seed=0, copies=1):
    """Types around random directions of their own; each item `copies` times, in one group."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(len(counts)), counts)
    x = rng.normal(size=(len(counts), dim))[label] + noise * rng.normal(size=(len(label), dim))
    x, label = np.repeat(np.float32(x), copies, 0), np.repeat(label, copies)
    names = tuple(f'type {c}' for c in range(len(counts)))
    return from_arrays(x, label, names, group=np.arange(len(x)) // copies)


def maps(counts, seed=0):
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(len(counts)), counts)
    x = rng.normal(size=(len(label), 3, 3, 4)).astype(np.float16)
    return from_arrays(x, label, group=np.arange(len(x)))


def evaluated(*args, key=KEY, **fields):
    method, state, data = make(*args, **fields)
    return jax.tree.map(np.asarray, method.evaluate(state, data, key, 'test'))


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)
