"""The classifier of defects' types: losses in NumPy, tasks whose answers are known beforehand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from defect_tasks import KEY, SMALL, evaluated, make, maps, types, unit
from scipy.special import log_softmax

from anyshot_jax import config as configs
from anyshot_jax.defects import draws
from anyshot_jax.methods import anomaly
from anyshot_jax.training.step import make_step
from anyshot_jax.types import Data, Episode, InputError, from_arrays

pytestmark = pytest.mark.slow

# What is learnt.


def episode(x, ways=3, shots=2, queries=2):
    label = lambda n: np.repeat(np.arange(ways, dtype=np.int32), n)
    x = x[: ways * (shots + queries)]
    x_s, x_q = x[: ways * shots], x[ways * shots :]
    return Episode(x_s, label(shots), x_q, label(queries), np.arange(ways, dtype=np.int32))


def step_on(method, state, task):
    """State and metrics after one update on this task alone."""
    batch = jax.tree.map(lambda a: jnp.asarray(a)[None], (task, jax.random.split(KEY, 1)))
    one = jax.jit(jax.vmap(method.update, (None, 0, 0), axis_name='devices'))
    after, metrics = one(state, *jax.tree.map(lambda a: a[None], batch))
    return jax.tree.map(lambda a: np.asarray(a)[0], (after, metrics))


def loss_in_numpy(loss, z_s, z_q, y_s, y_q, temperature, ways=3):
    """Loops over queries; and the share of right answers."""
    z_s, z_q = np.float64(z_s), unit(np.float64(z_q))
    values, right = [], []
    for z, y in zip(z_q, y_q, strict=True):
        if loss == 'prototype':
            keys = [unit(np.stack([z_s[y_s == c].mean(0) for c in range(ways)]))]
        else:  # each set has one shot of each class
            shots = len(z_s) // ways
            keys = [unit(np.stack([z_s[y_s == c][k] for c in range(ways)])) for k in range(shots)]
        for of_set in keys:
            values.append(-log_softmax(of_set @ z / temperature)[y])
            right.append((of_set @ z).argmax() == y)
    return np.mean(values), np.mean(right)


@pytest.mark.parametrize('loss', ['prototype', 'infonce'])
def test_losses_of_vectors(loss):
    train = types((6,) * 3, noise=1.5)
    method, state, _ = make(train, train=train, loss=loss, temperature=0.3)
    x = np.random.default_rng(1).permutation(train.x)
    task = episode(x)
    z_s, z_q = (np.asarray(method.embed(state, a)) for a in (task.x_s, task.x_q))
    want, accuracy = loss_in_numpy(loss, z_s, z_q, task.y_s, task.y_q, 0.3)
    _, metrics = step_on(method, state, task)
    assert metrics['loss'] == pytest.approx(want, rel=1e-4)
    assert metrics['accuracy'] == pytest.approx(accuracy)


@pytest.mark.parametrize('loss', ['prototype', 'infonce'])
def test_keys_of_infonce_get_no_gradient(loss):
    """A step of SGD is the slope of the loss, whose keys stay where they were, or don't."""
    train = types((6,) * 3, noise=1.5)
    method, state, _ = make(train, train=train, loss=loss, temperature=0.5)
    task = episode(np.random.default_rng(2).permutation(train.x))
    after, _ = step_on(method, state, task)
    kernel = np.float64(state.params['Dense_0']['kernel'])
    bias = np.float64(state.params['Dense_0']['bias'])

    def value(moved, keys_move):
        z_s, z_q = task.x_s @ (moved if keys_move else kernel) + bias, task.x_q @ moved + bias
        return loss_in_numpy(loss, z_s, z_q, task.y_s, task.y_q, 0.5)[0]

    def slope(at, keys_move):
        step = np.zeros_like(kernel)
        step[at] = 1e-5
        return (value(kernel + step, keys_move) - value(kernel - step, keys_move)) / 2e-5

    moved = (kernel - after.params['Dense_0']['kernel']) / 0.1
    places = [(0, 0), (2, 3), (5, 4)]
    got = [moved[at] for at in places]
    fixed, free = ([slope(at, keys_move) for at in places] for keys_move in (False, True))
    same, other = (free, fixed) if loss == 'prototype' else (fixed, free)
    np.testing.assert_allclose(got, same, rtol=1e-3, atol=1e-5)
    assert np.abs(np.subtract(got, other)).max() > 1e-2


