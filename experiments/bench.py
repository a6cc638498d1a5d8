"""Speed of any config: python experiments/bench.py --config=configs/bench_protonet.py --data=random

Prints one line of JSON: tasks/s of the real compiled step (sampling included) and of evaluation,
peak memory, seconds from process start to the first step, the share of sampling, and what share
of the machine's matrix products the training's arithmetic is. Seconds count from the start of the
process, so imports, set-up and compilation are inside first_step_s.
"""

import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

IMPORTED = time.monotonic()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from absl import app, flags, logging  # noqa: E402
from ml_collections import ConfigDict, config_flags  # noqa: E402

from anyshot_jax import config as configs  # noqa: E402
from anyshot_jax.episodes.episodic import episode_accuracies, task_name  # noqa: E402
from anyshot_jax.runtime import flops  # noqa: E402
from anyshot_jax.runtime.devices import on_all_devices  # noqa: E402
from anyshot_jax.runtime.start import keep_compiled, split_cpu  # noqa: E402
from anyshot_jax.training.step import make_step  # noqa: E402
from anyshot_jax.types import Data, Method, from_arrays  # noqa: E402

_CONFIG = config_flags.DEFINE_config_file('config', None, 'As for anyshot_jax.main.')
_SECONDS = flags.DEFINE_float('seconds', 15, 'Measured training time.')
_EVAL_SECONDS = flags.DEFINE_float('eval_seconds', 6, 'Measured evaluation time.')
_EVAL_TASKS = flags.DEFINE_integer('eval_tasks', 32, 'Episodes in one measured call of evaluation.')
_DATA = flags.DEFINE_enum('data', 'config', ['config', 'random'], "config's own, or random images.")
_SHAPE = flags.DEFINE_list('shape', ['1100', '20', '28', '28', '1'], 'Of random images: C,N,H,W,C.')


def since_process_start() -> float:
    """Seconds; where there is no /proc, those since this file's first line."""
    try:
        started = float(Path('/proc/self/stat').read_text().rsplit(')', 1)[1].split()[19])
    except OSError:
        return time.monotonic() - IMPORTED
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf('SC_CLK_TCK')


def peak_rss_mb() -> float:
    """The largest resident memory so far; macOS counts it in bytes."""
    unit = 2**20 if sys.platform == 'darwin' else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def peak_device_mb() -> float | None:
    """The most memory used on an accelerator so far; None on a CPU."""
    stats = jax.local_devices()[0].memory_stats() or {}
    peak = stats.get('peak_bytes_in_use')
    return peak / 2**20 if peak else None


def timed(call: Callable[[], Any], seconds: float, tasks: int, steps: int = 1) -> dict[str, float]:
    """Repeats `call` (which waits for its result) for `seconds`; it handles `tasks` in `steps`."""
    times: list[float] = []
    cpu, start = time.process_time(), time.perf_counter()
    while time.perf_counter() - start < seconds or not times:
        before = time.perf_counter()
        call()
        times.append(time.perf_counter() - before)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        'tasks_per_s': tasks * len(times) / wall,
        'best_tasks_per_s': tasks / min(times),
        'tasks_per_cpu_s': tasks * len(times) / cpu,
        'step_ms': 1e3 * statistics.median(times) / steps,
        'steps': len(times) * steps,
        'cores': cpu / wall,
    }


def random_data(shape: list[int]) -> Data:
    """Uniform uint8 images [classes, per class, H, W, C], one array for all roles."""
    x = np.random.default_rng(1234).integers(0, 256, size=shape, dtype=np.uint8)
    label = np.repeat(np.arange(shape[0]), shape[1])
    dataset = on_all_devices(from_arrays(x.reshape(-1, *shape[2:]), label))
    return Data(dict.fromkeys(('train', 'val', 'test'), dataset))


def sgemm_gflop_per_s(size: int, seconds: float) -> float:
    """Rate of float32 matrix products [size, size] with all devices at work, best of many."""
    x = jnp.ones((jax.local_device_count(), size, size)) / size
    products = jax.pmap(lambda x: jax.lax.fori_loop(0, 4, lambda _, y: y @ x, x))
    products(x).block_until_ready()
    run = timed(lambda: products(x).block_until_ready(), seconds, 4 * len(x))
    return 2e-9 * size**3 * run['best_tasks_per_s']


def sampler(method: Method, batch_size: int, steps: int) -> Callable:
    """The step's sampling alone: (data, key) -> a number that depends on every sampled item."""

    def one(total, step, data, key):
        keys = jax.random.split(jax.random.fold_in(key, step), batch_size)
        batch = jax.vmap(method.sample, (0, None))(keys, data)
        leaves = (jnp.sum(leaf, dtype=jnp.float32) for leaf in jax.tree.leaves(batch))
        return total + sum(leaves), None

    def run(data, key):
        scanned = partial(one, data=data, key=key)
        return jax.lax.scan(scanned, jnp.float32(0), jnp.arange(steps))[0]

    return jax.jit(run)


