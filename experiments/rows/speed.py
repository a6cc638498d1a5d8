"""Speed beside other programs, the peers' and ours in turns on one machine.

Made by experiments/side_by_side.py, not by run_rows.py.
"""

import statistics
from pathlib import Path

import tables

SPEED = (  # key of a bench line, its heading, digits, whether more is better
    ('train_tasks_per_s', 'training tasks/s', 1, True),
    ('eval_tasks_per_s', 'evaluation tasks/s', 1, True),
    ('peak_rss_mb', 'peak memory, MB', 0, False),
    ('first_step_s', 'first step, s', 1, False),
)


def table(lines, root: Path = tables.ROOT) -> str:
    """Markdown of side_by_side.py's lines: medians, and ours over the best peer's."""
    parts = []
    for workload in dict.fromkeys(line['workload'] for line in lines):
        runs = [line for line in lines if line['workload'] == workload]
        body, medians = [], {}
        for peer in dict.fromkeys(r['peer'] for r in runs):
            every = [r for r in runs if r['peer'] == peer]
            quiet = [r for r in every if r['quiet']] or every
            medians[peer] = [statistics.median(r[key] for r in quiet) for key, *_ in SPEED]
            cells = (f'{m:.{s[2]}f}' for m, s in zip(medians[peer], SPEED, strict=True))
            noisy = '' if quiet[0]['quiet'] else ' (not quiet)'
            body.append((peer, *cells, f'{len(quiet)}{noisy}'))
        ours = next((r['peer'] for r in runs if r['ours']), None)
        peers = [m for peer, m in medians.items() if peer != ours]
        if ours and peers:
            best = [
                max(p[i] for p in peers) if more else min(p[i] for p in peers)
                for i, (_, _, _, more) in enumerate(SPEED)
            ]
            ratios = (f'{a / b:.2f}' for a, b in zip(medians[ours], best, strict=True))
            body.append((f'{ours} / best peer', *ratios, ''))
        head = ('', *(heading for _, heading, _, _ in SPEED), 'runs')
        versions = dict.fromkeys(f'{p} {r[p]}' for r in runs for p in ('jax', 'torch') if p in r)
        machines = dict.fromkeys(r['machine'] for r in runs)
        parts.append(
            f'{workload}; {", ".join(machines)}, {", ".join(versions)}.\n\n'
            f'{tables.markdown(head, body)}\n'
        )
    note = 'Medians of runs taken in turns (experiments/side_by_side.py).\n'
    return '\n'.join([*parts, note]) if parts else 'Not measured yet.\n'
