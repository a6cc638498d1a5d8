"""Measures full-size steps by an accelerator's compiler; no device is needed.

    python experiments/accelerators_table.py --machine=v5e     # pip install -e '.[aot]'
    python experiments/accelerators_table.py --machine=h100    # pip install -e '.[cuda]', jax 0.11

A line of JSON a step as soon as it is there, in experiments/results/accelerators.jsonl; the table
is made of them by experiments/tables.py (rows/accelerators.py).
"""

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from anyshot_jax import config as configs
from anyshot_jax import target
from anyshot_jax.runtime import ahead, flops
from anyshot_jax.training import population
from anyshot_jax.training.step import make_population_step
from anyshot_jax.types import Data, from_arrays

OUT = Path(__file__).parent / 'results' / 'accelerators.jsonl'
TASKS = 32
STEPS: dict[str, tuple[str, dict[str, Any]]] = {  # name: method, fields
    'ProtoNet': ('protonet', {}),
    'MAML, 1 inner step': ('maml', {}),
    'MAML, 5 inner steps': ('maml', {'method.inner_steps': 5}),
    'ANIL, 5 inner steps': ('maml', {'method.inner_steps': 5, 'method.adapt': 'head'}),
    'FOMAML, 1 inner step': ('maml', {'method.order': 'first'}),
    'Reptile': ('reptile', {}),
    'RelationNet': (
        'relation',
        {
            'net.pools': (True, True, False, False),
            'net.padding': ('VALID', 'VALID', 'SAME', 'SAME'),
            'net.flatten': False,
        },
    ),
    'Siamese, triplet loss': ('siamese', {'method.loss': 'triplet'}),
    'ProtoNet, 8 seeds': ('protonet', {'num_seeds': 8}),
    'MAML, 1 inner step, 8 seeds': ('maml', {'num_seeds': 8}),
}


def measure(name: str, machine: str, size: int, classes: int) -> dict[str, Any]:
    """The record of one step."""
    method, fields = STEPS[name]
    config = configs.defaults(method, 'synthetic', 'conv4')
    config.update({'batch_size': TASKS, 'steps_per_call': 1})
    config.update_from_flattened_dict(fields)
    config = configs.check(config)
    found = ahead.machine(machine)
    x = np.zeros((20 * classes, size, size, 1), np.uint8)
    dataset = from_arrays(x, np.repeat(np.arange(classes), 20))
    host = Data(dict.fromkeys(('train', 'val', 'test'), dataset))
    with target.written_for(found.platform):
        device = ahead.devices(found)[:1]
        everyone = population.build(config, host)
        data = ahead.shapes(host, device)
        states = ahead.shapes(jax.eval_shape(everyone.init, data), device)
        step = make_population_step(everyone, batch_size=TASKS, steps_per_call=1, devices=device)
        started = time.process_time()
        traced = jax.jit(step, donate_argnums=0).trace(states, data)
        record = {
            'step': name, 'machine': machine, 'jax': jax.__version__, 'size': size,
            'GFLOP': round(flops.of_jaxpr(traced.jaxpr.jaxpr) / 1e9, 1),
        }  # fmt: skip
        try:
            program = traced.lower(lowering_platforms=(found.lowering,)).compile()
        except jax.errors.JaxRuntimeError as e:  # a TPU's compiler knows its memory
            return record | {'not compiled': str(e).strip().splitlines()[0][:200]}
    text, cost = program.as_text(), program.cost_analysis() or {}
    cycles = estimated_cycles(text) / 1e6
    calls = re.findall(r'(?:custom-call|convolution)\(.*(?:convolution|window=)', text)
    grouped = [c for c in re.findall(r'feature_group_count=(\d+)', text) if int(c) > 1]
    tasks = TASKS * len(everyone.members)
    return record | {
        'GB moved': round(cost['bytes accessed'] / 1e9, 2) if cost else None,
        'GB temporary': round(program.memory_analysis().temp_size_in_bytes / 1e9, 2),
        'M cycles': round(cycles, 2) or None,
        'M cycles a task': round(cycles / tasks, 3) or None,
        'convolutions': len(calls),
        'of them in groups': len(grouped),
        'cpu_s': round(time.process_time() - started),
    }


def estimated_cycles(text: str) -> int:
    """Cycles of an optimised program, by its TPU compiler; 0 of another's.

    A loop counts as often as its condition's limit says, or once where only the device knows.
    """
    parts = dict(re.findall(r'^(?:ENTRY )?%(\S+) \(.*?\{\n(.*?)^\}', text, re.M | re.S))
    loop = r' while\(.*condition=%([^\s,]+), body=%([^\s,]+)'
    inside = {}  # of a loop's body: what it stands in, and how often it runs
    for name, part in parts.items():
        for condition, body in re.findall(loop, part):
            limits = re.findall(r'= s32\[\]\S* constant\((\d+)\)', parts[condition])
            inside[body] = name, int(limits[0]) if len(limits) == 1 else 1

    def often(name: str) -> int:
        outer, times = inside.get(name, ('', 1))
        return times * often(outer) if outer else 1

    own = lambda part: sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', part)))
    return sum(often(name) * own(part) for name, part in parts.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--machine', default='v5e', choices=tuple(ahead.MACHINES))
    parser.add_argument('--only', default='', help='Steps whose names this pattern finds.')
    parser.add_argument('--size', type=int, default=28, help='Pixels of a side.')
    parser.add_argument('--classes', type=int, default=964, help='Of 20 images each.')
    args = parser.parse_args()
    for name in (n for n in STEPS if re.search(args.only, n)):
        line = json.dumps(measure(name, args.machine, args.size, args.classes))
        print(line, flush=True)
        with OUT.open('a') as file:
            file.write(line + '\n')


if __name__ == '__main__':
    main()
