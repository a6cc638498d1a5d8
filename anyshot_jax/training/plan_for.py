"""Plans a run for an accelerator that isn't there: --config.plan=True --config.plan_for=v5e."""

import warnings

import jax
from ml_collections import ConfigDict

from anyshot_jax import target
from anyshot_jax.runtime import ahead
from anyshot_jax.training import fit, plan, population
from anyshot_jax.types import Data, InputError


def show(config: ConfigDict, data: Data) -> None:
    """Prints parameters, memory, the largest parts and the largest meta-batch of one device.

    The step is compiled by that machine's own compiler; nothing is run, so no time is told.

    Args:
      config: complete; config.plan_for names the machine. data: on the host.
    Raises:
      InputError: no such machine or no compiler for it, nothing to train, or a step of which not
        even one unit at a time fits.
    """
    machine = ahead.machine(config.plan_for)
    if not config.num_steps:
        raise InputError('config.plan_for tells what a training step needs, but num_steps=0')
    with target.written_for(machine.platform), warnings.catch_warnings():
        # A program for a device that isn't there can be kept, but not be read again.
        warnings.filterwarnings('ignore', 'Error reading persistent compilation cache')
        device = ahead.devices(machine)[:1]
        everyone = population.build(config, data)
        given = ahead.shapes(data, device)
        states = ahead.shapes(jax.eval_shape(everyone.init, given), device)
        held = plan.bytes_of(states) + plan.bytes_of(given)
        room = machine.usable * machine.memory - held
        print(
            f'Plan of {config.method.name} on {config.data.name}, for one {config.plan_for}: '
            'compiled for it, nothing is run.'
        )
        plan.show_parameters(jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype),
                                          states.params))  # fmt: skip
        print('\nMemory of one device')
        note = f'{plan.size(machine.memory)} less what JAX leaves to others'
        plan.line('can be used', plan.size(machine.usable * machine.memory), note)
        plan.line('state with optimiser', plan.size(plan.bytes_of(states)))
        plan.line('data', plan.size(plan.bytes_of(given)))
        if room <= 0:
            raise InputError(
                f'the data and the state need {plan.size(held)} of a {config.plan_for}, of which '
                f'{plan.size(held + room)} can be used: take fewer or smaller images, or a smaller '
                'net (config.net)'
            )

        def step(sizes: dict[str, int], batch: int) -> plan.Step:
            own = config.copy_and_resolve_references()
            own.update(sizes)
            args = population.build(own, data), given, states, batch, device, machine.lowering
            return plan.compiled(own, *args)

        def measure(sizes):
            try:
                found = step(sizes, config.batch_size)
            except InputError:  # a TPU's compiler knows its memory
                return 0, None
            return found.temporary, found

        most = {'member_chunk': len(everyone.members), 'task_chunk': config.batch_size}
        sizes = {n: size for n, size in most.items() if not config[n]}
        chosen, need, found = fit.largest(measure, sizes, room)
        plan.line('temporaries of a step', plan.size(need))
        plan.line('peak of training', plan.size(held + need), 'evaluation is not counted')
        for name, size in chosen.items():
            note = 'all at once' if size == sizes[name] else f'of {sizes[name]}: all do not fit'
            plan.line(f'largest config.{name}', str(size), note)
        temporary = lambda batch: step(chosen, batch).temporary
        sample = everyone.methods[0].sample
        assert sample  # what trains draws units
        unit = plan.bytes_of(jax.eval_shape(sample, everyone.keys['step'][0], given))
        free = {} if chosen.get('task_chunk', 0) < config.batch_size else {'task_chunk': 0}
        if free:  # all at once, whatever the batch
            temporary = lambda batch: step({**chosen, **free}, batch).temporary
        largest = plan.largest_batch(temporary, config.batch_size, need, room, unit, 1)
        plan.line('largest meta-batch', *largest)
        plan.line('FLOPs per step', plan.operations(found.work / config.steps_per_call))