def test_loss_of_pairs():
    """All pairs of a query and a shot, right ones twice among three classes; BN of the batch."""
    train = maps((6,) * 3)
    method, state, _ = make(train, 'pair_relation', train=train, loss='relation')
    task = episode(train.x)
    _, metrics = step_on(method, state, task)
    net = configs.build_net(configs.defaults('anomaly', 'synthetic', 'pair_relation').net)
    net = net.clone(**SMALL['pair_relation'])
    variables = {'params': state.params, **state.extra}
    apply = lambda train: jax.jit(
        lambda v, *x: net.apply(v, *x, train=train, mutable=['batch_stats'])[0]
    )(variables, task.x_s, task.x_q)
    logits = apply(True)
    values, right = [], []
    for row, y in zip(np.float64(logits), task.y_q, strict=True):
        for logit, y_s in zip(row, task.y_s, strict=True):
            p = 1 / (1 + np.exp(-logit))
            values.append(-2 * np.log(p) if y == y_s else -np.log(1 - p))
        right.append(np.argmax([row[task.y_s == c].mean() for c in range(3)]) == y)
    assert metrics['loss'] == pytest.approx(np.mean(values), rel=1e-4)
    assert metrics['accuracy'] == pytest.approx(np.mean(right))
    # What it answers is the mean over a class's pairs, by the running statistics.
    logits = np.asarray(apply(False))
    want = np.stack([logits[:, task.y_s == c].mean(1) for c in range(3)], 1)
    np.testing.assert_allclose(jax.jit(method.predict)(state, task), want, rtol=1e-4, atol=1e-5)
    assert method.embed is None


@pytest.mark.parametrize(
    ('loss', 'net'),
    [('prototype', 'beside'), ('infonce', 'residual'), ('relation', 'pair_relation')],
)
def test_training_and_validation(loss, net):
    data = types((8,) * 4, noise=0.5) if net == 'beside' else maps((8,) * 4)
    method, state, data = make(data, net, train=data, loss=loss)
    step = make_step(method, batch_size=2, steps_per_call=2)
    state, metrics = step(state, data, KEY)
    assert int(state.step) == 2 and np.isfinite(metrics['loss']).all()
    values = method.evaluate(state, data, KEY, 'val')
    assert {k: v.shape for k, v in values.items()} == {'3-way 1-shot': (6,), '2-way 2-shot': (6,)}


def test_pairs_in_blocks_are_those_at_once(monkeypatch):
    """Of maps of 3x3 with six shots: 2 queries at a time, 1, or all."""
    data = maps((8,) * 3)
    method, state, _ = make(data, 'pair_relation', loss='relation')
    x_s, x_q = data.x[:6], data.x[6:]
    task = Episode(x_s, np.arange(6) // 2, x_q, np.zeros(18, np.int32), np.arange(3))
    found = []
    for block, size in ((2 * 6 * 9 * 512, 2), (1, 1), (1 << 26, 2427)):
        monkeypatch.setattr(anomaly, 'BLOCK', block)
        assert anomaly.queries_at_once(x_s) == size
        found.append(method.predict(state, task))
    assert found[0].shape == (18, 3)
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-4, atol=1e-5)


# How real types are told apart.


def test_micro_and_macro_of_a_known_classifier():
    """Type c leans more to the direction of all of type a than its items do to each other."""
    counts, dim = (8, 4, 3), 6
    x = np.zeros((15, dim), np.float32)
    x[:8, 0] = 1
    x[8:12, 1] = 1
    for i in range(3):  # cosines: 0.9 with a; 0.81 with another, 0.85 with the mean of two
        x[12 + i, [0, 2 + i]] = 0.9, 0.19**0.5
    test = from_arrays(x, np.repeat([0, 1, 2], counts), ('a', 'b', 'c'), group=np.arange(15))
    values = evaluated(test, 'beside', fields={'features': dim}, draws=7)
    assert list(values) == ['1-shot macro', '1-shot micro', '2-shot macro', '2-shot micro']
    # With one shot 7, 3 and 2 are asked for, with two 6, 2 and 1; those of c are called a.
    for name, want in zip(values, (2 / 3, 10 / 12, 2 / 3, 8 / 9), strict=True):
        np.testing.assert_allclose(values[name], np.full(7, want), rtol=1e-6)


def test_well_separated_types_are_all_named():
    values = evaluated(types((7, 4, 9, 12), noise=0.02, dim=12), 'beside')
    assert all((v == 1).all() and v.shape == (20,) for v in values.values())


