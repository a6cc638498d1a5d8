"""Settings that must precede JAX's making its devices."""

import ctypes
import math
import os
import signal
import sys

import jax
from ml_collections import ConfigDict

from anyshot_jax import config as configs
from anyshot_jax.runtime import ahead
from anyshot_jax.storage.folders import cache_dir
from anyshot_jax.types import InputError

MAX_CPU_DEVICES = 8  # each holds a copy of the data


PARENT = 'ANYSHOT_PARENT'  # the variable by which a sweep tells its trials which process it is
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


def end_with_parent() -> None:
    """Makes this process end, by SIGTERM, when the one that PARENT names ends, however that ends.

    A SIGKILL of a sweep takes its trials along: they save and end. On Linux only.
    """
    parent = os.environ.get(PARENT, '')
    if sys.platform != 'linux' or not (parent.isascii() and parent.isdigit()):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it was gone before
        os.kill(os.getpid(), signal.SIGTERM)


def keep_compiled() -> None:
    """Keeps compiled programs in the user's cache directory: the second start is quick.

    JAX_COMPILATION_CACHE_DIR takes precedence.
    """
    if not os.environ.get('JAX_COMPILATION_CACHE_DIR'):
        jax.config.update('jax_compilation_cache_dir', str(cache_dir() / 'compiled'))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.3)


def same_bits() -> None:
    """Makes a GPU give the same bits in every run, before JAX makes its devices.

    It leaves out kernels that add in any order, and chooses none by timing them, so that some are
    slower. A CPU does so anyway.
    """
    given = os.environ.get('XLA_FLAGS', '')
    os.environ['XLA_FLAGS'] = f'{given} --xla_gpu_deterministic_ops=true'.strip()


def split_cpu(config: ConfigDict) -> None:
    """Makes a CPU as many devices as it has cores, or the most over which every batch divides.

    One device runs much of a program on one core only (XLA's loops write their outputs by one
    thread), so that pmap over single cores is nearly twice as fast with two of them.
    JAX_NUM_CPU_DEVICES takes precedence. An accelerator is left as it is, and so is one of several
    processes: whoever starts them has shared out the cores.
    """
    forced = 'xla_force_host_platform_device_count' in os.environ.get('XLA_FLAGS', '')
    if forced or os.environ.get('JAX_NUM_CPU_DEVICES') or jax.distributed.is_initialized():
        return
    stages = [configs.check(stage) for stage in _stages(config)]
    common = math.gcd(*(stage.batch_size for stage in stages if stage.num_steps))
    # Where nothing is trained that is 0, which everything divides.
    count = max(d for d in range(1, min(cores(), MAX_CPU_DEVICES) + 1) if common % d == 0)
    jax.config.update('jax_num_cpu_devices', count)


def load_compilers(config: ConfigDict) -> None:
    """Has JAX find the compilers of machines to plan for, before it looks for its devices.

    Raises:
      InputError: as `ahead.machine`.
    """
    for stage in _stages(config):
        if name := stage.get('plan_for', ''):
            ahead.machine(name)


def _stages(config: ConfigDict) -> list[ConfigDict]:
    return [config[name] for name in config.get('stages', ()) if name in config] or [config]


def cores() -> int:
    """Number of cores that this process may use; PJRT_NPROC, XLA's threads, takes precedence.

    Raises:
      InputError: PJRT_NPROC is no number of them.
    """
    if given := os.environ.get('PJRT_NPROC', ''):
        if not (given.isascii() and given.isdigit() and int(given[:9])):
            raise InputError(
                f'the environment variable PJRT_NPROC={given!r} must be a whole number above 0'
            )
        return int(given[:9])
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
