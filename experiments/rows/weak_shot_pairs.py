"""Weak shots where the base classes are of one set and the novel ones of another.

Made by experiments/weak_shot_rungs.py --pair=NAME --noise=0.0,0.4: three splits, three seeds each.
"""

import statistics
from pathlib import Path

import tables

weak_shots = tables.load_rows('weak_shots')

RECIPE = 'configs/weak_shots.py:rungs'
PAIRS = {
    'msd_ktd': '20 kinds of metal defects, 10 textures of KTD',
    'dtd_ktd': '10 textures of DTD, 10 textures of KTD',
    'emoji': '40 and 30 emoji, the test drawn by other families than the web images',
}
RUNGS = {
    'ce': 'CE', 'ce_cosine': 'weights by cosine', 'classify': 'whole method', 'oracle': 'oracle'
}  # fmt: skip


def check(lines, root: Path = tables.ROOT) -> list:
    """As that of weak_shots, for this recipe."""
    return weak_shots.check(lines, root, RECIPE)


def table(lines, root: Path = tables.ROOT) -> str:
    """Markdown: a row for every pair of sets and share of wrong labels."""
    lines = check(lines, root)
    cell, body = weak_shots.cell, []
    for pair, title in PAIRS.items():
        of_pair = [line for line in lines if line['problem']['pair'] == pair]
        for noise in sorted({line['problem']['noise'] for line in of_pair}):
            values = [v['values'] for v in of_pair if v['problem']['noise'] == noise]
            rungs = [cell([v[stage]['accuracy'] for v in values]) for stage in RUNGS]
            gain = [v['classify']['accuracy'] - v['ce']['accuracy'] for v in values]
            aurocs = [v['weights'].get('AUROC of the weights') for v in values]
            share = statistics.mean(
                v['weights']['share of wrong labels, estimated'] for v in values
            )
            closed = weak_shots.recovered(values) if noise else tables.NO_VALUE
            body.append((
                title, f'{100 * noise:.0f} %', *rungs, closed,
                f'{100 * min(gain):+.1f}', cell(aurocs), f'{100 * share:.0f} %',
            ))  # fmt: skip
    head = (
        'base and novel classes', 'wrong', *RUNGS.values(), 'gap closed', 'worst problem to CE',
        'AUROC of the weights', 'wrong, estimated',
    )  # fmt: skip
    counts = ' or '.join(sorted({str(n) for n in _counts(lines)})) or 'no'
    note = (
        'Accuracy in per cent on clean test images of the novel classes, mean over '
        f'{counts} problems (splits of the classes, and seeds of noise and training) with a 95 % '
        "interval (Student's t). Gap closed: (whole method - CE) / (oracle - CE)."
    )
    return f'{tables.markdown(head, body)}\n\n{note}\n'


def _counts(lines) -> list[int]:
    kinds = [(line['problem']['pair'], line['problem']['noise']) for line in lines]
    return [kinds.count(kind) for kind in set(kinds)]
