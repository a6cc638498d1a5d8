"""Compilers for accelerators that this machine doesn't have."""

import functools
import importlib.util
import os
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from anyshot_jax.runtime.devices import replicated
from anyshot_jax.types import InputError

GIB = 2**30


class Machine(NamedTuple):
    """An accelerator as its compiler knows it."""

    platform: str  # 'tpu' or 'gpu', as jax.default_backend() calls it
    lowering: str  # as JAX's lowering calls it
    memory: float  # bytes of one device
    usable: float  # the part of them that JAX takes where nothing else is said
    topology: str  # of a TPU: kind and chips; of a GPU: the description that XLA asks for


def _gpu(capability: str, **fields: Any) -> str:
    """A GpuTargetConfigProto as text, with what all of NVIDIA's cards share."""
    fields = {
        'threads_per_block_limit': 1024, 'threads_per_warp': 32, 'threads_per_core_limit': 2048,
        'shared_memory_per_block': 49152, 'registers_per_core_limit': 65536,
        'registers_per_block_limit': 65536, 'block_dim_limit_x': 2147483647,
        'block_dim_limit_y': 65535, 'block_dim_limit_z': 65535, **fields,
    }  # fmt: skip
    info = ' '.join(f'{name}: {value}' for name, value in fields.items())
    return (
        f'gpu_device_info {{ {info} cuda_compute_capability {{ {capability} }} '
        'runtime_version: "13.0.0" dnn_version: "9.10.0" } platform_name: "CUDA" '
        'dnn_version_info { major: 9 minor: 10 } runtime_version { major: 13 }'
    )


H100 = _gpu(
    'major: 9 feature_extension: ACCELERATED_FEATURES',
    shared_memory_per_core=233472, shared_memory_per_block_optin=232448, core_count=132,
    fpus_per_core=128, memory_bandwidth=3352320000000, l2_cache_size=52428800,
    clock_rate_ghz=1.98, device_memory_size=84942979072,
)  # fmt: skip
A100 = _gpu(
    'major: 8',
    shared_memory_per_core=167936, shared_memory_per_block_optin=166912, core_count=108,
    fpus_per_core=64, memory_bandwidth=2039000000000, l2_cache_size=41943040,
    clock_rate_ghz=1.41, device_memory_size=85095874560,
)  # fmt: skip
MACHINES = {
    'v4': Machine('tpu', 'tpu', 32 * GIB, 0.95, 'v4:2x2x1'),
    'v5e': Machine('tpu', 'tpu', 16 * GIB, 0.95, 'v5e:2x2'),
    'a100': Machine('gpu', 'cuda', 85095874560, 0.75, A100),
    'h100': Machine('gpu', 'cuda', 84942979072, 0.75, H100),
}


def machine(name: str) -> Machine:
    """The machine of that name.

    Raises:
      InputError: there is none (all are named), or its compiler is not installed.
    """
    if name not in MACHINES:
        raise InputError(f'config.plan_for={name!r} is not known: there are {", ".join(MACHINES)}')
    found = MACHINES[name]
    packages = {'tpu': ('libtpu',), 'gpu': ('jax_cuda13_plugin',)}[found.platform]
    missing = [p for p in packages if importlib.util.find_spec(p) is None]
    if missing or (found.platform == 'gpu' and jax.__version_info__ < (0, 11)):
        extra, but = ('tpu', '') if found.platform == 'tpu' else ('cuda', ' and jax 0.11 or newer')
        raise InputError(
            f"config.plan_for={name!r} needs that machine's compiler: pip install "
            f"'anyshot-jax[{extra}]'{but}; no such device is needed"
        )
    if found.platform == 'gpu':  # else JAX leaves its plugin out where no driver answers
        os.environ.setdefault('JAX_SKIP_CUDA_CONSTRAINTS_CHECK', '1')
    return found


@functools.cache  # asked for again they would be others, which no program mixes with these
def devices(machine: Machine) -> list[jax.Device]:
    """Devices to compile for, which run nothing: four chips of a TPU, or one GPU."""
    if machine.platform == 'tpu':
        # Else libtpu asks a server of the cloud what machine this is, and one process at a time may
        # use it.
        os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')
        os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', 'true')
        os.environ.setdefault('TPU_ACCELERATOR_TYPE', 'v5litepod-4')
        os.environ.setdefault('TPU_WORKER_HOSTNAMES', 'localhost')
        return list(topologies.get_topology_desc(machine.topology, 'tpu').devices)
    try:
        found = topologies.get_topology_desc(
            platform='cuda', target_config=machine.topology, topology='1x1x1'
        )
    except NotImplementedError as e:  # the plugin is there, but JAX could not load it
        raise InputError(
            f'the compiler for NVIDIA cards cannot be used ({e}): start Python with '
            'JAX_SKIP_CUDA_CONSTRAINTS_CHECK=1, or see what JAX said of its plugin above'
        ) from e
    return list(found.devices)


def shapes(tree: Any, devices: list[jax.Device]) -> Any:
    """Shapes and dtypes of arrays that lie whole on each of the devices."""
    whole = replicated(devices)
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=whole), tree)
