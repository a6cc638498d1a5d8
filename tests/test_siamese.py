"""Siamese losses against loops over pairs and triplets, and what the method does with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from anyshot_jax import config as configs
from anyshot_jax.ops.contrastive import (
    balanced_mean,
    contrastive,
    euclidean,
    pair_cross_entropy,
    triplet,
)
from anyshot_jax.types import Data, Episode, InputError, from_arrays

pytestmark = pytest.mark.slow

KEY = jax.random.key(5)


def batch(num=14, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, num)
    return cdist(*[rng.normal(size=(num, 3))] * 2), y


@pytest.mark.parametrize('squared', [False, True])
def test_contrastive_is_a_loop_over_pairs(squared):
    dist, y = batch()
    same, other = [], []
    for i in range(len(y)):
        for j in range(len(y)):
            d, apart = dist[i, j], max(0, 2.0 - dist[i, j])
            if i != j and y[i] == y[j]:
                same.append(d**2 if squared else d)
            elif i != j:
                other.append(apart**2 if squared else apart)
    want = (np.mean(same) + np.mean(other)) / 2
    alike, own = y[:, None] == y, np.eye(len(y), dtype=bool)
    value = contrastive(dist, alike, 2.0, squared=squared)
    np.testing.assert_allclose(balanced_mean(value, alike, ~own), want, rtol=1e-6)


@pytest.mark.parametrize('weighted', [False, True])
def test_cross_entropy_of_pairs_is_a_loop(weighted):
    """-log p of right pairs, `positive` times, and -log (1 - p) of others; 0 isn't counted."""
    rng = np.random.default_rng(0)
    logits, same = 3 * rng.normal(size=(5, 7)), rng.uniform(size=(5, 7)) < 0.3
    weight = rng.choice([0, 0.5, 2], (5, 7)) if weighted else None
    total, count = 0.0, 0
    for (i, j), logit in np.ndenumerate(logits):
        p = 1 / (1 + np.exp(-logit))
        w = 1 if weight is None else weight[i, j]
        total += w * (-4 * np.log(p) if same[i, j] else -np.log(1 - p))
        count += w > 0
    got = pair_cross_entropy(jnp.float32(logits), same, 4.0, weight)
    np.testing.assert_allclose(got, total / count, rtol=1e-5)
    # Sure and wrong: finite, and so is the slope. None counts: 0.
    value, slope = jax.value_and_grad(pair_cross_entropy)(
        jnp.full((1, 1), -200.0), np.full((1, 1), True), 2.0
    )
    np.testing.assert_allclose([value, slope[0, 0]], [400, -2])
    assert pair_cross_entropy(jnp.float32(logits), same, 4.0, np.zeros((5, 7))) == 0


def triplet_loop(dist, y, margin, mining):
    losses = []
    for a in range(len(y)):
        positives = [p for p in range(len(y)) if p != a and y[p] == y[a]]
        negatives = [n for n in range(len(y)) if y[n] != y[a]]
        if not positives or not negatives:
            continue
        if mining == 'batch_hard':
            hard = max(dist[a, p] for p in positives) - min(dist[a, n] for n in negatives)
            losses.append(max(0, hard + margin))
            continue
        for p in positives:
            beyond = [dist[a, n] for n in negatives if dist[a, n] > dist[a, p]]
            n = min(beyond) if beyond else max(dist[a, n] for n in negatives)
            losses.append(max(0, dist[a, p] + margin - n))
    return np.mean(losses)


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('mining', ['batch_hard', 'semi_hard'])
def test_triplet_is_a_loop_over_anchors(mining, seed):
    dist, y = batch(seed=seed)
    want = triplet_loop(dist, y, 0.7, mining)
    np.testing.assert_allclose(triplet(KEY, dist, y, 0.7, mining), want, rtol=1e-5)


def test_random_triplets_are_uniform_over_positives_and_negatives():
    """With so large a margin the loss is linear: its mean is that over all triplets."""
    dist, y = batch(10, 3)
    gaps = []
    for a in range(len(y)):
        p, n = [dist[a, (y == y[a]) & (np.arange(len(y)) != a)], dist[a, y != y[a]]]
        if len(p):
            gaps.append(p.mean() + 50 - n.mean())
    keys = jax.random.split(KEY, 4000)
    got = jax.vmap(lambda k: triplet(k, dist, y, 50.0, 'random'))(keys)
    assert abs(got.mean() - np.mean(gaps)) < 4 * got.std() / len(got) ** 0.5
    assert got.std() > 0


