"""A sweep of a tiny config, and what its trials leave."""

import csv
import json
from pathlib import Path

from anyshot_jax.sweep import trials

ROOT = Path(__file__).resolve().parent.parent

CONFIG = """
from anyshot_jax.config import defaults

def get_config(arg=''):
    config = defaults(method='protonet', data='synthetic', net='mlp')
    config.data.update({'kind': 'features', 'dim': 6, 'per_class': (6, 9)})
    config.net.update({'hidden': (8,), 'features': 6})
    config.update({'num_steps': 8, 'batch_size': 2, 'steps_per_call': 2})
    config.update({'log_every': 2, 'eval_every': 4, 'save_every': 2})
    config.train.update({'ways': 3, 'queries': 2})
    config.eval.update({'tasks': ((3, 1),), 'queries': 3, 'episodes': 20, 'val_episodes': 10})
    return config
"""
GRID = {'fields': {'optim.learning_rate': (0.01, 0.1), 'net.features': (4, 6)}}
ONE = {'fields': {'optim.learning_rate': (0.01,)}}


def write(folder: Path, **constants) -> Path:
    """mine.py, a sweep of the config above."""
    (folder / 'tiny.py').write_text(CONFIG)
    given = {'config': str(folder / 'tiny.py'), **constants}
    file = folder / 'mine.py'
    file.write_text(''.join(f'{k.upper()} = {v!r}\n' for k, v in given.items()))
    return file


def made(file, folder=Path('none')):
    return trials.make_trials(trials.load(file), folder)


def rows(path):
    with path.open(newline='') as f:
        return list(csv.DictReader(f))


def finish(trial, validations, test, ci95=0.02, larger=True):
    """Leaves what a run with these validations, by steps, leaves."""
    folder = trial.runs[0].workdir
    folder.mkdir(parents=True)
    lines = [
        {'step': s, 'kind': 'val', '3-way 1-shot': v, '3-way 1-shot/ci95': 0.1}
        for s, v in validations.items()
    ]
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    (folder / 'config.json').write_text('{"seed": -1}')
    measure = {'name': 'accuracy', 'percent': True, 'larger_is_better': larger}
    if test is not None:
        values = {'3-way 1-shot': {'mean': test, 'ci95': ci95, 'n': 20}}
        result = {'values': values, 'measure': measure, 'step': 4, 'seconds': 1.5}
        (folder / 'result.json').write_text(json.dumps(result))
