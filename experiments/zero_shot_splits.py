"""Zero-shot accuracy over many class splits: one split of five unseen classes says little.

    ANYSHOT_DATA_DIR=DIR python experiments/zero_shot_splits.py --splits=100
    ... --methods=ridge,generator --splits=20
    ... --data=KTD                                     # MSD, KTD, DTD, Grocery
    ... --folder=MY_IMAGES --out=my_splits.jsonl       # <class>/<image>, a classes.json beside them

A quarter of the classes (--new: another number) is new, and a fifth of the others' items is held
out, for seen, unseen and their harmonic mean. The stages `embed`, `ridge` and `generator` of
configs/industrial_anyshot.py run without reports; the weight of colours, the penalty and the
calibration are what a run chooses by its own seen classes (stages/left_out.py), so that no new
class has a say. `tfidf` is the baseline: ridge regression on TF-IDF words, no colours.

Every split is a line of experiments/results/zero_shot.jsonl, or of --out, with what was
chosen for it; at the end means with 95 % intervals over the splits. A split that has a line is not
run again.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import jax
import numpy as np
import tables
from absl import logging
from anyshot_trials import LEVELS, SETS, Fold, Items, dataset, select, whole
from tqdm import tqdm

from anyshot_jax import config as configs
from anyshot_jax.encoders import describe
from anyshot_jax.runtime.devices import on_all_devices
from anyshot_jax.runtime.start import keep_compiled, split_cpu
from anyshot_jax.sweep.recipes import load_config
from anyshot_jax.training.step import make_step
from anyshot_jax.types import Data, InputError, nearest

RESULTS = tables.ROOT / tables.HERE / 'results' / 'zero_shot.jsonl'
RECIPE = 'configs/industrial_anyshot.py'
METHODS = ('ridge', 'generator', 'tfidf')


def run(args: argparse.Namespace) -> None:
    recipe = load_config(RECIPE, (), tables.ROOT)
    split_cpu(recipe)
    items, path = found(args)
    lines, names = tables.read_lines(path), args.methods.split(',')
    for number in tqdm(range(args.splits), disable=None):
        have = {x['method'] for x in lines if (x['split'], x['data']) == (number, args.data)}
        todo = [name for name in names if name not in have]
        if not todo:
            continue
        fold = split_of(items, number, args.new)
        data = whitened(recipe, items, fold)
        for name in todo:
            found_values, chosen = one(recipe, name, with_words(recipe, items, fold, data, name))
            means = {k: round(float(np.mean(v)), 5) for k, v in found_values.items()}
            lines.append({'split': number, 'data': args.data, 'method': name, 'new': len(fold.val),
                          'chosen': chosen, 'values': means})  # fmt: skip
        tables.write_lines(path, lines)
    for name in names:
        values = [x['values'] for x in lines if (x['method'], x['data']) == (name, args.data)
                  and x['split'] < args.splits]  # fmt: skip
        print(name)
        for key in values[0]:
            v = 100 * np.array([c[key] for c in values])
            half = 1.96 * v.std(ddof=1) / len(v) ** 0.5
            print(f'  {key:22s} {v.mean():6.2f} +- {half:.2f}  (sd {v.std(ddof=1):.1f}, {len(v)})')


def found(args: argparse.Namespace) -> tuple[Items, Path]:
    """The items, and the file of the results: never the published one for a folder of one's own.

    Raises:
      InputError: no such set or method, no --out for a folder, or too few classes.
    """
    for name in args.methods.split(','):
        if name not in METHODS:
            raise InputError(f'--methods: {name!r} is none of them{nearest(name, METHODS)}')
    if args.folder:
        if not args.out:
            raise InputError('--folder needs --out=FILE.jsonl, where the results go')
        args.data = Path(args.folder).resolve().name
    elif args.data not in SETS:
        raise InputError(
            f'--data={args.data!r} is no set{nearest(args.data, SETS)}; or give --folder=DIR'
        )
    path = Path(args.out).resolve() if args.out else RESULTS
    if args.folder and path == RESULTS:
        raise InputError(f'{path} holds the published results: give another --out')
    items = whole(args.data, args.folder)
    new = args.new or len(items.names) // 4
    if not 2 <= new <= len(items.names) - 2:
        raise InputError(
            f'{len(items.names)} classes, of which {new} would be new: need 2 at least of both '
            '(--new says how many are new)'
        )
    return items, path


def split_of(items: Items, number: int, new: int = 0) -> Fold:
    """The seen and the new classes, sorted."""
    names = sorted(items.names)
    order = np.random.default_rng(number).permutation(len(names))
    novel = {names[i] for i in order[: new or len(names) // 4]}
    return Fold([n for n in names if n not in novel], sorted(novel))


def whitened(recipe, items: Items, fold: Fold) -> Data:
    """Data with the features that stage `embed` exports.

    Rows are filled up with label -1, so that a program is compiled once for all splits.
    """
    embed = recipe.embed
    columns, sizes = select(items, LEVELS, 'colours')
    roles = {'train': (fold.train, 'kept'), 'test': (fold.val, 'all'),
             'test_seen': (fold.train, 'held')}  # fmt: skip
    parts = (*sizes, len(items.parts['colours']))
    given = {role: dataset(items, *of) for role, of in roles.items()}
    data = Data(
        {r: dataclasses.replace(d, x=d.x[:, columns], parts=parts) for r, d in given.items()}
    )
    embed.eval.update({'tasks': ((2, 1),), 'queries': 1})
    method = configs.find('methods', embed.method.name).build(embed, data)
    state = jax.jit(method.init)(jax.random.key(embed.seed), data)
    made = method.export(state, data, jax.random.key(1))
    features = {
        r: dataclasses.replace(d, x=np.asarray(made[r]), parts=()) for r, d in data.roles.items()
    }
    return Data(features, stages={'embed': {'likeness': made['likeness']}})


def with_words(recipe, items: Items, fold: Fold, data: Data, method: str) -> Data:
    """The same data with vectors of the classes' descriptions."""
    how = recipe.ridge.describe
    of_role = {'train': fold.train, 'test': fold.val, 'test_seen': fold.train}
    named = {
        r: dataclasses.replace(
            d,
            names=tuple(of_role[r]),
            texts=tuple(items.texts[items.names.index(n)] for n in of_role[r]),
        )
        for r, d in data.roles.items()
    }
    by = 'tfidf' if method == 'tfidf' else how.by
    said = describe.name_colours(describe.describe(Data(named), by, how.templates)).roles
    # Without names and texts: another split's would be another program.
    roles = {r: dataclasses.replace(d, extras=said[r].extras) for r, d in data.roles.items()}
    return dataclasses.replace(data, roles=roles)


