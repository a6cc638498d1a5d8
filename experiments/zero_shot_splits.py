"""Zero-shot accuracy over many class splits: one split of five unseen classes says little.

    ANYSHOT_DATA_DIR=DIR python experiments/zero_shot_splits.py --splits=100
    ... --methods=ridge,generator --splits=20 --held_out   (also seen, unseen and harmonic mean)
    ... --choose --set=method.colours=0.5    (among the seen classes of set A only: for choosing)

Runs the stages `embed`, `ridge` and `generator` of configs/industrial_anyshot.py without reports,
on the metal surface defects (--data=KTD: other sets). Every split is a line of
experiments/results/zero_shot_splits.jsonl (--choose: printed only); at the end means with 95 %
intervals over the splits. A split that has a line for the same settings is not run again.
"""

import argparse
import ast
import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
from absl import logging
from tqdm import tqdm

from anyshot_jax import config as configs
from anyshot_jax import describe, embedding, train
from anyshot_jax.data.splits import split_items
from anyshot_jax.start import keep_compiled, split_cpu
from anyshot_jax.types import from_arrays

HERE = Path(__file__).resolve().parent
RESULTS = HERE / 'results' / 'zero_shot_splits.jsonl'


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--splits', type=int, default=100)
    parser.add_argument('--methods', default='ridge')
    parser.add_argument('--held_out', action='store_true')
    parser.add_argument('--choose', action='store_true')
    parser.add_argument('--data', default='MSD')
    parser.add_argument('--set', action='append', default=[], metavar='FIELD=VALUE')
    args = parser.parse_args()
    logging.set_verbosity(logging.ERROR)
    spec = importlib.util.spec_from_file_location(
        'recipe', HERE.parent / 'configs' / 'industrial_anyshot.py'
    )
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    keep_compiled()
    split_cpu(recipe.get_config())

    settings = {'held_out': args.held_out, 'data': args.data, 'set': sorted(args.set)}
    lines = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() \
        and not args.choose else []  # fmt: skip
    names = args.methods.split(',')
    everything = whole(recipe, args.data)
    for split in tqdm(range(args.splits), disable=None):
        todo = [n for n in names if not any(
            line['split'] == split and line['method'] == n and line['settings'] == settings
            for line in lines
        )]  # fmt: skip
        if not todo:
            continue
        full = recipe.get_config()
        data = whitened(recipe, split_of(everything, args, split))
        for name in todo:
            stage = full[name]
            for field, value in (item.split('=', 1) for item in args.set):
                if field.split('.')[-1] in stage[field.split('.')[0]]:
                    stage.update_from_flattened_dict({field: ast.literal_eval(value)})
            found = one(stage, data)
            means = {k: round(float(np.mean(v)), 5) for k, v in found.items()}
            lines.append({'split': split, 'method': name, 'settings': settings, 'values': means})
        if not args.choose:
            RESULTS.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    for name in names:
        chosen = [line['values'] for line in lines if line['method'] == name
                  and line['settings'] == settings and line['split'] < args.splits]  # fmt: skip
        print(name, settings)
        for key in chosen[0]:
            v = 100 * np.array([c[key] for c in chosen])
            half = 1.96 * v.std(ddof=1) / len(v) ** 0.5
            print(f'  {key:22s} {v.mean():6.2f} +- {half:.2f}  (sd {v.std(ddof=1):.1f}, {len(v)})')


def whole(recipe, name):
    """Every item of the set embedded once: features, labels, names and texts of all classes."""
    embed = recipe.get_config().embed
    embed.data.update({'set': name, 'classes': 'A', 'val': 0})
    data = configs.find('data', embed.data.name).load(embed.data)
    data = embedding.embed(data, embed.encoder, parts=embed.encoder_parts)
    train, test = data['train'], data['test']
    label = np.concatenate([train.label, test.label + len(train.names)])
    x = np.concatenate([train.x, test.x])
    return x, label, train.names + test.names, train.texts + test.texts, train.parts


def split_of(everything, args, number):
    """Data of one split: a quarter of the classes is new, a fifth of the others' items held out.

    With --choose the five new ones of class set A are left out, and five others stand for them.
    """
    x, label, names, texts, parts = everything
    num = len(names) // 4
    allowed = np.argsort(names)
    if args.choose:
        allowed = np.sort(np.arange(len(names) - num))  # set A's new classes come last
    order = np.random.default_rng(number).permutation(len(allowed))
    novel = allowed[order[:num]]
    role = ['test' if c in novel else 'train' if c in allowed else 'none'
            for c in range(len(names))]  # fmt: skip
    nth = np.arange(len(label)) - np.searchsorted(label, label)
    held = np.isin(label, novel, invert=True) & (nth % 5 == 4) & args.held_out
    cut = {'texts': texts, 'roles': ('train', 'test')}
    data = split_items(x[~held], label[~held], names, role, **cut)
    if args.held_out:
        role = ['train' if r == 'train' else 'test' for r in role]
        keep = held & np.isin(label, [c for c, r in enumerate(role) if r == 'train'])
        seen = np.unique(label[keep])
        data['test_seen'] = from_arrays(
            x[keep], np.searchsorted(seen, label[keep]), tuple(names[c] for c in seen),
            texts=tuple(texts[c] for c in seen),
        )  # fmt: skip
    return {r: d.replace(parts=parts) for r, d in data.items()}


def whitened(recipe, data):
    """Data with the features that stage `embed` exports, and vectors of the classes' words."""
    config = recipe.get_config()
    embed, how = config.embed, config.ridge.describe
    data = describe.name_colours(describe.describe(data, how.by, how.templates))
    embed.eval.update({'tasks': ((2, 1),), 'queries': 1})
    method = configs.find('methods', embed.method.name).build(embed, data)
    state = jax.jit(method.init)(jax.random.key(embed.seed), data)
    made = method.export(state, data, jax.random.key(1))
    return {r: d.replace(x=np.asarray(made[r]), parts=()) for r, d in data.items()}


def one(config, data):
    """The values of a stage on this data, trained if it trains."""
    method = configs.find('methods', config.method.name).build(config, data)
    data = train.on_all_devices(data)
    keys = jax.random.split(jax.random.key(config.seed), 3)
    state = train.on_all_devices(jax.jit(method.init)(keys[0], data))
    if config.num_steps:
        sizes = {'batch_size': config.batch_size, 'steps_per_call': config.steps_per_call}
        step = train.make_step(method, **sizes)
        for _ in range(config.num_steps // config.steps_per_call):
            state, _ = step(state, data, keys[1])
    return method.evaluate(state, data, keys[2], 'test')


if __name__ == '__main__':
    main()