def test_near_copies_help_only_where_their_group_is_not_known():
    """Noise with labels that mean nothing, of which items are there several times."""
    noise = types((40,) * 3, noise=50.0, dim=24, copies=3)
    values = evaluated(noise, 'beside', draws=40, shots=(1, 5))
    assert all(abs(v.mean() - 1 / 3) < 0.04 for v in values.values())
    # Where every item is a group, queries meet their own copies among the shots.
    noise = types((6,) * 3, noise=50.0, dim=24, copies=6)
    unknown = noise.replace(group=np.arange(len(noise.x), dtype=np.int32))
    assert evaluated(unknown, 'beside', shots=(5,))['5-shot macro'].mean() > 0.45


def test_small_types_stand_aside_and_are_named(caplog):
    """A type of two groups, whose many copies are near to another type, isn't in 2-shot tasks."""
    test = types((6, 2, 6), dim=12, copies=4)
    # Type 1 looks as type 0: with it in the task not all can be right.
    x = test.x.copy()
    x[test.label == 1] = x[test.label == 0][0]
    with caplog.at_level('WARNING'):
        values = evaluated(test.replace(x=x), 'beside', shots=(1, 2))
    assert '2-shot: type 1 left out, no more groups than shots' in caplog.text
    assert '1-shot' not in caplog.text
    assert (values['2-shot macro'] == 1).all() and (values['2-shot micro'] == 1).all()
    # Types 0 and 1 have equal scores, which go to one of the two.
    assert (values['1-shot macro'] < 0.9).all()


def test_types_that_can_be_asked_for():
    group = [0, 1, 2, 3, 4, 4, 4, 5, 6, 7]
    dataset = from_arrays(np.zeros((10, 1)), [0, 0, 0, 0, 1, 1, 1, 1, 2, 2], group=group)
    got = [draws.askable(dataset, shots) for shots in (1, 2, 3, 4)]
    assert got == [(0, 1, 2), (0,), (0,), ()]


def test_types_that_share_groups_take_their_shots_from_the_same_ones():
    """Three types on each of eleven parts: five shots use up five parts, six are left."""
    label, group = np.repeat(np.arange(3), 11), np.tile(np.arange(11), 3)
    x = types((11, 11, 11), noise=0.1).x
    test = from_arrays(x, label, ('a', 'b', 'c'), group=group)
    method, state, data = make(test, shots=(1, 5), draws=8)
    values = method.evaluate(state, data, KEY, 'test')
    assert all(np.isfinite(v).all() for v in values.values())
    found = method.export(state, data, KEY)
    for support, answers in zip(found['5-shot support'], found['5-shot answers'], strict=True):
        used = np.unique(group[np.asarray(support)])
        assert len(used) == 5
        np.testing.assert_array_equal(np.asarray(answers) >= 0, ~np.isin(group, used))


def test_every_draw_of_shared_groups_has_queries():
    """Types on a ring of groups, each with one more than shots: the last group of all is free."""
    test = from_arrays(
        types((3, 3, 3), noise=0.1).x, np.repeat(np.arange(3), 3), ('a', 'b', 'c'),
        group=[0, 1, 2, 2, 3, 4, 4, 5, 0],
    )  # fmt: skip
    values = evaluated(test, shots=(2,), draws=40)
    assert all(np.isfinite(v).all() for v in values.values())


