"""The device axis: placing arrays on devices, and functions split over them."""

import collections
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from anyshot_jax.runtime import live
from anyshot_jax.runtime.memory import free_bytes
from anyshot_jax.target import on_cpu
from anyshot_jax.types import InputError

AXIS = 'devices'
AT_ONCE = 256  # calls of `map_over_devices` that an accelerator is given at once, at most
SHARE = 4  # the part of the free memory that those may need


def for_batch(size: int) -> list[jax.Device]:
    """The most devices over which a batch divides; the same whatever else runs.

    Raises:
      InputError: it does not divide over those of several processes, each of which has to take part
        with all that it sees.
    """
    everyone = jax.devices()
    if jax.process_count() == 1:
        return everyone[: max(n for n in range(1, len(everyone) + 1) if size % n == 0)]
    if size % len(everyone):
        raise InputError(
            f'config.batch_size={size} does not divide over {len(everyone)} devices of '
            f'{jax.process_count()} processes; take a multiple, or let each see fewer by '
            'CUDA_VISIBLE_DEVICES or TPU_VISIBLE_CHIPS'
        )
    return everyone


def replicated(devices: Collection[jax.Device]) -> NamedSharding:
    """Whole on each of the devices."""
    mesh = Mesh(np.array(sorted(devices, key=lambda d: d.id)), (AXIS,))
    return NamedSharding(mesh, PartitionSpec())


def over_devices(tree):
    """Mean over the devices of the enclosing pmap."""
    return jax.lax.pmean(tree, AXIS)


def from_all_devices(tree):
    """Arrays [N, ...] joined with those of the other devices of the enclosing pmap."""
    return jax.tree.map(lambda a: jax.lax.all_gather(a, AXIS, tiled=True), tree)


def map_over_devices(function: Callable, count: int, devices: Collection[jax.Device], *args):
    """[function(i, *args) for i in range(count)] as stacked arrays, each device doing its share.

    A CPU goes through its share one by one; an accelerator, which one call doesn't fill, takes as
    many at once as fit into a part of its memory.

    Args:
      args: pytrees that lie on all of `devices`, the only arrays that `function` may use.
    Returns:
      What doesn't depend on the number of devices, whole on each of them.
    """
    share = -(-count // len(devices))
    whole = replicated(devices)
    size = None if on_cpu() else at_once(function, share, *args)
    split = jax.shard_map(
        lambda index, *args: jax.lax.map(lambda i: function(i, *args), index, batch_size=size),
        mesh=whole.mesh,
        in_specs=(PartitionSpec(AXIS), *(PartitionSpec() for _ in args)),
        out_specs=PartitionSpec(AXIS),
        check_vma=False,
    )
    values = split(jnp.arange(share * len(devices)), *args)
    # A process can read only what its own devices hold.
    values = jax.lax.with_sharding_constraint(values, whole)
    return jax.tree.map(lambda v: v[:count], values)


def at_once(function: Callable, count: int, *args) -> int:
    """Number of the `count` calls function(i, *args) that a device may be given at once."""
    need = max(live.peak(function, jnp.zeros((), jnp.int32), *args), 1)
    return int(min(max(free_bytes() / SHARE // need, 1), count, AT_ONCE))


def chunks(num: int, size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Consecutive chunks of rows 0..num-1, all of one shape: one program is compiled.

    Returns:
      How many rows of the chunk count, and the rows [size]; the last chunk is filled up from the
      first rows.
    """
    for start in range(0, num, size):
        yield min(size, num - start), np.arange(start, start + size) % num


def map_rows(function: Callable, x, *, size: int):
    """function(x) of arrays [N, ...] of any length, `size` rows at a time, each by itself.

    Args:
      function: compiled, [size, ...] -> a tree of [size, ...]. x: N >= 1 rows.
    Returns:
      The tree of [N, ...].
    """
    parts = [function(x[rows]) for _, rows in chunks(len(x), size)]
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays)[: len(x)], *parts)


def on_all_devices(tree, devices: Collection[jax.Device] = ()):
    """The tree on every device of this process (or on `devices`), as a step returns its state.

    Placed otherwise, the step would be compiled twice.
    """
    return jax.device_put(tree, replicated(devices or jax.local_devices()))


def one_ahead(results: Iterable) -> Iterator:
    """The same results, on an accelerator each only when the next one has been started.

    Reading one from the device waits for it; this way the device has work meanwhile. A CPU computes
    with the cores that read.
    """
    if on_cpu():
        yield from results
        return
    waiting = collections.deque[Any]()
    for result in results:
        waiting.append(result)
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


def stream_rows(
    function: Callable, params, x, *args, size: int, rows: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, Any]]:
    """function(params, x, *args) of rows on the host, in chunks split over this process's devices.

    On an accelerator the next chunk is under way while one is read.

    Args:
      function: jittable and row by row, x [n, ...] -> a tree of [n, ...].
      params, args: trees of arrays, whole on every device.
      x: an array or tree of arrays [N, ...] of any length. size: rows that a device gets at once.
      rows: numbers of those that are wanted; None: all.
    Yields:
      The numbers of the chunk's rows [n], and the tree of [n, ...] on the host.
    """
    rows = np.arange(len(jax.tree.leaves(x)[0])) if rows is None else rows
    devices = jax.local_devices()
    whole = replicated(devices)
    shared = NamedSharding(whole.mesh, PartitionSpec(AXIS))
    params, args = jax.device_put((params, args), whole)
    # Not jit alone: a net that loops over its batch would run all of it on every device.
    apply = jax.jit(
        jax.shard_map(
            function,
            mesh=whole.mesh,
            in_specs=(whole.spec, shared.spec, *(whole.spec for _ in args)),
            out_specs=shared.spec,
            check_vma=False,
        )
    )

    def started():
        for count, index in chunks(len(rows), size * len(devices)):
            own = rows[index]
            chunk = jax.tree.map(lambda a, own=own: np.asarray(a[own]), x)
            yield own[:count], apply(params, jax.device_put(chunk, shared), *args)

    for own, found in one_ahead(started()):
        num = len(own)
        yield own, jax.tree.map(lambda a, num=num: a[:num], jax.device_get(found))
