"""Constants chosen on all sets but one and judged on that one.

    ANYSHOT_DATA_DIR=DIR python experiments/leave_one_set_out.py --data=MSD,KTD,DTD,Grocery

What was chosen on the sets that are shown may fit those sets alone. So every setting of a list is
tried on every set (new classes: five random ones, the others train; --folds draws of them), and of
each set is told what it would choose itself, what the others choose for it (the best mean of their
values, each less the set's own mean) and what that costs it. A constant that costs much is none:
it is to be chosen in the run, by the data at hand.

  levels, power   5-way 1-shot, nearest mean of whitened features (shrinkage 0.5)
  shrinkage       the same, with all levels and roots
  centres         graph, sharpness and step: mean of 5-way 1 and 5 shots, transductive

A set is a line of experiments/results/left_out_sets.jsonl (or --out), with all values in per
cent. The table is made from them by rows/left_out_sets.py.
"""

import argparse
import sys
from pathlib import Path

import anyshot_trials as trials
import choose_anyshot
import numpy as np
import tables
from absl import logging
from anyshot_trials import CENTRES, GRAPHS, LEVELS, SETS, SHRINK
from tqdm import tqdm

from anyshot_jax.runtime.start import keep_compiled
from anyshot_jax.types import InputError, nearest

RESULTS = tables.ROOT / tables.HERE / 'results' / 'left_out_sets.jsonl'
SHOTS = 5  # of the larger episodes
CONSTANTS = ('levels and power', 'shrinkage', 'centres')


def values(name: str, folds: int) -> dict[str, dict[str, float]]:
    """Constant -> setting -> per cent, the mean over the folds."""
    items = trials.whole(name)
    if len(items.names) < trials.WAYS + 2:
        raise InputError(f'{name} has {len(items.names)} classes: need {trials.WAYS + 2} at least')
    if (fewest := int(np.bincount(items.label).min())) < (need := trials.QUERIES + SHOTS):
        raise InputError(f'{name} has a class of {fewest} items: an episode takes {need} of each')
    tried: dict[str, dict[str, list]] = {constant: {} for constant in CONSTANTS}
    for fold in tqdm(choose_anyshot.folds(sorted(items.names), folds), desc=name, disable=None):
        train, val = (trials.dataset(items, names) for names in fold)
        for said, levels in (('none', ()), ('all', LEVELS)):
            for power in (0.5, 1.0):
                [value] = trials.one_shot(
                    trials.space(items, levels, power, train, val, [0.5]), val
                )
                tried['levels and power'].setdefault(f'{said}, {power}', []).append(value)
        spaces = trials.space(items, LEVELS, 0.5, train, val, SHRINK)
        for shrink, value in zip(SHRINK, trials.one_shot(spaces, val), strict=True):
            tried['shrinkage'].setdefault(str(shrink), []).append(value)
        x = spaces[SHRINK.index(0.5)]
        for graph in GRAPHS:
            for (sharpness, step), value in zip(CENTRES, trials.moved(x, val, graph), strict=True):
                kind = f'graph {graph}' if graph else 'no graph'
                key = f'{kind}, {sharpness:g}, {step:g}'
                tried['centres'].setdefault(key, []).append(value)
    mean = lambda v: round(100 * float(np.mean(v)), 2)
    return {c: {s: mean(v) for s, v in of.items()} for c, of in tried.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--data', default='MSD,KTD,DTD,Grocery', help='sets, with commas')
    parser.add_argument('--folds', type=int, default=4)
    parser.add_argument('--out', type=Path, default=RESULTS, help='the file of the results')
    args = parser.parse_args()
    logging.set_verbosity(logging.ERROR)
    keep_compiled()
    try:
        for name in args.data.split(','):
            if name not in SETS:
                raise InputError(f'--data: {name!r} is no set{nearest(name, SETS)}')
            line = {'data': name, 'folds': args.folds, 'values': values(name, args.folds)}
            others = [x for x in tables.read_lines(args.out) if x['data'] != name]
            tables.write_lines(args.out, [*others, line])
    except InputError as e:
        sys.exit(f'error: {e}')


if __name__ == '__main__':
    main()
