"""ResNet-12, MLP, full-context embedding, and the nets of relations and of residuals."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyshot_jax.nets.beside import Beside
from anyshot_jax.nets.full_context import FullContext
from anyshot_jax.nets.mlp import MLP
from anyshot_jax.nets.pair_relation import PairRelation
from anyshot_jax.nets.projection import Projection
from anyshot_jax.nets.relation import Relation
from anyshot_jax.nets.residual import Encoder
from anyshot_jax.nets.resnet12 import ResNet12


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def init(net, *x):
    """Variables of the net's shapes in which none is 0 or 1 and could be left out unnoticed."""
    shapes = jax.eval_shape(lambda *x: net.init(jax.random.key(0), *x, train=False), *x)
    rng = np.random.default_rng(5)

    def draw(shape):
        kernel = len(shape) > 1
        return np.float32(0.3 * rng.normal(size=shape) if kernel else rng.uniform(0.5, 1.5, shape))

    return jax.tree.map(lambda s: draw(s.shape), shapes)


def conv(x, w):
    """Convolution with zeros around: every window times the kernel."""
    kh, kw, *_ = w.shape
    x = np.pad(x, ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (kh, kw), (1, 2))
    return np.einsum('nhwcij,ijco->nhwo', windows, w)


def norm(x, p, eps=1e-5):
    """Batch norm by the statistics of x."""
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / np.sqrt(var + eps) * p['scale'] + p['bias']


def pool(x):
    h, w = (n // 2 * 2 for n in x.shape[1:3])
    return np.max([x[:, i:h:2, j:w:2] for i in range(2) for j in range(2)], axis=0)


def leaky(x):
    return np.where(x > 0, x, 0.1 * x)


@pytest.mark.parametrize('lead', [(), (2,)])
def test_resnet12_is_the_papers(lead):
    """Each block, written out in NumPy."""
    net = ResNet12(features=(2, 3, 3, 4))
    x = normal(*lead, 3, 16, 16, 1)
    variables = init(net, x)
    got, _ = jax.jit(lambda v, x: net.apply(v, x, train=True, mutable=['batch_stats']))(
        variables, x
    )
    p = jax.tree.map(np.asarray, variables['params'])

    def one(x):
        for b in range(1, 5):
            part = lambda name, b=b: p[f'block{b}_{name}']
            y = x
            for i in (1, 2, 3):
                y = norm(conv(y, part(f'conv{i}')['kernel']), part(f'norm{i}'))
                y = leaky(y) if i < 3 else y
            short = norm(conv(x, part('short')['kernel']), part('short_norm'))
            x = pool(leaky(y + short))
        return x.mean((1, 2))

    want = np.stack([one(t) for t in x]) if lead else one(x)
    np.testing.assert_allclose(got, want, atol=1e-3)


def test_resnet12_takes_uint8_and_returns_maps():
    net = ResNet12(features=(2, 2, 2, 5), flatten=False)
    x = np.random.default_rng(0).integers(0, 256, (2, 33, 33, 3)).astype(np.uint8)
    variables = init(net, x)
    apply = jax.jit(lambda v, x: net.apply(v, x, train=False))
    got = apply(variables, x)
    assert got.shape == (2, 2, 2, 5)
    np.testing.assert_allclose(got, apply(variables, np.float32(x) / 255), rtol=1e-5)


@pytest.mark.parametrize('hidden', [(), (5,), (5, 4)])
def test_mlp_is_numpys(hidden):
    net = MLP(hidden=hidden, features=3)
    x = normal(2, 4, 6)
    variables = init(net, x)
    want = x
    layers = variables['params']
    for i in range(len(layers)):
        want = want @ layers[f'Dense_{i}']['kernel'] + layers[f'Dense_{i}']['bias']
        want = np.maximum(want, 0) if i < len(hidden) else want
    got = jax.jit(lambda x: net.apply(variables, x, train=True))(x)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_mlp_flattens_images():
    net = MLP(hidden=(4,), features=3)
    x = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 2)).astype(np.uint8)
    variables = init(net, x)
    flat = np.float32(x.reshape(5, -1)) / 255
    apply = jax.jit(lambda x: net.apply(variables, x, train=False))
    assert apply(x).shape == (5, 3)
    np.testing.assert_allclose(apply(x), apply(flat), rtol=1e-5)