def measure_training(method: Method, config: ConfigDict, state, data, seconds: float):
    """(state, record) of the real compiled step."""
    k, batch_size = config.steps_per_call, config.batch_size
    key = jax.random.key(config.seed + 1)
    step = make_step(method, batch_size=batch_size, steps_per_call=k)
    ready = since_process_start()
    work = flops.count(step, state, data, key) / 1e9 / (k * batch_size)
    counting = since_process_start() - ready  # ours alone: not part of a user's first step
    last: dict[str, Any] = {}

    def call():
        nonlocal state, last
        state, last = step(state, data, key)
        last = jax.device_get(last)

    call()
    first_call = since_process_start() - counting
    first_loss = float(last['loss'][0]) if 'loss' in last else None
    timed(call, min(2.0, seconds / 4), 1)  # caches and thread pools
    run = timed(call, seconds, k * batch_size, k)
    draw = sampler(method, batch_size, k)
    float(draw(data, key))
    sampling = timed(lambda: float(draw(data, key)), min(2.0, seconds / 4), k * batch_size, k)
    return state, {
        **{f'train_{name}': round(value, 2) for name, value in run.items()},
        'ready_s': round(ready, 2),
        # A call makes k steps; the first of them had ended k - 1 steps before the call did.
        'first_step_s': round(first_call - (k - 1) * run['step_ms'] / 1e3, 2),
        'first_call_s': round(first_call, 2),
        'sampling_ms': round(sampling['step_ms'], 3),
        'sampling_share': round(sampling['step_ms'] / run['step_ms'], 4),
        'train_gflop_per_task': round(work, 3),
        'train_gflop_per_s': round(work * run['tasks_per_s'], 1),
        'peak_rss_train_mb': round(peak_rss_mb(), 1),
        'first_loss': first_loss,
        'last_loss': float(last['loss'][-1]) if 'loss' in last else None,
    }


def measure_evaluation(method: Method, config: ConfigDict, state, data, seconds: float, count: int):
    """The record of evaluation, episode by episode (a forward pass over support and query of each).

    Where items are embedded on their own, methods embed the whole split once instead; that way,
    all columns of the config's result included, is measured too.
    """
    tasks = (config.eval.tasks[0],)
    devices = jax.local_devices()

    @jax.jit
    def accuracies(state, dataset, key):
        shape = {'tasks': tasks, 'queries': config.eval.queries, 'count': count}
        predict = method.predict
        values = episode_accuracies(predict, state, dataset, key, **shape, devices=devices)
        return values[task_name(*tasks[0])]

    keys = (jax.random.key(i) for i in range(10**9))
    last: dict[str, Any] = {}

    def call():
        last['accuracy'] = np.asarray(accuracies(state, data.roles['test'], next(keys)))

    call()
    run = timed(call, seconds, count)
    record = {f'eval_{name}': round(value, 2) for name, value in run.items() if name != 'step_ms'}
    record['eval_steps'] *= count  # the peers' step is an episode
    record['eval_accuracy'] = round(float(last['accuracy'].mean()), 4)
    if config.method.get('batch_norm', 'inductive') == 'inductive':

        def whole():
            return jax.device_get(method.evaluate(state, data, next(keys), 'test'))

        episodes = sum(len(v) for v in whole().values())
        embedded = timed(whole, seconds, episodes)
        record['eval_embedded_tasks_per_s'] = round(embedded['tasks_per_s'], 2)
    return record


def main(argv: list[str]) -> None:
    del argv
    logging.set_verbosity(logging.WARNING)
    keep_compiled()
    load_before = ' '.join(f'{v:.2f}' for v in os.getloadavg())
    config = configs.check(_CONFIG.value)
    split_cpu(config)
    name = config_flags.get_config_filename(flags.FLAGS['config'])
    shape = [int(v) for v in _SHAPE.value]
    if _DATA.value == 'random':
        data = random_data(shape)
    else:
        data = on_all_devices(configs.find('data', config.data.name).load(config.data))
    method = configs.find('methods', config.method.name).build(config, data)
    rss_setup = peak_rss_mb()
    state = on_all_devices(jax.jit(method.init)(jax.random.key(config.seed), data))

    record: dict[str, Any] = {}
    if config.num_steps:
        state, record = measure_training(method, config, state, data, _SECONDS.value)
    record |= measure_evaluation(
        method, config, state, data, _EVAL_SECONDS.value, _EVAL_TASKS.value
    )
    if config.num_steps:  # the share of what the machine could do, measured in the same minute
        peak = sgemm_gflop_per_s(1024, 2.0)
        share = record['train_gflop_per_s'] / peak
        record |= {'sgemm_gflop_per_s': round(peak, 1), 'train_of_sgemm': round(share, 3)}
    device = jax.local_devices()[0].device_kind
    args = {**config.train.to_dict(), 'meta_batch': config.batch_size, 'data': _DATA.value}
    args |= {'steps_per_call': config.steps_per_call, 'task_chunk': config.task_chunk}
    args |= {'seconds': _SECONDS.value, 'eval_seconds': _EVAL_SECONDS.value}
    if _DATA.value == 'random':
        args['shape'] = shape
    record |= {
        'peer': 'anyshot_jax',
        'config': '/'.join(Path(name).parts[-2:]),  # configs/<file>, from wherever it was given
        'peak_rss_mb': round(peak_rss_mb(), 1),
        'rss_setup_mb': round(rss_setup, 1),
        'peak_device_mb': peak_device_mb(),
        'load_before': load_before,
        'load_after': ' '.join(f'{v:.2f}' for v in os.getloadavg()),
        'device': device,
        'num_devices': jax.local_device_count(),
        'jax': jax.__version__,
        'args': args,
    }
    print(json.dumps(record))


if __name__ == '__main__':
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    flags.mark_flag_as_required('config')
    app.run(main)
