"""Memory, arithmetic and time that a run needs, printed before it trains: --config.plan=True."""

import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from anyshot_jax import config as configs
from anyshot_jax.runtime import flops
from anyshot_jax.runtime.memory import free_bytes
from anyshot_jax.training.population import Population, take
from anyshot_jax.training.step import make_population_step
from anyshot_jax.types import Data, InputError

TIMED_CALLS = 3
LONG_CALL = 20.0  # seconds: so long a call says enough alone
SHORT_EVALUATION = 10.0  # seconds: timed as a whole
LONG_EVALUATION = 5.0  # seconds: timed once
MANY = 1000  # times the batch: more than anyone wants
EPISODES = (4, 20)  # a device, of the two evaluations that are timed


class Step(NamedTuple):
    """The compiled step of one batch size."""

    call: Callable  # (states, data) -> (states, metrics); the given states are used up
    compile_s: float
    work: float  # floating-point operations of a call over all devices
    xla_work: float  # XLA's count of one device's program
    temporary: int  # bytes on a device beside state and data


def show(
    config: ConfigDict, everyone: Population, data: Data, states: Any, devices: list[jax.Device]
) -> None:
    """Prints parameters, memory, operations and time of a run; writes nothing.

    Args:
      config: complete. data, states: on all of `devices`, as training has them; states are used up.
    """
    net = f' with {config.net.name}' if config.net.name else ''
    where = f'{len(devices)} x {devices[0].device_kind}'
    print(f'Plan of {config.method.name}{net} on {config.data.name}, {where}. Nothing is trained.')
    members = len(everyone.members)
    if members > 1:
        line('Members', str(members), 'runs side by side; parameters are of one, all else of all')
    show_parameters(take(states, 0).params)
    trains = config.num_steps > 0 and not config.eval_only
    compilation: dict[str, float] = {}
    rows = []
    if trains:
        step = compiled(config, everyone, data, states, config.batch_size, devices)
        _show_work(step, config)
        if not _show_memory(config, everyone, data, states, devices, step):
            return
        call_s, states = _time_calls(step, data, states)
        step_s = call_s / config.steps_per_call
        compilation['step'] = step.compile_s
        rate = step.work / call_s / 1e9
        note = f'{config.num_steps:,} steps of {seconds(step_s)}, {rate:.1f} GFLOP a second'
        rows.append(('training', step_s * config.num_steps, note))
    else:
        print('\nMemory of one device')
        line('data', size(bytes_of(data)))
    one = take(states, 0), everyone.keys['val'][0]
    for name, times, compile_s, each_s in _time_evaluations(config, data, *one, trains):
        times *= members  # one after another
        compilation[name] = compile_s
        note = f'{times} of {seconds(each_s)}' if name == 'validation' else ''
        rows.append((name, times * each_s, note))
    print('\nTime, an estimate' if trains else '\nTime, an estimate; there is no training')
    parts = ', '.join(f'{name} {seconds(s)}' for name, s in compilation.items())
    line('compilation', seconds(sum(compilation.values())), f'{parts}; less if cached')
    for name, all_s, note in rows:
        line(name, seconds(all_s), note)
    line('altogether', seconds(sum(compilation.values()) + sum(s for _, s, _ in rows)))
    early = ', an early end' if trains and (config.early_stop or config.stop_at) else ''
    print(f'Not counted: the start, loading the data, checkpoints, the report{early}.')


# Memory.


