"""The compiled step: the only pmap, and the only scan over steps."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from anyshot_jax.runtime.devices import AXIS
from anyshot_jax.training.population import Population
from anyshot_jax.types import InputError, Method


def make_step(method: Method, *, batch_size: int, steps_per_call: int, devices=None):
    """The compiled step: pmap over devices of scan over steps of vmap over sampled units.

    Unit u of step s is drawn with fold_in(fold_in(key, s), u) whatever the number of devices and
    whatever came before: a resumed run, and one on more devices, sees the same units.

    Returns:
      (state, data, key) -> (state, metrics [steps_per_call]); the given state is used up.
    """
    steps = lambda state, data, key, units: _steps(method, state, data, key, units, steps_per_call)
    return _on_devices(steps, batch_size, devices)


def make_population_step(
    population: Population, *, batch_size: int, steps_per_call: int, devices=None
):
    """`make_step` of all members at once.

    Returns:
      (states [M, ...], data) -> (states, metrics [M, steps_per_call]).
    """

    def steps(states, data, drawn, units):
        def one(state, key, values):
            method = population.method(values)
            return _steps(method, state, data, key, units, steps_per_call)

        return population.each(one, states, *drawn)

    step = _on_devices(steps, batch_size, devices)
    drawn = population.keys['step'], population.values

    def call(states, data):
        with population.told_what_can_not_vary():
            result = step(states, data, drawn)
        if unread := set(population.values) - population.read:
            raise InputError(
                f'config.vary: {", ".join(sorted(unread))} makes no difference, for nothing in '
                'this run uses it'
            )
        return result

    return call


def _steps(method, state, data, key, units, count):
    def one(state, _):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, state.step), units)
        keys = jax.vmap(jax.random.split)(keys)
        batch = jax.vmap(method.sample, (0, None))(keys[:, 0], data)
        return method.update(state, batch, keys[:, 1])

    return jax.lax.scan(one, state, length=count)


def _on_devices(steps: Callable, batch_size: int, devices):
    all_devices = devices or jax.devices()  # of all processes
    if batch_size % len(all_devices):
        raise InputError(
            f'config.batch_size={batch_size} does not divide over {len(all_devices)} devices; '
            f'take a multiple of {len(all_devices)}'
        )
    own = [i for i, d in enumerate(all_devices) if d.process_index == jax.process_index()]
    units = jnp.arange(batch_size).reshape(len(all_devices), -1)[np.array(own)]
    mapped = jax.pmap(
        steps, AXIS, in_axes=(None, None, None, 0), out_axes=(None, None), donate_argnums=0,
        devices=devices,
    )  # fmt: skip
    return lambda state, data, drawn: mapped(state, data, drawn, units)
