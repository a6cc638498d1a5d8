"""Any-shot classification: shots 0 and more, synthesised support, transduction, and refusals."""

import jax
import numpy as np
import pytest

from anyshot_jax import config as configs
from anyshot_jax.runtime.devices import on_all_devices
from anyshot_jax.types import Data, InputError, from_arrays

pytestmark = pytest.mark.slow

KEY = jax.random.key(3)
WAYS, DIM = 3, 5


def blobs(num, distance=6.0, per_class=12, seed=0):
    rng = np.random.default_rng(seed)
    means = distance * np.linalg.qr(rng.normal(size=(DIM, DIM)))[0][:num]
    label = np.repeat(np.arange(num), per_class)
    x = means[label] + rng.normal(size=(len(label), DIM))
    return from_arrays(x.astype(np.float32), label), means.astype(np.float32)


def run(data, tasks, **fields):
    config = configs.defaults('refine', 'synthetic')
    config.num_steps = 0
    config.method.update(fields)
    config.eval.update({'tasks': tasks, 'queries': 5, 'episodes': 30})
    method = configs.find('methods', 'refine').build(config, data)
    data = on_all_devices(data)
    state = jax.jit(method.init)(KEY, data)
    found = method.evaluate(state, data, KEY, 'test')
    return {name: np.asarray(v) for name, v in found.items()}


def data_of(distance=6.0, shift=0):
    """Test classes, and synthesised items at their means; `shift` gives them to other classes."""
    test, means = blobs(4, distance)
    made = np.roll(means, shift, 0)[:, None] + 0.1 * np.random.default_rng(1).normal(
        size=(4, 6, DIM)
    )
    roles = {'train': blobs(3, seed=7)[0], 'test': test}
    return Data(roles, stages={'made': {'test': made.astype(np.float32)}})


@pytest.mark.parametrize('graph', [False, True])
def test_far_classes_are_told_apart_whatever_the_shots(graph):
    fields = {'synthesised_from': 'made', 'transductive': True, 'graph': graph}
    values = run(data_of(60.0), ((WAYS, 0), (WAYS, 1)), **fields)
    assert list(values) == [
        '3-way 0-shot', '3-way 0-shot transductive',
        '3-way 1-shot', '3-way 1-shot + synthesis',
        '3-way 1-shot transductive', '3-way 1-shot transductive + synthesis',
    ]  # fmt: skip
    for name, value in values.items():
        assert value.shape == (30,)
        np.testing.assert_array_equal(value, 1, err_msg=name)


def test_wrong_words_and_the_filter():
    """Items made for other classes: at 0 shots all goes wrong; with shots the filter drops them."""
    data = data_of(60.0, shift=1)
    fields = {'synthesised_from': 'made', 'synthesised_weight': 50.0}
    values = run(data, ((4, 0), (4, 2)), **fields)
    np.testing.assert_array_equal(values['4-way 0-shot'], 0)
    np.testing.assert_array_equal(values['4-way 2-shot + synthesis'], values['4-way 2-shot'])


def test_good_synthesised_items_help_and_weight_0_changes_nothing():
    data, tasks = data_of(2.5), ((4, 1),)
    helped = run(data, tasks, synthesised_from='made', synthesised_weight=3.0)
    assert helped['4-way 1-shot + synthesis'].mean() > helped['4-way 1-shot'].mean() + 0.03
    without = run(data, tasks, synthesised_from='made', synthesised_weight=0.0, transductive=True)
    for kind in ('', ' transductive'):
        a, b = (without[f'4-way 1-shot{k}'] for k in (kind, f'{kind} + synthesis'))
        np.testing.assert_allclose(a, b, atol=0.051)  # one query of twenty, by rounding


def test_transduction_helps_and_a_prior_moves_it():
    data, tasks = data_of(3.0), ((4, 1),)
    values = run(data, tasks, transductive=True)
    assert values['4-way 1-shot transductive'].mean() > values['4-way 1-shot'].mean() + 0.03
    # Expecting nearly all queries in one class gives most answers to it.
    skewed = run(data, tasks, transductive=True, prior=(97.0, 1.0, 1.0, 1.0))
    assert skewed['4-way 1-shot transductive'].mean() < 0.6
    np.testing.assert_array_equal(skewed['4-way 1-shot'], values['4-way 1-shot'])


def test_refusals():
    data = data_of()
    for fields, tasks, message in [
        ({}, ((3, 0),), r'config\.method\.synthesised_from names'),
        ({'synthesised_from': 'mades'}, ((3, 1),), "no earlier stage; did you mean 'made'"),
        ({'prior': (1.0, 2.0)}, ((3, 1),), 'each of the 4 test classes'),
        ({'synthesised_weight': -1.0}, ((3, 1),), 'synthesised_weight'),
        ({'neighbours': 0}, ((3, 1),), 'neighbours'),
    ]:
        with pytest.raises(InputError, match=message):
            run(data, tasks, **fields)
