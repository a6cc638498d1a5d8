"""Tasks that fit the data: for recipes of images that nobody has counted."""

from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from anyshot_jax.episodes.episodic import task_name
from anyshot_jax.types import Data


def that_fit(config: ConfigDict, data: Data) -> tuple[ConfigDict, str]:
    """The config with tasks that the classes of each role allow, and a line if they are smaller.

    Ways become the classes that there are. Of the items of the smallest class queries are given up
    first, down to one, then shots. What no task fits stays for `check_episodes` to refuse.
    """
    fitted = config.copy_and_resolve_references()
    said = []
    if config.num_steps and 'train' in data.roles:
        train = config.train
        pairs, queries, of = _smaller([(train.ways, train.shots)], train.queries, data, ['train'])
        ((ways, shots),) = pairs
        if (ways, shots, queries) != (train.ways, train.shots, train.queries):
            fitted.train.update({'ways': ways, 'shots': shots, 'queries': queries})
            said.append(
                f'{of}: --config.train.ways={ways} --config.train.shots={shots} '
                f'--config.train.queries={queries}'
            )
    roles = [r for r in (('val', 'test') if config.num_steps else ('test',)) if r in data.roles]
    if roles and config.eval.tasks:
        pairs, queries, of = _smaller(config.eval.tasks, config.eval.queries, data, roles)
        if pairs != tuple(config.eval.tasks) or queries != config.eval.queries:
            fitted.eval.update({'tasks': pairs, 'queries': queries})
            if config.eval.select not in [task_name(*pair) for pair in pairs]:
                fitted.eval.select = ''
            said.append(f'{of}: --config.eval.tasks="{pairs}" --config.eval.queries={queries}')
    if not said:
        return config, ''
    return fitted, f'tasks made to fit the data, as by the flags: {"; ".join(said)}'


def _smaller(
    pairs: Sequence[tuple[int, int]], queries: int, data: Data, roles: Sequence[str]
) -> tuple[tuple[tuple[int, int], ...], int, str]:
    """Tasks (ways, shots) and their queries that all roles allow, and what these have."""
    most = min(data.roles[r].num_classes for r in roles)
    least = min(int(np.asarray(data.roles[r].count).min()) for r in roles)
    queries = min(queries, max(1, least - max(shots for _, shots in pairs)))
    fit = lambda shots: min(shots, max(1, least - queries))
    smaller = tuple(dict.fromkeys((min(w, max(2, most)), fit(s)) for w, s in pairs))
    has = f'{" and ".join(roles)} have {most} classes or more, of {least} items or more'
    return smaller, queries, has if len(roles) > 1 else (
        f'{roles[0]} has {most} classes, of {least} items or more')  # fmt: skip
