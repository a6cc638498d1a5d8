"""The device axis: placing arrays on devices, and functions split over them."""

from collections.abc import Callable, Collection, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = 'devices'


def replicated(devices: Collection[jax.Device]) -> NamedSharding:
    """Whole on each of the devices."""
    mesh = Mesh(np.array(sorted(devices, key=lambda d: d.id)), (AXIS,))
    return NamedSharding(mesh, PartitionSpec())


def over_devices(tree):
    """Mean over the devices of the enclosing pmap."""
    return jax.lax.pmean(tree, AXIS)


def map_over_devices(function: Callable, count: int, devices: Collection[jax.Device], *args):
    """[function(i, *args) for i in range(count)] as stacked arrays, each device doing its share.

    Args:
      args: pytrees that lie on all of `devices`, the only arrays that `function` may use.
    Returns:
      What doesn't depend on the number of devices, whole on each of them.
    """
    share = -(-count // len(devices))
    whole = replicated(devices)
    split = jax.shard_map(
        lambda index, *args: jax.lax.map(lambda i: function(i, *args), index),
        mesh=whole.mesh,
        in_specs=(PartitionSpec(AXIS), *(PartitionSpec() for _ in args)),
        out_specs=PartitionSpec(AXIS),
        check_vma=False,
    )
    values = split(jnp.arange(share * len(devices)), *args)
    # A process can read only what its own devices hold.
    values = jax.lax.with_sharding_constraint(values, whole)
    return jax.tree.map(lambda v: v[:count], values)


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


def on_all_devices(tree):
    """The tree on every device of this process, placed as a step returns its state.

    Placed otherwise, the step would be compiled twice.
    """
    return jax.device_put(tree, replicated(jax.local_devices()))
