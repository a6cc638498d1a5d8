"""Items 2 to 5 of experiments/accelerator.py: whole training steps."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from accelerator import Bench, Record

from anyshot_jax import config as configs
from anyshot_jax.runtime import ahead, devices, flops
from anyshot_jax.training import fit, population
from anyshot_jax.training.step import make_population_step
from anyshot_jax.types import Data, from_arrays

HERE = Path(__file__).parent


def data_of(size: int = 28, channels: int = 1, classes: int = 200) -> Data:
    x = np.random.default_rng(0).integers(0, 256, (20 * classes, size, size, channels), np.uint8)
    dataset = from_arrays(x, np.repeat(np.arange(classes), 20))
    return Data(dict.fromkeys(('train', 'val', 'test'), dataset))


def a_step(bench: Bench, config: Any, host: Any, calls: int = 1) -> Record:
    """The compiled step of a config with the largest parts that fit: tasks/s and the rest."""
    config = configs.check(config)
    build = lambda config: population.build(config, host)
    everyone = build(config)
    tasks = config.batch_size * len(everyone.members) * config.steps_per_call
    sizes = {'batch_size': config.batch_size, 'steps_per_call': config.steps_per_call}
    place = [bench.device()]
    if bench.machine:
        data = ahead.shapes(host, place)
        states = ahead.shapes(jax.eval_shape(everyone.init, data), place)
        step = make_population_step(everyone, **sizes, devices=place)
        return sizes | bench.time(step, states, data, count=tasks, donate_argnums=0)
    data = devices.on_all_devices(host, place)
    states = devices.on_all_devices(jax.jit(everyone.init)(data), place)
    started = time.perf_counter()
    _, step = fit.fitted(config, build, data, states, place)
    compile_s = time.perf_counter() - started  # of all sizes that were tried
    step = step or make_population_step(everyone, **sizes, devices=place)
    work = flops.count(make_population_step(everyone, **sizes, devices=place), states, data)

    def call():
        nonlocal states
        metrics = None
        for _ in range(calls):
            states, metrics = step(states, data)
        return metrics

    record = bench.repeat(call, tasks * calls)
    return sizes | record | {'gflop_a_call': work * calls / 1e9, 'compile_s': round(compile_s, 2)}


def short(method: str, net: str = 'conv4', **fields: Any) -> Any:
    config = configs.defaults(method, 'synthetic', net)
    config.update({'steps_per_call': 1})
    config.update_from_flattened_dict({k.replace('__', '.'): v for k, v in fields.items()})
    return config


def maml(bench: Bench) -> Iterator[Record]:
    """Beside torch.func with as many tasks, which comes first: a process of its own, and JAX gives
    no memory back.
    """
    host = data_of()
    features = bench.size(64, 8)
    for tasks in (512, 32, 2048):  # what is cut off tells least
        tasks = bench.size(tasks, 2)
        cases = [{'queries': queries, 'inner_steps': steps, 'tasks': tasks}
                 for queries in (15, 1) for steps in (1, 5)]  # fmt: skip
        for case in () if bench.machine else cases:
            yield {**case, 'peer': 'torch.func', **peer(features, **case)}
        for case in cases:
            given: dict[str, Any] = {
                'train__queries': case['queries'], 'method__inner_steps': case['inner_steps'],
            }  # fmt: skip
            config = short('maml', batch_size=tasks, net__features=features, **given)
            yield {**case, **a_step(bench, config, host)}


def peer(width: int, queries: int, inner_steps: int, tasks: int) -> Record:
    flags = {'width': width, 'queries': queries, 'steps': inner_steps, 'tasks': tasks, 'seconds': 8}
    given = [f'--{name}={value}' for name, value in flags.items()]
    command = [sys.executable, str(HERE / 'accelerator_torch.py'), *given]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {'error': done.stderr.strip().splitlines()[-1][-300:]}
    return json.loads(done.stdout.splitlines()[-1])


def schedules(bench: Bench) -> Iterator[Record]:
    """Seconds for all steps of a published schedule, by two hundred of them on random images."""
    sys.path.insert(0, str(HERE.parent))
    from configs import omniglot_maml, omniglot_protonet, omniglot_relation

    host = data_of(classes=bench.size(964, 40))
    for name, config in (
        ('maml 5-way', omniglot_maml.get_config()),
        ('maml 20-way', omniglot_maml.get_config('ways20')),
        ('protonet', omniglot_protonet.get_config()),
        ('relation', omniglot_relation.get_config()),
    ):
        if bench.tenth:
            config.net.features, config.batch_size = 8, max(config.batch_size // 10, 1)
        for per_call in (10, 100):
            config.steps_per_call = bench.size(per_call)
            every = ('log_every', 'eval_every', 'save_every')
            config.update(dict.fromkeys(every, 100 * config.steps_per_call))
            config.num_steps = 100 * config.steps_per_call
            calls = 2 if bench.tenth or bench.machine else 200 // per_call
            record = a_step(bench, config, host, calls)
            if 'seconds' in record:
                record['step_s'] = record['seconds'] / calls / config.steps_per_call
            yield {'recipe': name, 'steps_per_call': config.steps_per_call, **record}


def protonet(bench: Bench) -> Iterator[Record]:
    for net in ('conv4', 'resnet12'):
        for size in (28, 84):
            host = data_of(size, 3 if size == 84 else 1, bench.size(200, 20))
            for dtype in ('float32', 'bfloat16'):
                for tasks in (32, 256):
                    config = short('protonet', net, batch_size=bench.size(tasks, 2),
                                   net__compute_dtype=dtype)  # fmt: skip
                    if bench.tenth:
                        width = 8 if net == 'conv4' else (8, 8, 8, 8)
                        config.net.features = width
                    yield {'net': net, 'size': size, 'dtype': dtype, **a_step(bench, config, host)}


def populations(bench: Bench) -> Iterator[Record]:
    """Eight seeds by vmap and by a loop; a member's share of it against one alone."""
    host = data_of()
    for method in ('protonet', 'maml'):
        for seeds, chunk in ((1, 1), (8, 8), (8, 1)):
            config = short(method, num_seeds=seeds, member_chunk=chunk, num_steps=100)
            config.batch_size, config.net.features = bench.size(32, 2), bench.size(64, 8)
            case = {'method': method, 'seeds': seeds, 'at_once': chunk}
            yield {**case, **a_step(bench, config, host)}
