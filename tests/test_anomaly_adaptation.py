"""Fine-tuning of the classifier of defects' types on a task's shots."""

import jax
import numpy as np
import pytest
from defect_tasks import KEY, evaluated, make, maps, types, unit
from scipy.special import log_softmax

from anyshot_jax.methods import anomaly
from anyshot_jax.types import from_arrays

pytestmark = pytest.mark.slow


def vectors_or_maps(loss):
    if loss == 'relation':
        return maps((6, 7, 5)), 'pair_relation'
    return types((6, 7, 5), noise=1.0), 'mlp'


@pytest.mark.parametrize('loss', tuple(anomaly.JUDGES))
def test_one_shot_is_not_adapted_and_tiny_steps_do_nothing(loss):
    test, net = vectors_or_maps(loss)
    plain = evaluated(test, net, loss=loss)
    tiny = evaluated(test, net, loss=loss, adapt_steps=3, adapt_lr=1e-9)
    jax.tree.map(np.testing.assert_array_equal, plain, tiny)
    moved = evaluated(test, net, loss=loss, adapt_steps=3, adapt_lr=0.5)
    for name in ('1-shot macro', '1-shot micro'):
        np.testing.assert_array_equal(moved[name], plain[name])
    assert (moved['2-shot micro'] != plain['2-shot micro']).any()


@pytest.mark.parametrize('loss', tuple(anomaly.JUDGES))
def test_adaptation_finds_what_tells_types_apart(loss):
    """One direction does, amid noise in others that is larger."""
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], 30)
    x = rng.normal(0, 2.5, (60, 8)).astype(np.float32)
    x[:, 0] = np.where(label, 2, -2) + rng.normal(0, 0.2, 60)
    net = 'mlp'
    if loss == 'relation':
        x, net = x.reshape(60, 1, 1, 8), 'pair_relation'
    test = from_arrays(x, label, group=np.arange(60))
    given = {'shots': (10,), 'draws': 10, 'loss': loss, 'temperature': 0.2}
    before = evaluated(test, net, **given)['10-shot macro'].mean()
    after = evaluated(test, net, adapt_steps=100, adapt_lr=0.03, **given)['10-shot macro'].mean()
    assert after > before + 0.1


def test_a_step_of_adaptation_by_hand():
    """Each shot is told by the others of the task; Adam's first step is the slope's sign."""
    test = types((6, 7, 5), noise=1.5)
    given = {'shots': (2,), 'draws': 8, 'temperature': 0.5, 'adapt_steps': 1, 'adapt_lr': 0.3}
    method, state, data = make(test, **given)
    found = method.export(state, data, KEY)
    start = np.concatenate([np.float64(state.params['Dense_0'][k]).reshape(-1, 5)
                            for k in ('kernel', 'bias')])  # fmt: skip
    with_one = np.float64(np.concatenate([test.x, np.ones((18, 1))], 1))
    y = np.repeat(np.arange(3), 2)
    for rows, named in zip(found['2-shot support'], found['2-shot answers'], strict=True):
        x, asked = with_one[np.asarray(rows).reshape(-1)], np.asarray(named) >= 0

        def loss(weights, x=x):
            z, fixed = unit(x @ weights), unit(x @ start)
            keep = [np.arange(6) != i for i in range(6)]
            means = [[fixed[k & (y == c)].mean(0) for c in range(3)] for k in keep]
            return np.mean([-log_softmax(unit(np.stack(m)) @ z_i / 0.5)[c]
                            for m, z_i, c in zip(means, z, y, strict=True)])  # fmt: skip

        moved = start.copy()
        for at in np.ndindex(start.shape):
            step = np.zeros_like(start)
            step[at] = 1e-5
            moved[at] -= 0.3 * np.sign(loss(start + step) - loss(start - step))
        z_s = x @ moved
        means = unit(np.stack([z_s[y == c].mean(0) for c in range(3)]))
        want = (unit(with_one @ moved) @ means.T).argmax(1)
        np.testing.assert_array_equal(np.asarray(named)[asked], want[asked])