@pytest.mark.parametrize('lead', [(), (2,)])
@pytest.mark.parametrize('mode', ['train', 'inductive', 'transductive'])
def test_relation_is_the_network_on_concatenated_pairs(lead, mode):
    """Every (query, class) pair concatenated, class first, through the paper's plain layers."""
    num_class, num_query, c, f = 3, 4, 2, 5
    net = Relation(features=f, hidden=3)
    x_s, x_q = normal(*lead, num_class, 5, 5, c), normal(*lead, num_query, 5, 5, c, seed=1)
    variables = init(net, x_s, x_q)
    kwargs = {'train': mode == 'train', 'transductive': mode == 'transductive'}
    apply = jax.jit(lambda v, *x: net.apply(v, *x, mutable=['batch_stats'], **kwargs))
    got, _ = apply(variables, x_s, x_q)
    p, running = variables['params'], variables['batch_stats']

    def normalise(x, name):
        if mode == 'inductive':
            s = running[name]
            return (x - s['mean']) / np.sqrt(s['var'] + 1e-5) * p[name]['scale'] + p[name]['bias']
        return norm(x, p[name])

    def one(x_s, x_q):
        pairs = np.stack([np.concatenate([s, q], -1) for q in x_q for s in x_s])
        x = conv(pairs, p['pair_kernel']) + p['pair_bias']
        x = np.maximum(pool(normalise(x, 'norm1')), 0)
        x = conv(x, p['conv2']['kernel']) + p['conv2']['bias']
        x = np.maximum(pool(normalise(x, 'norm2')), 0)
        x = np.maximum(x.reshape(len(pairs), -1) @ p['Dense_0']['kernel'] + p['Dense_0']['bias'], 0)
        x = x @ p['Dense_1']['kernel'] + p['Dense_1']['bias']
        return x.reshape(num_query, num_class)

    want = np.stack([one(*t) for t in zip(x_s, x_q, strict=True)]) if lead else one(x_s, x_q)
    assert got.shape == (*lead, num_query, num_class)
    np.testing.assert_allclose(got, want, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize('shape', [(2, 3, 3, 1), (2, 8)])
def test_relation_refuses_maps_that_are_too_small(shape):
    with pytest.raises(ValueError, match='maps of 4x4 or more'):
        init(Relation(), normal(*shape), normal(*shape))


def test_full_context_depends_on_the_support_and_not_on_other_queries():
    net = FullContext(steps=3)
    x_s, x_q = normal(4, 6), normal(5, 6, seed=1)
    variables = init(net, x_s, x_q)
    apply = jax.jit(lambda x_s, x_q: net.apply(variables, x_s, x_q, train=False))
    g, f = apply(x_s, x_q)
    assert g.shape == x_s.shape and f.shape == x_q.shape
    g_other, f_other = apply(x_s, np.concatenate([x_q[:1], normal(4, 6, seed=2)]))
    np.testing.assert_allclose(g, g_other, rtol=1e-6)
    np.testing.assert_allclose(f[0], f_other[0], rtol=1e-5)
    changed = x_s.copy()
    changed[3] += 1
    g_other, f_other = apply(changed, x_q)
    assert (np.abs(g - g_other).max(1) > 1e-4).all()  # each support item sees all, both ways
    assert (np.abs(f - f_other).max(1) > 1e-4).all()


def test_full_context_is_the_papers_recurrence():
    """Appendix A.1 and A.2, step by step with Flax's LSTM cell."""
    net, dim = FullContext(steps=2), 3
    x_s, x_q = normal(4, dim), normal(2, dim, seed=1)
    variables = init(net, x_s, x_q)
    g, f = jax.jit(lambda *x: net.apply(variables, *x, train=False))(x_s, x_q)
    p = variables['params']
    cell = jax.jit(nn.OptimizedLSTMCell(dim).apply)

    def lstm(name, carry, x):
        return cell({'params': p[name]}, carry, x)

    def unroll(name, items):
        carry, out = (np.zeros(dim, np.float32),) * 2, []
        for x in items:
            carry, h = lstm(name, carry, x)
            out.append(h)
        return np.stack(out)

    want_g = x_s + unroll('forwards', x_s) + unroll('backwards', x_s[::-1])[::-1]
    np.testing.assert_allclose(g, want_g, rtol=1e-5, atol=1e-5)
    for i, x in enumerate(x_q):
        h, memory = np.zeros(dim, np.float32), np.zeros(dim, np.float32)
        for _ in range(2):
            a = np.exp(want_g @ h)
            read = (a / a.sum()) @ want_g
            state = np.concatenate([h, read]) @ p['read']['kernel'] + p['read']['bias']
            (memory, h), _ = lstm('query', (memory, state), x)
            h = np.asarray(h) + x
        np.testing.assert_allclose(f[i], h, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('power', [1.0, 0.5])
def test_projection_is_numpys_and_keeps_angles_at_first(power):
    net = Projection(features=6, power=power, length=3.0)
    x = normal(2, 4, 6)
    variables = init(net, x)
    a = np.sign(x) * np.abs(x) ** power
    a /= np.linalg.norm(a, axis=-1, keepdims=True)
    y = a @ np.asarray(variables['params']['kernel'])
    want = 3 * y / np.linalg.norm(y, axis=-1, keepdims=True)
    got = jax.jit(lambda x: net.apply(variables, x, train=True))(x)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    # As wide as the input, an orthogonal matrix only turns.
    first = net.apply(net.init(jax.random.key(0), x, train=False), x, train=False)
    np.testing.assert_allclose(first[0] @ first[0].T, 9 * a[0] @ a[0].T, atol=1e-4)
    zero = net.apply(variables, jnp.zeros((1, 6)), train=False)
    assert not np.asarray(zero).any()


def test_beside_is_numpys_and_keeps_cosines():
    """Half of a cosine is that of the features, half that of their projections."""
    net = Beside(features=3)
    x = normal(2, 4, 6)
    unit = lambda a: a / np.linalg.norm(a, axis=-1, keepdims=True)
    variables = init(net, x)
    y = unit(unit(x) @ np.asarray(variables['params']['kernel']))
    got = jax.jit(lambda x: net.apply(variables, x, train=True))(x)
    assert got.shape == (2, 4, 9)
    np.testing.assert_allclose(
        np.einsum('nad,nbd->nab', got, got),
        (np.einsum('nad,nbd->nab', unit(x), unit(x)) + np.einsum('nad,nbd->nab', y, y)) / 2,
        atol=1e-5,
    )
    np.testing.assert_allclose(got, np.concatenate([unit(x), y], -1) / np.sqrt(2), atol=1e-5)
    assert not np.asarray(net.apply(variables, jnp.zeros((1, 6)), train=False)).any()
    # The first projection keeps lengths and angles of what it can.
    kernel = np.asarray(net.init(jax.random.key(0), x, train=False)['params']['kernel'])
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(3), atol=1e-5)


def normalised(x, variables, name, train):
    """Batch norm by the statistics of x, or by the running ones."""
    p = variables['params'][name]
    if train:
        return norm(x, p)
    s = variables['batch_stats'][name]
    return (x - s['mean']) / np.sqrt(s['var'] + 1e-5) * p['scale'] + p['bias']


@pytest.mark.parametrize('train', [True, False])
def test_the_encoder_of_residuals_is_numpys(train):
    net = Encoder(widths=(3, 5), features=4)
    x = normal(6, 2, 3, 2).astype(np.float16)
    variables = init(net, x)
    got, _ = jax.jit(lambda v, x: net.apply(v, x, train=train, mutable=['batch_stats']))(
        variables, x
    )
    p, want = variables['params'], np.float32(x)
    for i in range(2):
        want = want @ p[f'Dense_{i}']['kernel'] + p[f'Dense_{i}']['bias']
        want = np.maximum(normalised(want, variables, f'BatchNorm_{i}', train), 0)
    want = np.maximum(want.reshape(6, -1) @ p['Dense_2']['kernel'] + p['Dense_2']['bias'], 0)
    want /= np.linalg.norm(want, axis=1, keepdims=True)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize('train', [True, False])
def test_pair_relation_is_the_network_on_joined_maps(train):
    """Every (query, support) pair of maps joined by channels, support first."""
    net = PairRelation(widths=(5, 3), hidden=4)
    x_s, x_q = normal(3, 2, 3, 2), normal(4, 2, 3, 2, seed=1)
    variables = init(net, x_s, x_q)
    got, _ = jax.jit(lambda v, *x: net.apply(v, *x, train=train, mutable=['batch_stats']))(
        variables, x_s, x_q
    )
    p = variables['params']
    x = np.stack([np.concatenate([s, q], -1) for q in x_q for s in x_s])
    x = x @ p['pair_kernel'] + p['pair_bias']
    x = np.maximum(normalised(x, variables, 'BatchNorm_0', train), 0)
    x = x @ p['Dense_0']['kernel'] + p['Dense_0']['bias']
    x = np.maximum(normalised(x, variables, 'BatchNorm_1', train), 0)
    x = x.reshape(12, -1) @ p['Dense_1']['kernel'] + p['Dense_1']['bias']
    x = normalised(x[:, None, None], variables, 'BatchNorm_2', train)[:, 0, 0]
    x = np.maximum(x, 0) @ p['Dense_2']['kernel'] + p['Dense_2']['bias']
    np.testing.assert_allclose(got, x.reshape(4, 3), rtol=2e-3, atol=2e-3)