@pytest.mark.parametrize('y', [[0, 0, 0], [0, 1, 2], [0]], ids=str)
@pytest.mark.parametrize('mining', ['batch_hard', 'semi_hard', 'random'])
def test_no_triplet_is_no_loss(y, mining):
    z, y = jnp.ones((len(y), 2)), jnp.array(y)  # all at one point, where a root has no derivative

    def loss(z):
        dist = euclidean(jnp.sum((z[:, None] - z[None]) ** 2, -1))
        return triplet(KEY, dist, y, 1.0, mining)

    value, grads = jax.value_and_grad(loss)(z)
    assert value == 0 and np.isfinite(grads).all()


def test_no_pair_of_a_kind_is_no_loss():
    value, one = jnp.full((2, 2), 3.0), jnp.ones((2, 2), bool)
    off = ~jnp.eye(2, dtype=bool)
    assert balanced_mean(value, one, off) == 1.5  # no pair of two classes
    assert balanced_mean(value, ~one, off) == 1.5
    assert balanced_mean(value, one, ~one) == 0


def recipe(**fields):
    config = configs.defaults('siamese', 'synthetic', 'mlp')
    config.net.update({'hidden': (), 'features': 3})
    config.train.update({'ways': 3, 'shots': 1, 'queries': 1})
    config.eval.tasks = ((3, 1),)
    config.num_steps = 10
    config.method.update(fields)
    return config


def features(counts=(6, 6, 6, 6), seed=0):
    label = np.repeat(np.arange(len(counts)), counts)
    x = np.random.default_rng(seed).normal(size=(len(label), 5)).astype(np.float32)
    return from_arrays(x, label)


def build(config, train=None):
    others = {'val': features((20,) * 3), 'test': features((20,) * 3)}
    data = Data({'train': train or features(), **others})
    return configs.find('methods', 'siamese').build(config, data), jax.device_put(data)


def test_twins_are_kochs_pairs():
    """By hand: support c with query c (same) and with query c + 1 (different), cross-entropy."""
    config = recipe(pairs='twins', squash='sigmoid')
    config.optim.update({'name': 'sgd', 'learning_rate': 0.0})
    method, data = build(config)
    state = method.init(KEY, data)
    batch = jax.vmap(lambda k: method.sample(k, data))(jax.random.split(KEY, 2))
    step = jax.vmap(method.update, (None, 0, 0), axis_name='devices')
    one = jax.tree.map(lambda a: a[None], (batch, jax.random.split(KEY, 2)))
    _, metrics = step(state, *one)
    params = jax.tree.map(np.asarray, state.params)
    dense, head = params['net']['Dense_0'], params['head']
    sigmoid = lambda v: 1 / (1 + np.exp(-np.asarray(v, np.float64)))
    twin = lambda x: sigmoid(np.asarray(x) @ dense['kernel'] + dense['bias'])
    losses = []
    for b in range(2):
        z_s, z_q = twin(batch.x_s[b]), twin(batch.x_q[b])
        for c in range(3):
            p = sigmoid(np.abs(z_s[c] - z_q[c]) @ head['kernel'] + head['bias'])
            q = sigmoid(np.abs(z_s[c] - z_q[(c + 1) % 3]) @ head['kernel'] + head['bias'])
            losses += [-np.log(p), -np.log(1 - q)]
    np.testing.assert_allclose(metrics['loss'][0], np.mean(losses), rtol=1e-5)