def one(recipe, name: str, data: Data) -> tuple[dict, dict]:
    """The values of a stage on this data, trained if it trains, and what it chose."""
    config = recipe['ridge' if name == 'tfidf' else name].copy_and_resolve_references()
    if name == 'tfidf':
        config.method.update({'choose': False, 'colours': 0.0, 'standardise': False})
    method = configs.find('methods', config.method.name).build(config, data)
    data = on_all_devices(data)
    keys = jax.random.split(jax.random.key(config.seed), 3)
    state = on_all_devices(jax.jit(method.init)(keys[0], data))
    if config.num_steps:
        sizes = {'batch_size': config.batch_size, 'steps_per_call': config.steps_per_call}
        step = make_step(method, **sizes)
        for _ in range(config.num_steps // config.steps_per_call):
            state, _ = step(state, data, keys[1])
    chosen = {k: round(float(v), 4) for k, v in state.extra['choice']._asdict().items()}
    return method.evaluate(state, data, keys[2], 'test'), chosen if config.method.choose else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').split('\n')[0])
    parser.add_argument('--splits', type=int, default=100)
    parser.add_argument('--methods', default='ridge', help=f'some of {",".join(METHODS)}')
    parser.add_argument('--data', default='MSD', help=f'one of {", ".join(SETS)}')
    parser.add_argument('--new', type=int, default=0, help='new classes; 0: a quarter')
    parser.add_argument('--folder', default='', help='class folders of your own, instead of --data')
    parser.add_argument('--out', default='', help='the file of the results, a .jsonl')
    args = parser.parse_args()
    logging.set_verbosity(logging.ERROR)
    keep_compiled()
    try:
        run(args)
    except InputError as e:
        sys.exit(f'error: {e}')


if __name__ == '__main__':
    main()
