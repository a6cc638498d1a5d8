"""Zero-shot accuracy over many class splits: one split of five unseen classes says little.

    ANYSHOT_DATA_DIR=DIR python experiments/zero_shot_splits.py --splits=100
    ... --methods=ridge,generator --splits=20

A quarter of the classes of the metal surface defects (--data=KTD: other sets) is new, and a fifth
of the others' items is held out, for seen, unseen and their harmonic mean. The stages `embed`,
`ridge` and `generator` of configs/industrial_anyshot.py run without reports. What a split runs with
is chosen anew among its own seen classes, as choose_anyshot.py does it (steps embed, of no level or
all of them, words and calibration; four val_seeds), so that no new class has had a say.

Every split is a line of experiments/results/zero_shot_splits.jsonl, with what was chosen for it; at
the end means with 95 % intervals over the splits. A split that has a line is not run again.
"""

import argparse
import dataclasses

import choose_anyshot
import jax
import numpy as np
import tables
from absl import logging
from anyshot_trials import LEVELS, Fold, Items, dataset, select, whole
from tqdm import tqdm

from anyshot_jax import config as configs
from anyshot_jax.encoders import describe
from anyshot_jax.runtime.devices import on_all_devices
from anyshot_jax.runtime.start import keep_compiled, split_cpu
from anyshot_jax.sweep.recipes import load_config
from anyshot_jax.training.step import make_step
from anyshot_jax.types import Data

RESULTS = tables.ROOT / tables.HERE / 'results' / 'zero_shot_splits.jsonl'
RECIPE = 'configs/industrial_anyshot.py'


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--splits', type=int, default=100)
    parser.add_argument('--methods', default='ridge')
    parser.add_argument('--data', default='MSD')
    args = parser.parse_args()
    logging.set_verbosity(logging.ERROR)
    keep_compiled()
    split_cpu(load_config(RECIPE, (), tables.ROOT))

    lines, names = tables.read_lines(RESULTS), args.methods.split(',')
    items = whole(args.data)
    for number in tqdm(range(args.splits), disable=None):
        have = {x['method'] for x in lines if (x['split'], x['data']) == (number, args.data)}
        todo = [name for name in names if name not in have]
        if not todo:
            continue
        fold = split_of(items, number)
        best = choose_anyshot.chosen_among(
            items, fold.train, val_seeds=4, steps=('embed', 'words', 'calibration'),
            embed=(((), 0.5), (LEVELS, 0.5)),
        )  # fmt: skip
        recipe = with_settings(best)
        data = whitened(recipe, items, fold, best['embed'][0])
        for name in todo:
            found = one(recipe[name], data)
            means = {k: round(float(np.mean(v)), 5) for k, v in found.items()}
            lines.append({'split': number, 'data': args.data, 'method': name, 'chosen': best,
                          'values': means})  # fmt: skip
        tables.write_lines(RESULTS, lines)
    for name in names:
        chosen = [x['values'] for x in lines if (x['method'], x['data']) == (name, args.data)
                  and x['split'] < args.splits]  # fmt: skip
        print(name)
        for key in chosen[0]:
            v = 100 * np.array([c[key] for c in chosen])
            half = 1.96 * v.std(ddof=1) / len(v) ** 0.5
            print(f'  {key:22s} {v.mean():6.2f} +- {half:.2f}  (sd {v.std(ddof=1):.1f}, {len(v)})')


def split_of(items: Items, number: int) -> Fold:
    """The seen and the new classes, sorted."""
    names = sorted(items.names)
    order = np.random.default_rng(number).permutation(len(names))
    novel = {names[i] for i in order[: len(names) // 4]}
    return Fold([n for n in names if n not in novel], sorted(novel))


def with_settings(best: dict):
    """The recipe with what `chosen_among` found."""
    recipe = load_config(RECIPE, (), tables.ROOT)
    (levels, power, shrink), (colours, penalty) = best['embed'], best['words']
    recipe.embed.encoder_parts = (*levels, 'colours')
    recipe.embed.method.update({'power': power, 'shrink': shrink})
    for name in ('ridge', 'generator'):
        fields = {'colours': colours, 'penalty': penalty, 'calibration': best['calibration'][0]}
        recipe[name].method.update(fields)
    return recipe


def whitened(recipe, items: Items, fold: Fold, levels):
    """Data with the features that stage `embed` exports, and vectors of the classes' words."""
    embed, how = recipe.embed, recipe.ridge.describe
    columns, sizes = select(items, levels, 'colours')
    roles = {'train': (fold.train, 'kept'), 'test': (fold.val, 'all'),
             'test_seen': (fold.train, 'held')}  # fmt: skip
    parts = {}
    for role, (names, part) in roles.items():
        d = dataset(items, names, part)
        there, texts = d.label >= 0, [items.texts[items.names.index(n)] for n in names]
        parts[role] = dataclasses.replace(
            d,
            x=d.x[there][:, columns], label=d.label[there], names=tuple(names), texts=tuple(texts),
            parts=(*sizes, len(items.parts['colours'])),
        )  # fmt: skip
    data = describe.name_colours(describe.describe(Data(parts), how.by, how.templates))
    embed.eval.update({'tasks': ((2, 1),), 'queries': 1})
    method = configs.find('methods', embed.method.name).build(embed, data)
    state = jax.jit(method.init)(jax.random.key(embed.seed), data)
    made = method.export(state, data, jax.random.key(1))
    features = {
        r: dataclasses.replace(d, x=np.asarray(made[r]), parts=()) for r, d in data.roles.items()
    }
    return dataclasses.replace(data, roles=features)


def one(config, data):
    """The values of a stage on this data, trained if it trains."""
    method = configs.find('methods', config.method.name).build(config, data)
    data = on_all_devices(data)
    keys = jax.random.split(jax.random.key(config.seed), 3)
    state = on_all_devices(jax.jit(method.init)(keys[0], data))
    if config.num_steps:
        sizes = {'batch_size': config.batch_size, 'steps_per_call': config.steps_per_call}
        step = make_step(method, **sizes)
        for _ in range(config.num_steps // config.steps_per_call):
            state, _ = step(state, data, keys[1])
    return method.evaluate(state, data, keys[2], 'test')


if __name__ == '__main__':
    main()