def compiled(
    config: ConfigDict, everyone: Population, data: Data, states: Any, batch_size: int, devices,
    platform: str = '',
) -> Step:  # fmt: skip
    """The step as training runs it, but for its `batch_size`; nothing is run.

    Args:
      platform: as JAX calls it where it lowers for devices that are not there; '': for its own.
    """
    sizes = {'batch_size': batch_size, 'steps_per_call': config.steps_per_call}
    step = make_population_step(everyone, **sizes, devices=devices)
    traced = jax.jit(step, donate_argnums=0).trace(states, data)
    started = time.monotonic()
    try:
        lowered = traced.lower(lowering_platforms=(platform,)) if platform else traced.lower()
        program = lowered.compile()
    except jax.errors.JaxRuntimeError as e:  # a TPU's compiler knows its memory
        if 'RESOURCE_EXHAUSTED' not in str(e):
            raise
        raise InputError(f'a step of config.batch_size={batch_size} does not fit: {e}') from e
    compile_s = time.monotonic() - started
    memory, cost = program.memory_analysis(), program.cost_analysis()
    # What is returned lies where the given state was, but for the metrics.
    returned = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return Step(
        program, compile_s, flops.of_jaxpr(traced.jaxpr.jaxpr), (cost or {}).get('flops', math.nan),
        memory.temp_size_in_bytes + returned,
    )  # fmt: skip


def _show_memory(config, everyone, data, states, devices, step: Step) -> bool:
    """Prints it; whether the step fits."""
    held = bytes_of(states) + bytes_of(data)
    limit, need = free_bytes() + held, held + step.temporary
    print('\nMemory of one device')
    line('state with optimiser', size(bytes_of(states)))
    line('data', size(bytes_of(data)))
    line('temporaries of a step', size(step.temporary))
    line('peak of training', size(need), f'{size(limit)} can be used; evaluation is not counted')
    unit = bytes_of(jax.eval_shape(everyone.methods[0].sample, everyone.keys['step'][0], data))
    measure = lambda batch: compiled(config, everyone, data, states, batch, devices).temporary
    sizes = config.batch_size, step.temporary, limit - held, unit, len(devices)
    found = largest_batch(measure, *sizes)
    line('largest meta-batch', *found)
    if need > limit:
        print('\nThe step does not fit, so that its time is not measured.')
    return need <= limit


def largest_batch(
    measure: Callable[[int], int],
    batch_size: int,
    temporary: int,
    free: float,
    unit: int,
    devices: int,
) -> tuple[str, str]:
    """The largest meta-batch that fits into `free` bytes, and how that is known.

    Args:
      measure: a batch -> bytes on a device that its step needs beside state and data.
      temporary: those of `batch_size`. unit: bytes of a sampled one. devices: how many share it.
    """
    points = {batch_size: temporary}
    try:
        for tried in (2 * batch_size, 3 * batch_size):
            points[tried] = measure(tried)
        fits, growth, note = _where_line_ends(points, free, devices)
        if growth * devices <= 2 * unit:  # gradients are accumulated; all units are drawn at first
            each = size(max(growth, 0) * devices)
            return 'any size fits', f'memory does not grow with it, but for {each} a unit'
        if fits > MANY * batch_size:
            return f'over {MANY * batch_size:,}', f'{size(growth * devices)} a unit'
        if fits > tried:  # far out the line is a little steeper
            tried = fits
            points[tried] = measure(tried)
            fits, growth, note = _where_line_ends(points, free, devices)
    except InputError:
        return f'below {tried}', 'the compiler finds no room for that'
    return f'{fits:,}', f'{note}, {size(growth * devices)} a unit'


def _where_line_ends(points: dict[int, int], free: float, devices: int) -> tuple[int, float, str]:
    """The batch that needs `free` bytes, by a line through the two largest ones, and its slope.

    A batch of one unit a device may be another program than all others.
    """
    (before, low), (last, high) = sorted(points.items())[-2:]
    growth = (high - low) / (last - before)
    fits = int(last + (free - high) / growth) // devices * devices if growth > 0 else 0
    return max(fits, 0), growth, f'an estimate, by a line through {before} and {last}'


def bytes_of(tree) -> int:
    """Bytes of all arrays of a tree, or of their shapes and dtypes."""
    return sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(tree))


# Time.


def _time_calls(step: Step, data, states) -> tuple[float, Any]:
    """Seconds of a call of the step: the median of three after one more, or a long one alone."""
    times: list[float] = []
    while len(times) <= TIMED_CALLS:
        started = time.monotonic()
        states, _ = jax.block_until_ready(step.call(states, data))
        times.append(time.monotonic() - started)
        if times[0] > LONG_CALL:
            return times[0], states
    return statistics.median(times[1:]), states


