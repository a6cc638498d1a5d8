"""Chooses the any-shot recipe's settings: python experiments/choose_anyshot.py

No new class is seen. Of MSD's twenty classes nine are new in one of the published sets A, B and D;
the other eleven (`common`) are cut by val_seed, eight times, into five that validate and six that
train, as --config.data.val=5 does. What is chosen there is the recipe's. The same among the fifteen
seen classes of one set (--classes=common,A,B,D) tells how much hangs on the classes.

Step by step, each with what the earlier ones chose, a setting is the best of its list by the mean
over val_seeds, of equals the first (lists begin with the plainest):

  embed        levels, power, shrink: 5-way 1-shot, nearest mean (not saturated)
  refine       graph, sharpness, step: mean of 5-way 1 and 5 shots, transductive
  synthesised  weight of what is made from words: mean of 1 shot, inductive and transductive

results/choose_anyshot.jsonl gets a line for each step: mean and standard deviation over val_seeds
of every setting, in per cent.
"""

import argparse
import itertools
from collections.abc import Callable, Sequence

import anyshot_trials as trials
import numpy as np
import tables
from absl import logging
from anyshot_trials import CENTRES, GRAPHS, LEVELS, SHRINK, WEIGHTS, Fold, Items
from tqdm import tqdm

from anyshot_jax.data import industrial
from anyshot_jax.runtime.start import keep_compiled

RESULTS = tables.ROOT / tables.HERE / 'results' / 'choose_anyshot.jsonl'
STEPS = ('embed', 'refine', 'synthesised')
EMBED = tuple(  # levels and power
    (levels, power)
    for num in range(4)
    for levels in itertools.combinations(LEVELS, num)
    for power in (1.0, 0.5)
)


def folds(seen: Sequence[str], val_seeds: int) -> list[Fold]:
    """Draws classes as data/industrial.py does."""
    cut = []
    for seed in range(val_seeds):
        order = np.random.default_rng(seed).permutation(len(seen))
        val = [seen[i] for i in order[: trials.WAYS]]
        cut.append(Fold([n for n in seen if n not in val], [n for n in seen if n in val]))
    return cut


def chosen_among(
    items: Items,
    seen: Sequence[str],
    *,
    val_seeds: int,
    steps: Sequence[str] = STEPS,
    embed: Sequence = EMBED,
    note: Callable = lambda step, values: None,
) -> dict:
    """Step -> its best setting, by the seen classes (sorted names) alone.

    note: (step, {setting: [value of every val_seed]}) is told of all that was tried.
    """
    cut = folds(sorted(seen), val_seeds)
    best: dict[str, tuple] = {}
    for step in steps:
        tried: dict[tuple, list[float]] = {}
        for fold in cut:
            for setting, value in TRY[step](items, fold, best, embed):
                tried.setdefault(setting, []).append(100 * float(value))
        note(step, tried)
        # max takes the first of equals; rounded, so that they are.
        best[step] = max(tried, key=lambda s: round(float(np.mean(tried[s])), 2))
    return best


# What is tried: (items, fold, what was chosen before, levels and powers) -> (setting, value)s.


def try_embed(items, fold, best, embed):
    train, val = (trials.dataset(items, names) for names in fold)
    for levels, power in embed:
        values = trials.one_shot(trials.space(items, levels, power, train, val, SHRINK), val)
        yield from (((levels, power, s), v) for s, v in zip(SHRINK, values, strict=True))


def try_refine(items, fold, best, embed):
    train, val = (trials.dataset(items, names) for names in fold)
    levels, power, shrink = best['embed']
    [x] = trials.space(items, levels, power, train, val, [shrink])
    for graph in GRAPHS:
        values = trials.moved(x, val, graph)
        yield from (((graph, *s), v) for s, v in zip(CENTRES, values, strict=True))


def try_synthesised(items, fold, best, embed):
    values = trials.synthesised(*trials.whitened(items, fold, best), *best['refine'])
    yield from (((w,), v) for w, v in zip(WEIGHTS, values, strict=True))


TRY = {
    'embed': try_embed,
    'refine': try_refine,
    'synthesised': try_synthesised,
}


def seen_in(items: Items, which: str) -> list[str]:
    """The classes seen in a set of MSD, or in all of A, B and D (`common`)."""
    novel = {'A': items.names[15:], 'B': industrial.NOVEL['B'], 'D': industrial.NOVEL['D']}
    new = {n for letter in ('ABD' if which == 'common' else which) for n in novel[letter]}
    return [n for n in items.names if n not in new]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--classes', default='common,A,B,D')
    parser.add_argument('--val_seeds', type=int, default=8)
    args = parser.parse_args()
    logging.set_verbosity(logging.ERROR)
    keep_compiled()
    asked = args.classes.split(',')
    items = trials.whole('MSD')
    lines = [line for line in tables.read_lines(RESULTS) if line['classes'] not in asked]
    for which in asked:
        bar = tqdm(STEPS, desc=which, disable=None)

        def note(step, tried, which=which, bar=bar):
            found = {
                ', '.join('+'.join(map(str, v)) if isinstance(v, tuple) else str(v) for v in s):
                [round(float(np.mean(v)), 2), round(float(np.std(v, ddof=1)), 2)]
                for s, v in tried.items()
            }  # fmt: skip
            best = max(found, key=lambda s: found[s][0])
            lines.append({'classes': which, 'val_seeds': args.val_seeds, 'step': step,
                          'chosen': best, 'values': found})  # fmt: skip
            bar.update()
            print(f'\n{which}, {step} -> {best}')
            for setting in sorted(found, key=lambda s: -found[s][0])[:6]:
                print(f'  {setting:40s} {found[setting][0]:6.2f} (sd {found[setting][1]:.2f})')

        chosen_among(items, seen_in(items, which), val_seeds=args.val_seeds, note=note)
        tables.write_lines(RESULTS, lines)


if __name__ == '__main__':
    main()
