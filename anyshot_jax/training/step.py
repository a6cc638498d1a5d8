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
            return step(states, data, drawn)

    return call


def check_used(population: Population, states, data) -> None:
    """Refuses a field of the method that is to vary, but that neither its init nor its step reads.

    Raises:
      InputError: names it.
    """
    state, key = jax.tree.map(lambda a: a[0], (states, population.keys['step']))
    units = jnp.zeros(1, jnp.int32)

    def init(values, state, data):
        return population.method(values).init(key, data)

    def step(values, state, data):
        return _steps(population.method(values), state, data, key, units, 1)

    unread = {path for path in population.values if path.startswith('method.')}
    for function in init, step:
        if unread:
            with population.told_what_can_not_vary():
                values = {path: v[0] for path, v in population.values.items()}
                unread -= _reads(function, values, state, data)
    if unread:
        raise InputError(
            f'config.vary: {", ".join(sorted(unread))} is not used by this run, so varying it has '
            'no effect'
        )


def _reads(function: Callable, values: dict, *args) -> set[str]:
    """The names of those values that any operation of function(values, *args) takes."""
    jaxpr = jax.make_jaxpr(function, axis_env=[(AXIS, 1)])(values, *args).jaxpr
    taken = {id(v) for equation in jaxpr.eqns for v in equation.invars}
    return {name for name, v in zip(sorted(values), jaxpr.invars, strict=False) if id(v) in taken}


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
