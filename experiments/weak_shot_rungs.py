"""The rungs of weak-shot learning over splits, seeds and shares of wrong labels.

    ANYSHOT_DATA_DIR=DIR python experiments/weak_shot_rungs.py
    ... --pair=msd_ktd --noise=0.0,0.4          (base classes of one set, novel ones of another)
    ... --dir=MY_CLASSES --results=my.jsonl     (your own clean set, wrong labels made in it)
    ... --choose --noise=0.4 --set=weights.method.bound=0.5   (held-out base classes: for choosing)

Runs the stages of configs/weak_shots.py:ladder without reports, on the Grocery Store photos. Every
problem (share of wrong labels, split of the classes, seed) is a line of results/weak_shots.jsonl
(--choose: printed only); a problem that has a line is not run again. At the end the means.
tables.py makes the README's table of the lines. --pair and --dir run `:rungs`, the short ladder,
and write to weak_shot_pairs.jsonl and where you say. MY_CLASSES is a folder of class folders, or
a packed .npz. Your own web images, whose truth nobody knows: configs/weak_shots.py:folder_rungs.
"""

import argparse
import ast
import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict
from tables import (
    ROOT,
    load_config,
    load_rows,
    machine,
    published_config,
    read_lines,
    write_lines,
)

from anyshot_jax import config as configs
from anyshot_jax.data import noisy
from anyshot_jax.data.splits import split_classes, split_items
from anyshot_jax.encoders import embedding
from anyshot_jax.runtime.devices import on_all_devices
from anyshot_jax.runtime.start import keep_compiled, split_cpu
from anyshot_jax.storage.folders import data_root
from anyshot_jax.training.step import make_step
from anyshot_jax.types import Data, Dataset, InputError, from_arrays

RESULTS = Path(__file__).resolve().parent / 'results'
OUTSIDE = 0.2  # of a small base class's items: enough of them stand for nothing


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--noise', default='0.0,0.2,0.4,0.6')
    parser.add_argument('--splits', default='0,1,2')
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--stages', default='', help='only these, with commas')
    parser.add_argument('--results', type=Path, help='where the lines go')
    parser.add_argument('--pair', choices=PAIRS)
    parser.add_argument('--dir', type=Path, help='a clean set of your own')
    parser.add_argument('--choose', action='store_true')
    parser.add_argument('--set', action='append', default=[], metavar='STAGE.FIELD=VALUE')
    args = parser.parse_args()
    if (args.set or args.stages) and not args.choose:
        parser.error('--set and --stages are for --choose: what is published is the recipe')
    name = 'weak_shot_pairs' if args.pair else 'weak_shots'
    results = args.results or RESULTS / f'{name}.jsonl'
    if args.dir and results.resolve().parent == RESULTS:
        parser.error('--dir needs --results=FILE: lines of your own set are not the published ones')
    logging.set_verbosity(logging.ERROR)
    table = load_rows('weak_shot_pairs' if args.pair or args.dir else 'weak_shots')
    recipe = load_config(table.RECIPE, [], ROOT)
    for stage in recipe.stages:
        for field, value in (item.split('=', 1) for item in args.set):
            prefix, _, rest = field.partition('.')
            part, _, name = rest.partition('.')
            if stage.startswith(prefix) and name in recipe[stage].get(part, {}):
                recipe[stage].update_from_flattened_dict({rest: ast.literal_eval(value)})
    keep_compiled()
    split_cpu(recipe)
    # What made the lines stands first; another recipe's lines are refused.
    header = {'recipe': table.RECIPE, 'config': published_config(recipe)}
    lines = [] if args.choose else table.check([*read_lines(results)])
    if lines:
        write_lines(results, [header, *lines])
    try:
        draw = drawn(recipe, args)
    except InputError as e:
        parser.error(str(e))
    of_pair = {'pair': args.pair} if args.pair else {}
    built = {}  # by split
    for seed in range(args.seeds):
        for split in map(int, args.splits.split(',')):
            for noise in map(float, args.noise.split(',')):
                problem = {**of_pair, 'noise': noise, 'split': split, 'seed': seed}
                if any(line['problem'] == problem for line in lines):
                    continue
                started = time.monotonic()
                data = draw(noise, split, seed)
                only = args.stages.split(',') if args.stages else ()
                values = run(recipe, data, seed, built.setdefault(split, {}), only)
                lines.append({
                    'problem': problem, 'values': values,
                    'seconds': round(time.monotonic() - started, 1),
                    'machine': machine(jax.devices()[0].device_kind, jax.local_device_count()),
                })  # fmt: skip
                if not args.choose:
                    write_lines(results, [header, *lines])
                print(problem, lines[-1]['seconds'], 's', flush=True)
        # A process may map only so much memory, and every compiled program maps some.
        built.clear()
        jax.clear_caches()
    show([line for line in lines if line['problem'].get('pair') == args.pair])


