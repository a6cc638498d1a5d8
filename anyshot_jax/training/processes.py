"""Several processes that train one model, each with devices of its own: a pod, or a Slurm job.

Every process holds the states and the data on its own devices, as if it were alone; what is summed
over all devices is the gradient, inside the compiled step. Evaluation and checkpoints see the same
arrays as lying on all devices (`to_global`), so that each process computes and writes its part.
The first process keeps the workdir's other files.
"""

import hashlib
import os
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from anyshot_jax.runtime import bars
from anyshot_jax.runtime.devices import replicated
from anyshot_jax.storage import files
from anyshot_jax.types import InputError

MESSAGE = 4096  # bytes of an error that one process tells the others
PATIENCE = 300.0  # seconds that the first process has to start


def join(coordinator: str, num_processes: int, process_id: int) -> None:
    """Makes this process one of several, before JAX makes its devices.

    Args:
      coordinator: HOST:PORT of the first process, with how many there are and which one this is;
        '': as Slurm's srun or a TPU pod's environment says, else this one is alone. Where it has
        joined already (Ray Train's JaxTrainer does that), nothing is done.
    Raises:
      InputError: only some of the three are given, they contradict each other, the first process
        doesn't answer, or can't listen at HOST:PORT (it listens nowhere else), or the environment
        says of several processes what can't be.
    """
    if jax.distributed.is_initialized():
        return
    if coordinator:
        host, _, port = coordinator.rpartition(':')
        if not host or not port.isdigit():
            raise InputError(f'--coordinator={coordinator} must be HOST:PORT')
        if not 0 <= process_id < num_processes:
            raise InputError(
                f'--coordinator needs --num_processes and --process_id from 0 on, got '
                f'{num_processes} and {process_id}'
            )
        if process_id:
            _wait_for(host, int(port))
        else:
            _check_address(host, int(port))
        jax.distributed.initialize(
            coordinator, num_processes, process_id, coordinator_bind_address=coordinator
        )
    elif num_processes or process_id >= 0:
        raise InputError('--num_processes and --process_id need --coordinator=HOST:PORT')
    elif in_a_cluster(os.environ):
        try:
            jax.distributed.initialize()
        except (KeyError, RuntimeError, ValueError) as e:
            raise InputError(
                'the environment says that this is one of several processes (SLURM_..., TPU_... or '
                f'MEGASCALE_...), but not which one ({type(e).__name__}: {e}): start it by srun, '
                'or unset those variables'
            ) from e


def _check_address(host: str, port: int) -> None:
    """JAX itself would abort the process where it can't listen."""
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(address)
    except (OSError, OverflowError) as e:
        raise InputError(
            f'--coordinator={host}:{port}: the first process cannot listen there ({e}): name this '
            'machine as the others reach it, and a free port'
        ) from e


def _wait_for(host: str, port: int) -> None:
    """JAX itself would abort the process where nobody answers."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except (OSError, OverflowError) as e:
            if time.monotonic() > until:
                raise InputError(
                    f'no process answers at --coordinator={host}:{port} ({e}): start the one with '
                    '--process_id=0 on that machine'
                ) from e
            time.sleep(0.2)


def in_a_cluster(env) -> bool:
    """True if JAX can read from the environment which of several processes this is."""
    tasks = env.get('SLURM_STEP_NUM_TASKS') or '1'
    if not (tasks.isascii() and tasks.isdigit()):
        raise InputError(
            f'the environment variable SLURM_STEP_NUM_TASKS={tasks!r} must be a whole number'
        )
    by_slurm = int(tasks[:9]) > 1
    on_pod = ',' in env.get('TPU_WORKER_HOSTNAMES', '') or 'MEGASCALE_COORDINATOR_ADDRESS' in env
    return by_slurm or on_pod


def first() -> bool:
    """True in the process that keeps the workdir's files."""
    return jax.process_index() == 0


def say(line: str) -> None:
    """A line on stderr, of the first process only."""
    if first():
        bars.say(line)


def on_process_0(function: Callable[[], Any]) -> Any:
    """Runs `function` on process 0 while the others wait; returns its result there, None elsewhere.

    Raises:
      InputError: in the others what the first one raised, of whatever kind.
    """
    if jax.process_count() == 1:
        return function()
    result, raised, message = None, None, ''
    if first():
        try:
            result = function()
        except Exception as e:  # the others wait for news of it
            raised, message = e, str(e) or type(e).__name__
    text = message.encode()[:MESSAGE].ljust(MESSAGE, b'\0')
    told = multihost_utils.broadcast_one_to_all(np.frombuffer(text, np.uint8))
    if raised:
        raise raised
    if said := np.asarray(told).tobytes().rstrip(b'\0'):
        raise InputError(said.decode(errors='replace'))
    return result


def any_process(flag: bool) -> bool:
    """True on all processes if the flag is set in one of them."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array([flag]))))


def check_same_flags(config: str, workdir: Path) -> None:
    """Refuses (InputError, in all of them) processes that were given different flags."""
    if jax.process_count() == 1:
        return
    own = np.frombuffer(hashlib.sha256(f'{config} {workdir}'.encode()).digest(), np.uint8)
    digests = multihost_utils.process_allgather(own)
    if (digests != digests[0]).any():
        raise InputError('the processes were given different flags: start all with the same ones')


def check_shared(workdir: Path) -> None:
    """Refuses (InputError, in all of them) processes that don't see one folder."""
    if jax.process_count() == 1:
        return
    token = multihost_utils.broadcast_one_to_all(np.array(secrets.randbits(30)))
    sign = workdir / f'.shared-{int(token)}'
    on_process_0(lambda: files.write_text(sign, ''))
    missing = any_process(not sign.exists())
    on_process_0(sign.unlink)
    if missing:
        raise InputError(
            f'the processes do not see one folder as --workdir {workdir}: give one on a disk that '
            'they share, or in cloud storage'
        )


def to_global(tree: Any) -> Any:
    """Arrays that lie on all of this process's devices, as lying on those of all processes."""
    if jax.process_count() == 1:
        return tree
    return _on(jax.devices(), tree)


def to_local(tree: Any) -> Any:
    """The reverse of `to_global`."""
    if jax.process_count() == 1:
        return tree
    return _on(jax.local_devices(), tree)


def _on(devices, tree):
    sharding = replicated(devices)

    def one(a):
        copies = [shard.data for shard in a.addressable_shards]
        return jax.make_array_from_single_device_arrays(a.shape, sharding, copies)

    return jax.tree.map(one, tree)
