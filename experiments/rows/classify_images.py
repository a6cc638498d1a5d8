"""AnyShotClassifier on all classes at once, beside scikit-learn on the same features.

Made by experiments/compare_classifiers.py, not by run_rows.py.
"""

import statistics
from pathlib import Path

import tables

SETS = {'grocery': 'Grocery Store, 81 products', 'MSD': 'metal defects, 20 types'}
PLANTED = {'grocery': 'Grocery Store', 'MSD': 'metal defects', 'KTD': 'textures'}
SUPPORTS = ('descriptions only', 'icons only', '1 a class', '5 a class')


def table(lines, root: Path = tables.ROOT) -> str:
    """Markdown: a line for every set and support, a column for every classifier."""
    methods = list(dict.fromkeys(x['method'] for x in lines if x['what'] in SUPPORTS))
    body = []
    for name, title in SETS.items():
        for what in SUPPORTS:
            of = {x['method']: x for x in lines if (x['set'], x['what']) == (name, what)}
            if of:
                body.append((f'{title}: {what}', *(accuracy(of.get(m)) for m in methods)))
    several = [f'{title}: {text}' for name, title in SETS.items() if (text := said(name, lines))]
    accused = [wrong_labels(x) for x in lines if x['what'] == 'wrong labels']
    machines = ', '.join(dict.fromkeys(x['machine'] for x in lines))
    note = (
        'Right answers in per cent, the mean over classes, of all images that are not support, '
        "with a 95 % interval (Student's t): over ten draws of the support, or over the classes "
        'where all icons or descriptions are the support. In brackets seconds, features given, to '
        f'fit and to answer all (of Grocery Store some 5,000 images). Machine: {machines}.'
    )
    parts = [tables.markdown(('', *methods), body).rstrip(), *several, note]
    if accused:
        head = ('wrong labels', 'examples', 'precision %', 'recall %', 'accused if none is wrong %')
        parts += [
            'Examples of which one in twenty has another class as its label, and which of them '
            '`label_errors` accuses, over ten draws:',
            tables.markdown(head, accused).rstrip(),
        ]
    return '\n\n'.join(parts) + '\n'


def wrong_labels(x) -> tuple[str, ...]:
    """A line of the second table."""
    values = (interval(x[k]) for k in ('precision', 'recall', 'by_mistake'))
    return PLANTED[x['set']], f'{x["examples"]:,}', *values


def accuracy(line) -> str:
    if line is None:
        return tables.NO_VALUE
    cell = interval(line.get('accuracy') or line['classes'])
    if 'fit_seconds' in line:
        cell += f' ({line["fit_seconds"]:.2g} + {line["ask_seconds"]:.2g} s)'
    return cell


def interval(values) -> str:
    mean = f'{100 * statistics.mean(values):.1f}'
    if len(values) < 2:
        return mean
    return f'{mean} ± {100 * tables.interval_over_seeds(values):.1f}'


def said(name: str, lines) -> str:
    """A sentence or two on what else was measured of a set."""
    of = {x['what']: x for x in lines if x['set'] == name}
    found = []
    if x := of.get('5 a class, words of a quarter'):
        found.append(
            'with five images of three quarters of the classes and words of the others, all '
            f'being answers, {interval(x["seen"])} of the former and {interval(x["accuracy"])} of '
            'the latter'
        )
    if x := of.get('unknown'):
        found.append(
            f'with a quarter of the classes left out, {interval(x["false_alarm"])} of the known '
            f'are called unknown ({interval(x["promised"])} promised) and {interval(x["found"])} '
            f'of the others (AUROC {interval(x["auroc"])})'
        )
    errors = [x for x in lines if (x['set'], x['what']) == (name, 'calibration')]
    if errors:
        each = ' and '.join(f'{interval(x["error"])} at {x["shots"]} a class' for x in errors)
        found.append(f'expected calibration error {each}')
    if x := of.get('one image'):
        found.append(
            f'one image, encoder included, {1000 * x["median"]:.0f} ms (median of 100; the '
            f'slowest {1000 * x["slowest"]:.0f})'
        )
    return '; '.join(found) + '.' if found else ''