@pytest.mark.parametrize('fields', [
    {'loss': 'bce'}, {'loss': 'contrastive', 'squared': True},
    {'loss': 'triplet', 'squash': 'unit'},
], ids=lambda f: f['loss'])  # fmt: skip
def test_classes_are_told_apart_and_retrieved_after_training(fields):
    """A class is one direction of five, under noise that a learnt map takes away."""

    def noisy(seed):
        rng = np.random.default_rng(seed)
        label = np.repeat(np.arange(12), 12)
        x = rng.normal(size=(12, 5))[label] + 0.1 * rng.normal(size=(144, 5))
        return from_arrays(np.c_[x, 3 * rng.normal(size=(144, 5))].astype(np.float32), label)

    config = recipe(**fields)
    config.train.update({'ways': 8, 'shots': 2, 'queries': 2})
    config.eval.update({'tasks': ((5, 1),), 'queries': 5, 'episodes': 100, 'retrieval': True})
    config.net.features = 8
    config.optim.learning_rate = 0.02
    data = Data({role: noisy(seed) for seed, role in enumerate(('train', 'val', 'test'))})
    method = configs.find('methods', 'siamese').build(config, data)
    data = jax.device_put(data)
    state = jax.jit(method.init)(KEY, data)
    before = method.evaluate(state, data, KEY, 'test')

    @jax.jit
    def train(state):
        def one(state, i):
            key = jax.random.fold_in(KEY, i)
            batch = method.sample(key, data)
            given = jax.tree.map(lambda a: a[None, None], (batch, key))
            state, metrics = jax.vmap(method.update, (None, 0, 0), axis_name='devices')(
                state, *given
            )
            return jax.tree.map(lambda a: a[0], state), metrics['loss']

        return jax.lax.scan(one, state, jnp.arange(300))

    state, losses = train(state)
    after = method.evaluate(state, data, KEY, 'test')
    assert losses[-30:].mean() < 0.6 * losses[:30].mean()
    assert after['5-way 1-shot'].mean() > before['5-way 1-shot'].mean() + 0.2
    assert after['mAP'].mean() > before['mAP'].mean() + 0.2


def test_classes_with_one_item_are_passed_over():
    train = features((1, 6, 1, 6, 6))
    method, data = build(recipe(), train)
    draw = jax.jit(jax.vmap(lambda k: method.sample(k, data)))
    x = np.asarray(draw(jax.random.split(KEY, 50)).x_s).reshape(-1, 5)
    rows = {tuple(r) for r in np.asarray(train.x).tolist()}
    alone = {tuple(np.asarray(train.x)[i].tolist()) for i in (0, 7)}
    drawn = {tuple(r) for r in x.tolist()}
    assert drawn <= rows and not drawn & alone and len(drawn) == 18
    with pytest.raises(InputError, match='no class of train has 2 items'):
        build(recipe(), features((1, 1, 1)))
    with pytest.raises(InputError, match='3-way episodes need 3 classes'):
        build(recipe(), features((1, 4, 4)))


def test_a_scorer_that_knows_nothing_gets_the_first_class_right():
    method, data = build(recipe())
    state = method.init(KEY, data)
    params = jax.tree.map(jnp.zeros_like, state.params)
    values = method.evaluate(state.replace(params=params), data, KEY, 'test')
    np.testing.assert_allclose(values['3-way 1-shot'], 1 / 3, atol=1e-6)


@pytest.mark.parametrize('fields, message', [
    ({'loss': 'hinge'}, 'method.loss'), ({'squash': 'tanh'}, 'method.squash'),
    ({'mining': 'hard'}, 'method.mining'), ({'margin': 0.0}, 'margin'),
    ({'pairs': 'half'}, 'method.pairs'),
])  # fmt: skip
def test_what_can_not_be_used_is_refused(fields, message):
    with pytest.raises(InputError, match=message):
        build(recipe(**fields))


def test_more_shots_are_averaged():
    method, data = build(recipe(loss='contrastive'))
    state = method.init(KEY, data)
    rng = np.random.default_rng(0)
    x_s, x_q = rng.normal(size=(4, 5)), rng.normal(size=(3, 5))
    y_s = np.array([0, 0, 1, 1])
    episode = Episode(*map(jnp.asarray, (x_s, y_s, x_q, np.zeros(3, int), np.arange(2))))
    z = lambda x: np.asarray(method.embed(state, jnp.asarray(x, jnp.float32)))
    dist = cdist(z(x_q), z(x_s))
    want = -np.stack([dist[:, :2].mean(1), dist[:, 2:].mean(1)], 1)
    np.testing.assert_allclose(method.predict(state, episode), want, rtol=1e-4)
