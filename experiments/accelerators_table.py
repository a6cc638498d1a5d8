"""Costs of full-size steps on an accelerator by its compiler; no device is needed.

    python experiments/accelerators_table.py --machine=v5e     # pip install -e '.[aot]'
    python experiments/accelerators_table.py --machine=h100    # pip install -e '.[cuda]', jax 0.11

Conv4-64, 28x28, 5-way 1-shot, 15 queries, 32 tasks a step on one device, images as many as
Omniglot's training classes. A line of JSON a step as soon as it is there, in
experiments/tables/accelerators.jsonl, and the table of all lines in accelerators.md. A TPU's
compiler estimates cycles; they are good for comparing two forms of a program, not for promising a
time. A loop's body counts once: of five inner steps one is counted.
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
from anyshot_jax.types import from_arrays

FOLDER = Path(__file__).parent / 'tables'
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
COLUMNS = ('step', 'machine', 'jax', 'GFLOP', 'GB moved', 'GB temporary', 'M cycles',
           'M cycles a task', 'convolutions', 'of them in groups')  # fmt: skip


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
    host: Any = dict.fromkeys(('train', 'val', 'test'), dataset)
    with target.written_for(found.platform):
        device = ahead.devices(found)[:1]
        everyone = population.build(config, host)
        data = ahead.shapes(host, device)
        states = ahead.shapes(jax.eval_shape(everyone.init, data), device)
        step = make_population_step(everyone, batch_size=TASKS, steps_per_call=1, devices=device)
        started = time.process_time()
        traced = jax.jit(step, donate_argnums=0).trace(states, data)
        program = traced.lower(lowering_platforms=(found.lowering,)).compile()
    text, cost = program.as_text(), program.cost_analysis() or {}
    cycles = sum(map(int, re.findall(r'"estimated_cycles":"(\d+)"', text))) / 1e6
    calls = re.findall(r'(?:custom-call|convolution)\(.*(?:convolution|window=)', text)
    grouped = [c for c in re.findall(r'feature_group_count=(\d+)', text) if int(c) > 1]
    tasks = TASKS * len(everyone.members)
    return {
        'step': name,
        'machine': machine,
        'jax': jax.__version__,
        'GFLOP': round(flops.of_jaxpr(traced.jaxpr.jaxpr) / 1e9, 1),
        'GB moved': round(cost['bytes accessed'] / 1e9, 2) if cost else None,
        'GB temporary': round(program.memory_analysis().temp_size_in_bytes / 1e9, 2),
        'M cycles': round(cycles, 2) or None,
        'M cycles a task': round(cycles / tasks, 3) or None,
        'convolutions': len(calls),
        'of them in groups': len(grouped),
        'cpu_s': round(time.process_time() - started),
        'size': size,
    }


def write(lines: list[dict[str, Any]]) -> None:
    """The table, the newest line of each step and machine."""
    newest = {(x['machine'], x['step']): x for x in lines}
    rows = [[str(x.get(c) if x.get(c) is not None else '-') for c in COLUMNS]
            for _, x in sorted(newest.items(), key=lambda kv: kv[0][0])]  # fmt: skip
    table = [list(COLUMNS), ['---'] * len(COLUMNS), *rows]
    text = '\n'.join('| ' + ' | '.join(row) + ' |' for row in table)
    (FOLDER / 'accelerators.md').write_text(f'{(__doc__ or "").strip()}\n\n{text}\n')


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--machine', default='v5e', choices=tuple(ahead.MACHINES))
    parser.add_argument('--only', default='', help='Names of steps that contain this.')
    parser.add_argument('--size', type=int, default=28, help='Pixels of a side.')
    parser.add_argument('--classes', type=int, default=964, help='Of 20 images each.')
    args = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / 'accelerators.jsonl'
    for name in (n for n in STEPS if args.only.lower() in n.lower()):
        line = json.dumps(measure(name, args.machine, args.size, args.classes))
        print(line, flush=True)
        with path.open('a') as file:
            file.write(line + '\n')
    write([json.loads(line) for line in path.read_text().splitlines()] if path.exists() else [])


if __name__ == '__main__':
    main()
