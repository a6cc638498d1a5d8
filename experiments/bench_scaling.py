"""Weak scaling over fake devices of one CPU: python experiments/bench_scaling.py

MAML on Omniglot with Conv4-32, four 5-way tasks a device and step, on 1, 2 and 4 devices that all
share this machine's cores: tasks/s can't grow beyond the cores, so what is seen is what splitting
costs, not what more hardware brings. The communication is read off the compiled program: the bytes
of its all-reduce operands, once a step.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import tables
from tables import HERE, ROOT

FIELDS = ['net.features=32', 'steps_per_call=10', 'num_steps=10']
TASKS = 4  # a device
BYTES = {'f64': 8, 'f32': 4, 's32': 4, 'u32': 4, 'bf16': 2, 'f16': 2, 'pred': 1}


def all_reduced(hlo: str) -> int:
    """Bytes that the all-reduce operations of a program's text take in, each counted once."""
    total = 0
    for shapes in re.findall(r'= (.*?) all-reduce(?:-start)?\(', hlo):
        for kind, dims in re.findall(r'(\w+)\[([\d,]*)\]', shapes):
            size = BYTES[kind]
            for dim in filter(None, dims.split(',')):
                size *= int(dim)
            total += size
    return total


def measure(calls: int) -> dict:
    """This process's devices: tasks/s, bytes a step."""
    import jax

    from anyshot_jax import config as configs
    from anyshot_jax.runtime.devices import on_all_devices
    from anyshot_jax.sweep.recipes import load_config
    from anyshot_jax.training.step import make_step

    count = jax.device_count()
    fields = [*FIELDS, f'batch_size={TASKS * count}']
    config = load_config('configs/omniglot_maml.py', fields, ROOT)
    data = configs.find('data', config.data.name).load(config.data)
    method = configs.find('methods', config.method.name).build(config, data)
    data = on_all_devices(data)
    state = on_all_devices(jax.jit(method.init)(jax.random.key(0), data))
    size = {'batch_size': config.batch_size, 'steps_per_call': config.steps_per_call}
    step = make_step(method, **size)
    key = jax.random.key(1)
    text = jax.jit(step).lower(state, data, key).compile().as_text() or ''
    times = []
    for _ in range(calls + 1):
        start = time.monotonic()
        state, _ = jax.block_until_ready(step(state, data, key))
        times.append(time.monotonic() - start)
    per_s = config.steps_per_call / statistics.median(times[1:])
    parameters = sum(a.nbytes for a in jax.tree.leaves(state.params))
    return {
        'devices': count,
        'steps_per_s': round(per_s, 2),
        'tasks_per_s': round(per_s * config.batch_size, 1),
        'all_reduce_bytes': all_reduced(text),
        'parameter_bytes': parameters,
        'jax': jax.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--calls', type=int, default=10, help='timed calls of ten steps')
    parser.add_argument('--out', type=Path, default=ROOT / HERE / 'results' / 'weak_scaling.jsonl')
    parser.add_argument('--here', action='store_true', help='measure the devices of this process')
    args = parser.parse_args()
    if args.here:
        print(json.dumps(measure(args.calls)))
        return
    lines = []
    for devices in (1, 2, 4):
        command = [sys.executable, __file__, '--here', f'--calls={args.calls}']
        env = {**os.environ, 'JAX_NUM_CPU_DEVICES': str(devices), 'JAX_PLATFORMS': 'cpu'}
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        line = json.loads(done.stdout.splitlines()[-1])
        lines.append({**line, 'machine': tables.machine('cpu', devices)})
        print(json.dumps(lines[-1]), flush=True)
    tables.write_lines(args.out, lines)


if __name__ == '__main__':
    main()
