"""Tasks that become what small data allow, and runs of them."""

import numpy as np
import pytest

import anyshot_jax
from anyshot_jax import config as configs
from anyshot_jax.episodes import fitting
from anyshot_jax.sweep.recipes import load_config
from anyshot_jax.training import loop
from anyshot_jax.types import Data, InputError, from_arrays


def data(**counts):
    """Roles with classes of so many items."""
    roles = {}
    for role, items in counts.items():
        label = np.repeat(np.arange(len(items)), items)
        names = [f'{role}{i}' for i in range(len(items))]
        roles[role] = from_arrays(np.zeros((len(label), 2), np.float32), label, names)
    return Data(roles)


@pytest.mark.parametrize(
    ('counts', 'num_steps', 'train', 'tasks', 'queries'),
    [
        # Nothing is too much: 5 ways of 1 + 15, of 5 + 15.
        ({'train': [16] * 5, 'val': [20] * 5, 'test': [20] * 6}, 9, (5, 1, 15),
         ((5, 1), (5, 5)), 15),
        # Four classes to train on, two in val: both roles do the same tasks.
        ({'train': [16] * 4, 'val': [20] * 2, 'test': [20] * 3}, 9, (4, 1, 15),
         ((2, 1), (2, 5)), 15),
        # Queries go first, 8 - 5 are left; then shots, of 4 items one is the query.
        ({'train': [9, 6, 9, 9, 9], 'val': [8] * 5, 'test': [9] * 5}, 9, (5, 1, 5),
         ((5, 1), (5, 5)), 3),
        ({'train': [16] * 5, 'val': [20] * 5, 'test': [4] * 5}, 9, (5, 1, 15),
         ((5, 1), (5, 3)), 1),
        # Two shots of 1 + 1 are one task. Without training, test alone counts.
        ({'train': [1], 'val': [1], 'test': [2] * 5}, 0, (5, 1, 15), ((5, 1),), 1),
    ],
)  # fmt: skip
def test_tasks_that_fit(counts, num_steps, train, tasks, queries):
    config = configs.defaults('protonet', 'synthetic', 'mlp')
    config.num_steps, config.eval.select = num_steps, '5-way 5-shot'
    fitted, said = fitting.that_fit(config, data(**counts))
    assert (fitted.train.ways, fitted.train.shots, fitted.train.queries) == train
    assert (fitted.eval.tasks, fitted.eval.queries) == (tasks, queries)
    assert (fitted.eval.select == '5-way 5-shot') == ((5, 5) in tasks)
    assert (config.eval.tasks, config.train.ways) == (((5, 1), (5, 5)), 5)  # as they were
    asked = f'--config.eval.tasks="{tasks}" --config.eval.queries={queries}'
    assert (asked in said) == (tasks != config.eval.tasks or queries != 15)
    assert ('train has' in said) == (train != (5, 1, 15))


def test_a_run_whose_tasks_fit(tmp_path, capsys):
    """The values of the same tasks asked for; it can be run again, and read."""
    config = configs.defaults('knn', 'synthetic')
    config.data.update(
        {'kind': 'features', 'dim': 6, 'num_classes': (3, 3, 4), 'per_class': (9, 9)}
    )
    config.num_steps, config.eval.queries, config.eval.episodes = 0, 5, 20
    with pytest.raises(InputError, match=r'--config.eval.tasks="\(\(4, 1\),\)"'):
        loop.run(config, tmp_path / 'refused')
    asked = config.copy_and_resolve_references()
    asked.eval.update({'tasks': ((4, 1), (4, 5)), 'queries': 4})
    config.fit_tasks = True
    found = loop.run(config, tmp_path / 'fits')
    assert 'test has 4 classes, of 9 items or more: --config.eval.tasks' in capsys.readouterr().err
    assert found.means == loop.run(asked, tmp_path / 'asked').means
    assert found.result['config_hash'] == configs.config_hash(asked)
    assert loop.run(config, tmp_path / 'fits').means == found.means
    assert 'finished' in capsys.readouterr().out
    assert anyshot_jax.load(tmp_path / 'fits').config.eval.tasks == ((4, 1), (4, 5))


def test_tasks_asked_for_by_a_flag_are_not_changed():
    config = load_config('folder_anyshot', ['data.dir=pictures', 'refine.eval.tasks=((9, 1),)'])
    assert [config[s].fit_tasks for s in ('embed', 'ridge', 'refine')] == [True, True, False]
    assert load_config('folder_simpleshot', ['eval.queries=7', 'fit_tasks=True']).fit_tasks
    assert not load_config('folder_simpleshot', ['eval.queries=7']).fit_tasks
    assert load_config('folder_simpleshot', ['eval.episodes=7']).fit_tasks
