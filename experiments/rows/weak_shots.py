"""Grocery Store photos, 60 base and 21 novel classes whose web labels were made wrong.

Made by experiments/weak_shot_rungs.py, not by run_rows.py: three splits of classes, three seeds.
"""

import statistics
from pathlib import Path

import tables

from anyshot_jax.sweep.recipes import load_config
from anyshot_jax.types import InputError

RECIPE = 'configs/weak_shots.py:ladder'
ACCURACY = {  # stage: what it is
    'ce': 'cross-entropy (CE)',
    'ce_cosine': 'CE, weights by cosine',
    'ce_mean': 'CE, SimNet weights, mean similarity',
    'ce_votes': 'CE, SimNet weights by votes',
    'ce_graph': 'CE and graph',
    'ce_both': 'CE, weights by votes, graph',
    'ce_adversary': 'the same, SimNet with adversary',
    'classify': 'the whole method: CE, chances by planted wrong labels',
    'oracle': 'CE, oracle weights',
}
AUROC = {
    'cosine': 'AUROC, cosine',
    'mean': 'AUROC, SimNet, mean similarity',
    'votes': 'AUROC, SimNet, votes',
    'weights': 'AUROC, SimNet with adversary, votes',
    'planted': 'AUROC, chances by planted wrong labels',
}
F1 = {
    'simnet_alone': 'F1 of novel test pairs, SimNet',
    'simnet': 'F1 of novel test pairs, SimNet with adversary',
}


def check(lines, root: Path = tables.ROOT, recipe: str = RECIPE) -> list:
    """The lines of problems, if they are what the recipe as it stands gives.

    Raises:
      InputError: lines without the config that made them, or the recipe was changed since.
    """
    problems = [line for line in lines if 'problem' in line]
    header = next((line for line in lines if 'config' in line), None)
    if problems and header is None:
        raise InputError('the lines lack the first, with their config: run weak_shot_rungs.py')
    if header:
        changes = tables.changed(header, load_config(recipe, [], root))
        if changes:
            raise InputError(f'{recipe} was changed since its lines were made: {changes[0]}')
    return problems


def table(lines, root: Path = tables.ROOT) -> str:
    """Markdown: a column for every share of wrong labels."""
    lines = check(lines, root)
    noises = sorted({line['problem']['noise'] for line in lines})
    of = {n: [line['values'] for line in lines if line['problem']['noise'] == n] for n in noises}
    body = []
    for rungs, key in ((ACCURACY, 'accuracy'), (AUROC, 'AUROC of the weights'), (F1, 'F1')):
        for stage, title in rungs.items():
            cells = [cell([v[stage].get(key) for v in of[n]]) for n in noises]
            body.append((title, *cells))
        if rungs is ACCURACY:
            parts = [recovered(of[n]) if n else tables.NO_VALUE for n in noises]
            body.append(('of the gap between CE and oracle, the whole method closes', *parts))
    head = ('', *(f'{100 * n:.0f} % wrong' for n in noises))
    counts = ' or '.join(dict.fromkeys(str(len(of[n])) for n in noises))
    machines = ', '.join(dict.fromkeys(line['machine'] for line in lines))
    seconds = statistics.mean(line['seconds'] for line in lines) if lines else 0
    note = (
        f'In per cent, mean over {counts} problems (splits of the classes, and seeds of noise and '
        "training) with a 95 % interval (Student's t). Accuracy is on clean test images of the "
        f'21 novel classes, after the last step. All rungs of a problem: {seconds:.0f} s on '
        f'{machines}, other programs beside it.'
    )
    return f'{tables.markdown(head, body)}\n\n{note}\n'


def cell(values) -> str:
    """'82.1 ± 1.3' of shares of 1; '-' where there are none."""
    known = [v for v in values if v is not None]
    if not known:
        return tables.NO_VALUE
    mean = f'{100 * statistics.mean(known):.1f}'
    return mean if len(known) < 2 else f'{mean} ± {100 * tables.interval_over_seeds(known):.1f}'


def recovered(values) -> str:
    """Share of the gap that is closed, by the means: (method - CE) / (oracle - CE)."""
    mean = lambda stage: statistics.mean(v[stage]['accuracy'] for v in values)
    gap = mean('oracle') - mean('ce')
    return f'{100 * (mean("classify") - mean("ce")) / gap:.0f}' if gap > 0 else tables.NO_VALUE