def drawn(recipe, args):
    """(noise, split, seed) -> the data of a problem, of features."""
    if args.pair:
        return partial(between, recipe, *PAIRS[args.pair]())
    if args.dir:
        first = recipe[recipe.stages[0]].data
        first.dir, first.outside = str(args.dir.resolve()), OUTSIDE
        first.source = 'folder' if args.dir.is_dir() else 'packed'
        first.source_fields = (('size', 224),)
    everything = whole(recipe)
    return lambda *problem: data_of(recipe, everything, *problem, choose=args.choose)


def whole(recipe):
    """Every image embedded once: features, labels and names of all classes."""
    first = recipe[recipe.stages[0]]
    source = noisy.source_config(first.data)
    data = configs.find('data', source.name).load(source)
    roles = embedding.embed(data, first.encoder).roles
    names = tuple(n for d in roles.values() for n in d.names)
    shift = np.cumsum([0, *(len(d.count) for d in roles.values())])
    label = np.concatenate([d.label + s for d, s in zip(roles.values(), shift, strict=False)])
    return np.concatenate([d.x for d in roles.values()]), label, names


def data_of(recipe, everything, noise, split, seed, choose):
    """Data as the recipe loads them, of features; the lots are others, as classes are sorted."""
    x, label, names = everything
    config = recipe[recipe.stages[0]].data.copy_and_resolve_references()
    config.update({'noise': noise, 'split_seed': split, 'noise_seed': seed})
    config.validation = 'novel' if choose else 'base'
    role = split_classes(names, config)
    # By name: then a problem doesn't depend on the order in which classes were read.
    order = np.argsort(names, kind='stable')
    renumber = np.argsort(order)
    sorted_names = [names[i] for i in order]
    source = split_items(x, renumber[label], sorted_names, [role[n] for n in sorted_names])
    return noisy.mix(config, source)


class Side(NamedTuple):
    """Classes of one set: so many of them, drawn by the split, or all (0); web: of these groups."""

    items: Dataset
    number: int = 0
    web: tuple[int, ...] = ()


def between(recipe, base, novel, noise, split, seed):
    """Base classes of one set and novel ones of another, or two parts of one."""
    config = recipe[recipe.stages[0]].data.copy_and_resolve_references()
    config.update({'noise': noise, 'split_seed': split, 'noise_seed': seed, 'outside': OUTSIDE})
    config.web_groups = novel.web
    order = np.random.default_rng(split).permutation(len(novel.items.names))
    rest = order[novel.number :] if base.items is novel.items else range(len(base.items.names))
    chosen = {'train': (base.items, rest[: base.number or None])}
    chosen['test'] = (novel.items, order[: novel.number])
    return noisy.mix(config, Data({role: _classes(*of) for role, of in chosen.items()}))


def _classes(items, chosen):
    chosen = np.asarray(chosen)
    rows = np.flatnonzero(np.isin(items.label, chosen))
    renumber = np.zeros(len(items.names), int)
    renumber[chosen] = np.arange(len(chosen))
    group = None if items.group is None else items.group[rows]
    names = tuple(items.names[c] for c in chosen)
    return from_arrays(items.x[rows], renumber[items.label[rows]], names, group=group)


