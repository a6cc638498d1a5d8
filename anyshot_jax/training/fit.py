"""Fits units and members computed at once to an accelerator's memory."""

from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from anyshot_jax.runtime.memory import free_bytes
from anyshot_jax.target import on_cpu
from anyshot_jax.training import plan, processes
from anyshot_jax.types import Data, InputError

SHARE = 0.9  # of the free memory; evaluation and the allocator's gaps need the rest


def fitted(config: ConfigDict, build: Callable, data: Data, states: Any, devices) -> tuple:
    """The population and its compiled step that fit; (of `build`, None) where nothing is to choose.

    config.task_chunk=0 and config.member_chunk=0 ask for that: all at once if it fits, else the
    largest parts that do, members first. A CPU takes one at a time, whose cache one fills.

    Args:
      build: a config -> its population. data, states: on the devices, as training has them.
    Raises:
      InputError: one unit alone does not fit.
    """
    everyone = build(config)
    free = {'member_chunk': len(everyone.members), 'task_chunk': config.batch_size // len(devices)}
    free = {name: most for name, most in free.items() if not config[name] and most > 1}
    if on_cpu() or not config.num_steps or config.eval_only:
        return everyone, None

    def measure(sizes: dict[str, int]) -> tuple[int, Any]:
        own = config.copy_and_resolve_references()
        own.update(sizes)
        whole = everyone if sizes == free else build(own)
        try:
            step = plan.compiled(own, whole, data, states, config.batch_size, devices)
        except InputError:  # a TPU's compiler knows its memory
            return 0, None
        return step.temporary, (whole, step.call)

    limit = SHARE * free_bytes()
    sizes, need, (everyone, step) = largest(measure, free, limit)
    if sizes != free and processes.first():
        chosen = ' '.join(f'--config.{name}={size}' for name, size in sizes.items())
        tqdm.write(
            f'{plan.size(need)} at once of the {plan.size(limit)} that are free: as with {chosen}'
        )
    return everyone, step


def largest(measure: Callable, sizes: dict[str, int], limit: float) -> tuple[dict, int, Any]:
    """The largest sizes (divisors of those given, the first name's cut first) that fit.

    Args:
      measure: sizes -> bytes that they need, 0 if no room was found for them, and anything else.
    Returns:
      sizes, their bytes and the rest of what `measure` gave.
    Raises:
      InputError: not even ones fit.
    """
    most = dict(sizes)
    while True:
        need, rest = measure(sizes)
        if rest is not None and need <= limit:
            return sizes, need, rest
        cut = next((name for name, size in sizes.items() if size > 1), None)
        if cut is None:
            needed = 'more than its compiler finds room for' if rest is None else plan.size(need)
            raise InputError(
                f'a step of one unit at once needs {needed}, but {plan.size(limit)} of '
                "the device's memory can be used: choose a smaller net, smaller images or fewer "
                'config.train.queries, or config.net.compute_dtype=bfloat16'
            )
        # Memory grows with the size, so that the next candidate is known; but at least halve.
        aim = sizes[cut] * min(limit / need if need else 0.5, 0.5)
        smaller = [d for d in range(1, sizes[cut]) if most[cut] % d == 0]
        sizes = {**sizes, cut: max([d for d in smaller if d <= aim], default=1)}


def devices_line(batch_size: int, devices) -> str:
    """A line to print where a batch leaves devices idle, else ''."""
    there = jax.device_count()
    if len(devices) == there:
        return ''
    return (
        f'config.batch_size={batch_size} divides over {len(devices)} of {there} devices: the '
        f'others stay idle; a multiple of {there} uses all'
    )
