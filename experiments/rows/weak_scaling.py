"""The same work a device on 1, 2 and 4 fake devices of one CPU.

Made by experiments/bench_scaling.py, not by run_rows.py.
"""

from pathlib import Path

import tables


def table(lines, root: Path = tables.ROOT) -> str:
    """Markdown: speed, and the communication of a step."""
    if not lines:
        return 'Not measured yet.\n'
    head = ('devices', 'steps/s', 'tasks/s', 'all-reduced a step, kB', 'parameters, kB', 'machine')
    body = [
        (
            str(x['devices']),
            f'{x["steps_per_s"]:.1f}',
            f'{x["tasks_per_s"]:.0f}',
            f'{x["all_reduce_bytes"] / 1e3:.1f}',
            f'{x["parameter_bytes"] / 1e3:.1f}',
            f'{x["machine"]}, jax {x["jax"]}',
        )
        for x in lines
    ]
    note = (
        'MAML, Conv4-32, four 5-way 1-shot tasks a device and step. The devices are simulated and '
        'share the cores, so that this shows what splitting costs, not what more hardware brings. '
        'What is all-reduced is read off the compiled program: gradients, batch statistics and '
        'metrics, once a step whatever the number of tasks (experiments/bench_scaling.py).'
    )
    return f'{tables.markdown(head, body)}\n\n{note}\n'
