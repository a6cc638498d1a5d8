"""Reptile against joint training and against its inner loop written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_tasks import Case, task_loss, worst

from anyshot_jax.methods.reptile import mini_batches
from anyshot_jax.types import InputError

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def items(case, task):
    x = np.concatenate([case.batch.x_s[task], case.batch.x_q[task]])
    return x, np.concatenate([case.batch.y_s[task], case.batch.y_q[task]])


ALL = {'inner_optimizer': 'sgd', 'inner_lr': 0.1, 'inner_batch': 0}


@pytest.mark.parametrize('chunk', [1, 3])
def test_one_step_on_all_items_is_joint_training(chunk):
    case = Case('reptile', tasks=3, task_chunk=chunk, inner_steps=1, **ALL)

    def joint(params):
        return sum(task_loss(params, *items(case, t)) for t in range(3)) / 3

    want = jax.tree.map(lambda g: 0.1 * g, jax.grad(joint)(case.state.params))
    assert worst(case.grads(), want) < 1e-10
    _, metrics = case.update(case.state.params)
    np.testing.assert_allclose(metrics['loss'], joint(case.state.params), rtol=1e-10)


def test_the_step_goes_to_where_the_inner_loop_ends():
    case = Case('reptile', tasks=2, inner_steps=3, **ALL)
    ends = []
    for task in range(2):
        params = case.state.params
        for _ in range(3):
            grads = jax.grad(task_loss)(params, *items(case, task))
            params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
        ends.append(params)
    way = jax.tree.map(lambda p, a, b: p - (a + b) / 2, case.state.params, *ends)
    assert worst(case.grads(), way) < 1e-10


def test_adam_without_momentum_by_hand():
    """From zero second moments the first step is lr * sign(g), up to Adam's epsilon."""
    case = Case('reptile', tasks=1, inner_steps=1, inner_batch=0, inner_lr=1e-3)
    grads = jax.grad(task_loss)(case.state.params, *items(case, 0))
    want = jax.tree.map(lambda g: 1e-3 * g / (jnp.abs(g) + 1e-8), grads)
    assert worst(case.grads(), want) < 1e-8


def test_mini_batches_take_every_item_once_a_round():
    index = np.asarray(mini_batches(jax.random.key(0), 6, steps=5, batch=4))
    assert index.shape == (5, 4)
    for first in (0, 6, 12):
        assert sorted(index.reshape(-1)[first : first + 6]) == list(range(6))
    assert (index.reshape(-1)[:6] != index.reshape(-1)[6:12]).any()


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'inner_optimizer': 'sdg'}, "inner_optimizer='sdg' is unknown; did you mean 'sgd'"),
        ({'eval_steps': 0}, 'inner_steps and eval_steps must be >= 1'),
    ],
)
def test_what_can_not_be_used_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        Case('reptile', **fields)