def test_the_same_key_draws_the_same():
    test = types((6, 7, 5), noise=1.0)
    a, b = (evaluated(test) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    c = evaluated(test, key=jax.random.key(9))
    assert any((a[name] != c[name]).any() for name in a)


def averaged(test, support, shift=0, shots=(1, 2)):
    """What mean images are seen as: the direction of a type, or of the one `shift` further on."""
    means = np.stack([test.x[test.label == c].mean(0) for c in range(len(test.names))])
    seen = np.broadcast_to(np.roll(means, -shift, 0), (len(support), *means.shape))
    return {'support': np.array(support), **{f'{k}-shot': seen for k in shots}}


@pytest.mark.parametrize('shift', [0, 1])
def test_mean_images_stand_for_their_types(shift):
    """With those of other types all answers are wrong, whatever the shots are."""
    test = types((6, 7, 5), noise=0.02, dim=12, copies=2)
    rng = np.random.default_rng(0)
    rows = [[rng.choice(np.flatnonzero(test.label == c)[::2], 2, False) for c in range(3)]
            for _ in range(20)]  # fmt: skip
    given = {'averaged': averaged(test, rows, shift), 'prototypes': 'pixels'}
    method, state, data = make(test, 'beside', **given)
    values = method.evaluate(state, data, KEY, 'test')
    assert all((v == (shift == 0)).all() and v.shape == (20,) for v in values.values())
    found = method.export(state, data, KEY)
    np.testing.assert_array_equal(found['2-shot support'], rows)
    for support, answers in zip(rows, np.asarray(found['2-shot answers']), strict=True):
        np.testing.assert_array_equal(answers < 0, np.isin(test.group, test.group[support]))
        free = answers >= 0
        np.testing.assert_array_equal(answers[free], (test.label[free] - shift) % 3)


def test_what_is_exported_is_what_was_evaluated():
    """Each draw's shots, and its answers to what shares no group with them."""
    test = types((6, 7, 2, 5), noise=1.0, copies=2)
    method, state, data = make(test, draws=30)
    values = method.evaluate(state, data, KEY, 'test')
    found = jax.tree.map(np.asarray, method.export(state, data, KEY))
    for shots, kept in ((1, [0, 1, 2, 3]), (2, [0, 1, 3])):
        support, answers = (found[f'{shots}-shot {kind}'] for kind in ('support', 'answers'))
        assert support.shape == (20, len(kept), shots) and answers.shape == (20, 40)
        for i, (rows, named) in enumerate(zip(support, answers, strict=True)):
            np.testing.assert_array_equal(
                test.label[rows], np.repeat(kept, shots).reshape(-1, shots)
            )
            free = ~np.isin(test.group, test.group[rows]) & np.isin(test.label, kept)
            np.testing.assert_array_equal(named >= 0, free)
            right = named[free] == test.label[free]
            assert values[f'{shots}-shot micro'][i] == pytest.approx(right.mean())
            shares = [right[test.label[free] == c].mean() for c in kept]
            assert values[f'{shots}-shot macro'][i] == pytest.approx(np.mean(shares))


# What can't be.


@pytest.mark.parametrize(
    ('given', 'match'),
    [
        ({'loss': 'infonec'}, r"method\.loss='infonec' is unknown; did you mean 'infonce'"),
        ({'temperature': 0.0}, r'config\.method\.temperature=0\.0 must be > 0'),
        ({'draws': 0}, r'config\.method\.draws=0 must be >= 1'),
        ({'adapt_steps': -1}, r'config\.method\.adapt_steps=-1 must be >= 0'),
        ({'shots': ()}, r'method\.shots=\(\): need numbers >= 1'),
        ({'shots': (0, 1)}, r'method\.shots=\(0, 1\): need numbers >= 1'),
        (
            {'shots': (1, 5)},
            r'shots=\(1, 5\): 5 leave fewer than two types .*\(type 1\); use fewer',
        ),
        ({'shots': (9,)}, r'9 leave fewer than two types .*\(none\)'),
    ],
    ids=str,
)
def test_fields_that_can_not_be_are_refused(given, match):
    with pytest.raises(InputError, match=match):
        make(types((5, 6, 2)), **given)


def test_mean_images_have_to_be_there():
    test = types((5, 6))
    match = r"'pixels' needs 20 mean images of 2 shots: .*average_shots=\(1, 2\).*draws=20"
    few = averaged(test, np.zeros((19, 2, 2), int), shots=(2,))
    enough = averaged(test, np.zeros((20, 2, 2), int), shots=(1,))
    for found in (enough, few | {'1-shot': enough['1-shot']}):
        with pytest.raises(InputError, match=match):
            make(test, prototypes='pixels', averaged=found)
    with pytest.raises(InputError, match=r"prototypes='pixel' is unknown; did you mean 'pixels'"):
        make(test, prototypes='pixel')


def test_types_need_groups():
    with pytest.raises(InputError, match=r'config\.data\.name=mvtec and config\.residual\.encoder'):
        make(types((5, 6)).replace(group=None))


def test_made_up_ones_are_needed_to_train():
    test = types((5, 6))
    with pytest.raises(InputError, match=r'3-way episodes need 3 classes, but train has 2'):
        make(test, train=test)
    with pytest.raises(
        InputError, match=r"need 4 items a class, but in train class 'type 1' has 3"
    ):
        make(test, train=types((5, 3, 6)))


@pytest.mark.parametrize(('section', 'given'), [('augment', {'shift': 1.0}),
                                                ('eval', {'retrieval': True})])  # fmt: skip
def test_what_it_does_not_do_is_refused(section, given):
    config = configs.defaults('anomaly', 'synthetic', 'mlp')
    config.method.shots = (1, 2)
    config[section].update(given)
    with pytest.raises(InputError, match='supports neither augmentation nor retrieval'):
        anomaly.build(config, Data({'test': types((5, 6))}))