def embedded(name, most=0, **fields):
    """The items of a set, of all its classes or of `most` drawn by lot, as features."""
    config = ConfigDict({'name': name, 'dir': '', **configs.find('data', name).DEFAULTS, **fields})
    roles = configs.find('data', name).load(config).roles.values()
    of_role = [(d, c, n) for d in roles for c, n in enumerate(d.names)]
    of_role = sorted(of_role, key=lambda item: item[2])
    if most:
        chosen = np.sort(np.random.default_rng(0).permutation(len(of_role))[:most])
        of_role = [of_role[i] for i in chosen]
    rows = [d.offset[c] + np.arange(d.count[c]) for d, c, _ in of_role]
    x = np.concatenate([d.x[r] for (d, *_), r in zip(of_role, rows, strict=True)])
    label = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    group = None
    if of_role[0][0].group is not None:
        group = np.concatenate([d.group[r] for (d, *_), r in zip(of_role, rows, strict=True)])
    names = tuple(n for *_, n in of_role)
    given = Data({'every': from_arrays(x, label, names, group=group)})
    return embedding.embed(given, 'efficientnet_lite0').roles['every']


def emoji():
    """40 base and 30 novel classes; the web images are of five styles, the test's of three."""
    items = embedded('packed', most=150, set='emoji', size=64, group='style')
    return Side(items, 40), Side(items, 30, web=(0, 1, 3, 4, 5))  # noto's and fluent's


def dtd():
    return embedded('folder', dir=str(data_root() / 'dtd' / 'images'), size=224)


def industrial(name):
    return embedded('industrial', set=name, size=224)


PAIRS = {
    'msd_ktd': lambda: (Side(industrial('MSD')), Side(industrial('KTD'), 10)),
    'dtd_ktd': lambda: (Side(dtd()), Side(industrial('KTD'), 10)),
    'emoji': emoji,
}


def run(recipe, data, seed, built, only=()):
    """Stage -> its values, every stage with what those before it exported.

    `built` keeps methods and compiled steps: problems of one split differ in numbers only.
    """
    exported, values = {}, {}
    for name in recipe.stages:
        if only and name not in only:
            continue
        config = configs.check(recipe[name])
        given = dataclasses.replace(data, stages=exported)
        trains = config.num_steps > 0
        # `simnet` is compiled for the size of the largest class, in steps of 16.
        key = name, *(-(-int(max(data.roles[role].count)) // 16) for role in ('base', 'web'))
        made = built.get(key)
        if made is None:
            method = configs.find('methods', config.method.name).build(config, given)
            sizes = {'batch_size': config.batch_size, 'steps_per_call': config.steps_per_call}
            step = make_step(method, **sizes) if trains else None
            made = (method, jax.jit(method.init), step)
            # What isn't trained holds the similarity itself and is made anew.
            built |= {key: made} if trains else {}
        method, init, step = made
        given = on_all_devices(given)
        key_init, key_step, _, key_test = jax.random.split(jax.random.key(seed), 4)
        state = on_all_devices(init(key_init, given))
        for _ in range(config.num_steps // config.steps_per_call):
            state, _ = step(state, given, key_step)
        found = method.evaluate(state, given, key_test, 'test')
        values[name] = {k: round(float(np.mean(v)), 5) for k, v in found.items()}
        if config.method.name != 'weakshot':
            exports = method.export(state, given, key_test)
            exported[name] = {k: np.asarray(v) for k, v in exports.items()}
    return values


def show(lines):
    """Means over the problems of every share of wrong labels."""
    for noise in sorted({line['problem']['noise'] for line in lines}):
        chosen = [line['values'] for line in lines if line['problem']['noise'] == noise]
        print(f'noise {noise}, {len(chosen)} problems')
        for stage, values in chosen[0].items():
            means = {k: 100 * np.mean([c[stage][k] for c in chosen]) for k in values}
            print(f'  {stage:13s}', '  '.join(f'{k} {v:.2f}' for k, v in means.items()))


if __name__ == '__main__':
    main()