def _time_evaluations(config, data, state, key, trains: bool):
    """(name, how often, seconds of compilation, seconds each) of validation and of the last test.

    Evaluations of few and of more episodes tell what an episode takes, and what they all share,
    such as the embedding of a split.
    """
    last, validates = config.eval.role, trains and config.eval_every > 0
    few, more = (n * len(jax.tree.leaves(data)[0].devices()) for n in EPISODES)
    count = {'val': config.eval.val_episodes, 'test': config.eval.episodes}
    timed = partial(_time_evaluation, config, data, state, key)
    first = {role: timed(role, few) for role in dict.fromkeys(['val'] * validates + [last])}
    role, (_, few_s) = next(iter(first.items()))
    slope = lambda n: max(timed(role, n)[1] - few_s, 0.0) / (n - few)
    whole = lambda role, each: max(first[role][1] + each * (count[role] - few), 0.0)
    each = slope(2 * few if few_s > SHORT_EVALUATION else more)
    if count[role] > more and whole(role, each) < SHORT_EVALUATION:
        each = slope(count[role])  # little is left to guess
    if validates:
        times = math.ceil(config.num_steps / config.eval_every)
        yield 'validation', times, first['val'][0], whole('val', each)
    yield 'test', 1, first[last][0], whole(last, each)


def _time_evaluation(config, data, state, key, role: str, count: int) -> tuple[float, float]:
    """Seconds of compilation, and of an evaluation of `count` episodes once it is compiled.

    A long one is timed once, others twice, of which the quicker counts.
    """
    small = config.copy_and_resolve_references()
    small.eval.update({'episodes': count, 'val_episodes': count})
    method = configs.find('methods', config.method.name).build(small, data)
    times: list[float] = []
    while len(times) < 3:
        started = time.monotonic()
        jax.device_get(method.evaluate(state, data, key, role))
        times.append(time.monotonic() - started)
        if len(times) == 2 and times[1] > LONG_EVALUATION:
            break
    once = min(times[1:])
    return max(times[0] - once, 0.0), once


# Words.


def show_parameters(params) -> None:
    """Prints how many there are, also by the parts of the net."""
    trees = params if isinstance(params, dict) else {}
    number = lambda tree: sum(math.prod(a.shape) for a in jax.tree.leaves(tree))
    line('Parameters', f'{number(params):,}', size(bytes_of(params)))
    for name, tree in trees.items():
        line(f'  {name}', f'{number(tree):,}', size(bytes_of(tree)))


def _show_work(step: Step, config) -> None:
    a_step = step.work / config.steps_per_call
    note = 'matrix products and convolutions, all devices, loops counted by their length'
    line('FLOPs per step', operations(a_step), note)
    line(
        "  XLA's own count",
        operations(step.xla_work),
        "one device, all operations, a loop's body once",
    )


def line(label: str, value: str, note: str = '') -> None:
    """Prints one line of the plan."""
    print(f'{label:28} {value:>12}  {note}'.rstrip(), flush=True)


def size(count: float) -> str:
    """Bytes as people read them."""
    return _scaled(count, 1024, ('bytes', 'KiB', 'MiB', 'GiB', 'TiB'))


def operations(count: float) -> str:
    return _scaled(count, 1000, ('FLOP', 'kFLOP', 'MFLOP', 'GFLOP', 'TFLOP', 'PFLOP'))


def seconds(count: float) -> str:
    """A time as people read it."""
    for unit, length in (('days', 86_400), ('h', 3600), ('min', 60), ('s', 1)):
        if count >= 2 * length:
            return f'{count / length:.1f} {unit}'
    return f'{count:.2f} s' if count >= 0.1 else f'{1000 * count:.2g} ms'


def _scaled(count: float, step: int, units: tuple[str, ...]) -> str:
    power = 0
    while count >= step and power < len(units) - 1:
        count, power = count / step, power + 1
    return f'{count:.{1 if power else 0}f} {units[power]}'
