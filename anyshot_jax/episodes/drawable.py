"""Refuses, before any work starts, episodes that the data can't give."""

import numpy as np
from absl import logging

from anyshot_jax.types import Data, Dataset, InputError


def with_items(dataset: Dataset, role: str, least: int) -> np.ndarray:
    """The classes that have that many items, the others counted in the log.

    Raises:
      InputError: there is none.
    """
    count = np.asarray(dataset.count)
    keep = np.flatnonzero(count >= least)
    if not len(keep):
        raise InputError(
            f'no class of {role} has {least} items, the most is {count.max()}: a pair needs two '
            'of a class; lower config.train.shots and queries, or add items'
        )
    if skipped := len(count) - len(keep):
        logging.warning('%s: skipped %d classes with fewer than %d items', role, skipped, least)
    return keep


def check(data: Data, role: str, *, ways: int, shots: int, queries: int, within: str = '') -> None:
    """Says before any work starts that such episodes can't be drawn.

    Raises:
      InputError: the role is missing, too few classes, or a class with too few items (named).
    """
    if role in data.functions:
        raise InputError(
            f'{role} holds functions and no classes: use config.method.name=maml_regression'
        )
    if role not in data.roles:
        raise InputError(f'the data has no role {role!r}; it has {", ".join(data.roles)}')
    dataset = data.roles[role]
    if min(ways, shots, queries) < 1:
        raise InputError(f'ways, shots and queries must be >= 1, got {ways}, {shots}, {queries}')
    if ways < 2:
        raise InputError(
            f'{ways}-way episodes have one answer, which is always right: need 2 ways or more, as '
            f'{_flag(role, "ways", 2, shots)}'
        )
    most = dataset.num_classes
    if ways > most:
        raise InputError(
            f'{ways}-way episodes need {ways} classes, but {role} has {most}; lower the ways'
            + (f' ({_flag(role, "ways", most, shots)})' if most > 1 else '')
            + ' or give it more classes (--config.data.split says which share of them it gets)'
        )
    if within:
        kind = dataset.extras.get(within)
        if kind is None or np.ndim(kind) != 1:
            raise InputError(
                f'{role} classes have no attribute {within!r} to draw episodes within; available: '
                f'{", ".join(dataset.extras) or "none"}'
            )
        largest = np.unique(np.asarray(kind), return_counts=True)[1].max()
        if largest < ways:
            fewer = f'lower the ways ({_flag(role, "ways", largest, shots)}) or ' * int(largest > 1)
            every = f'--config.{"train" if role == "train" else "eval"}.within='
            raise InputError(
                f'{ways}-way episodes within one {within} need {ways} classes, but the largest of '
                f'{role} has {largest}; {fewer}draw from all kinds ({every})'
            )
    count = np.asarray(dataset.count)
    few = np.flatnonzero(count < shots + queries)
    if len(few):
        listed = ', '.join(f'{dataset.names[c]!r} has {count[c]}' for c in few[:5])
        more = f' and {len(few) - 5} more' if len(few) > 5 else ''
        raise InputError(
            f'{shots} shots and {queries} queries need {shots + queries} items a class, but in '
            f'{role} class {listed}{more}; lower the shots or queries'
            + (f' ({_flag(role, "queries", count.min() - shots)})' if count.min() > shots else '')
            + ', or add items'
        )
    if dataset.turns > 1 and (dataset.x.ndim != 4 or dataset.x.shape[1] != dataset.x.shape[2]):
        raise InputError(
            f'rotated classes need square images, {role} has items {dataset.x.shape[1:]}'
        )


def _flag(role: str, field: str, value: int, shots: int = 1) -> str:
    """Flag to paste into the command."""
    if role == 'train':
        return f'--config.train.{field}={value}'
    if field == 'ways':
        return f'--config.eval.tasks="(({value}, {shots}),)"'
    return f'--config.eval.{field}={value}'


def check_functions(data: Data, role: str, tasks: tuple[tuple[int, int], ...]) -> None:
    """Says before any work starts that there are no functions, or that tasks are none of them.

    Raises:
      InputError: the role holds classes, or a task isn't (1, shots).
    """
    if role not in data.functions:
        raise InputError(
            f'{role} holds no functions to regress on: use config.data.name=sinusoid, or for '
            'classes config.method.name=maml'
        )
    if not tasks or any(ways != 1 or shots < 1 for ways, shots in tasks):
        raise InputError(f'config.eval.tasks={tasks}: a function is a task of 1 way, like (1, 10)')
