"""Convolution, pooling, batch norm and Conv4 against plain forms of the same, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from anyshot_jax.encoders.winograd import pays, winograd
from anyshot_jax.nets.conv import Conv, conv
from anyshot_jax.nets.conv4 import Conv4
from anyshot_jax.nets.norm import BatchNorm, batch_norm
from anyshot_jax.nets.pairs import max_pool_pairs, pair_moments
from anyshot_jax.nets.pool import max_pool
from anyshot_jax.nets.resnet12 import ResNet12
from anyshot_jax.types import InputError

pytestmark = pytest.mark.slow


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def plain_conv(x, w, padding='SAME', stride=1):
    return lax.conv_general_dilated(
        x, w, (stride, stride), padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )


def plain_pool(x):
    h, w = (n // 2 * 2 for n in x.shape[1:3])
    windows = jnp.stack([x[:, i:h:2, j:w:2] for i in (0, 1) for j in (0, 1)])
    # By one index: the gradients of maximum compare again, which another fusion may round
    # otherwise, and that of jnp.max is NaN at --xla_backend_optimization_level=0 (jax 0.10.2).
    largest = jnp.argmax(windows, 0)[None]
    return jnp.take_along_axis(windows, largest, 0)[0]


def derivatives(f, *args, order):
    """Gradient of a scalar of f, or for order 2 of a scalar of that gradient."""

    def loss(*args):
        return jnp.sum(jnp.sin(f(*args)))

    for _ in range(order - 1):

        def loss(*args, inner=loss):
            grads = jax.grad(inner, tuple(range(len(args))))(*args)
            return sum(jnp.sum(jnp.sin(g)) for g in jax.tree.leaves(grads))

    return jax.jit(jax.grad(loss, tuple(range(len(args)))))(*args)


def same(got, want, tolerance=1e-8):
    def check(a, b):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)

    jax.tree.map(check, got, want)


SHAPES = [  # image, kernel, channels in and out, stride
    ((5, 6), (3, 3), 4, 5, 1),
    ((7, 4), (3, 3), 1, 8, 1),
    ((3, 3), (3, 3), 6, 2, 1),
    ((6, 7), (5, 5), 3, 4, 1),
    ((11, 10), (10, 10), 1, 3, 1),
    ((9, 8), (4, 2), 5, 5, 1),
    ((4, 5), (1, 1), 3, 2, 1),
    ((7, 8), (3, 3), 4, 5, 2),
    ((8, 7), (3, 3), 1, 5, 2),
    ((6, 5), (1, 1), 3, 2, 2),
    ((2, 2), (3, 3), 3, 4, 1),
    ((1, 3), (5, 4), 3, 2, 2),
]


@pytest.mark.parametrize(
    'shape, padding',
    [(s, 'SAME') for s in SHAPES] + [(s, 'VALID') for s in SHAPES if min(s[0]) >= max(s[1])],
    ids=str,
)
def test_conv(x64, shape, padding):
    image, kernel, c, o, stride = shape
    x, w = normal(4, *image, c), normal(*kernel, c, o, seed=1)
    want = np.pad(x, ((0, 0), *_same(image, kernel, stride), (0, 0))) if padding == 'SAME' else x
    want = np.lib.stride_tricks.sliding_window_view(want, kernel, (1, 2))[:, ::stride, ::stride]
    want = np.einsum('nhwcij,ijco->nhwo', want, w)
    same(jax.jit(lambda x, w: conv(x, w, padding=padding, stride=stride))(x, w), want)


@pytest.mark.parametrize('order', [1, 2])
@pytest.mark.parametrize(
    'shape, padding', [(SHAPES[i], p) for i, p in ((0, 'SAME'), (0, 'VALID'), (1, 'SAME'))], ids=str
)
def test_conv_derivatives(x64, shape, padding, order):
    image, kernel, c, o, _ = shape
    args = normal(4, *image, c), normal(*kernel, c, o, seed=1)
    got = derivatives(lambda x, w: conv(x, w, padding=padding), *args, order=order)
    same(got, derivatives(lambda x, w: plain_conv(x, w, padding), *args, order=order))


@pytest.mark.parametrize('shape', SHAPES[5:], ids=str)
def test_conv_first_derivatives(x64, shape):
    image, kernel, c, o, stride = shape
    args = normal(4, *image, c), normal(*kernel, c, o, seed=1)
    got = derivatives(lambda x, w: conv(x, w, stride=stride), *args, order=1)
    same(got, derivatives(lambda x, w: plain_conv(x, w, stride=stride), *args, order=1))


def _same(image, kernel, stride):
    total = [
        max((-(-n // stride) - 1) * stride + k - n, 0) for n, k in zip(image, kernel, strict=1)
    ]
    return [(t // 2, t - t // 2) for t in total]


@pytest.mark.skipif(jax.default_backend() != 'cpu', reason='only a CPU needs the loop')
def test_conv_in_slices(x64):
    """Big enough for the loop over slices of the images."""
    args = normal(4, 56, 28, 40), normal(3, 3, 40, 64, seed=1)
    assert 'scan' in str(jax.make_jaxpr(conv)(*args))
    same(derivatives(conv, *args, order=1), derivatives(plain_conv, *args, order=1))


@pytest.mark.parametrize('axes', [(0, 0), (0, None), (None, 0)])
@pytest.mark.parametrize('c', [1, 6])
def test_conv_by_task(x64, c, axes):
    """Under vmap over x, w or both: as one by one, and never a (grouped) convolution."""
    x, w = normal(3, 2, 5, 5, c), normal(3, 3, 3, c, 8, seed=1)
    args = [a if axis == 0 else a[0] for a, axis in zip((x, w), axes, strict=True)]

    def each(x, w):
        x, w = (a if axis == 0 else [a] * 3 for a, axis in zip((x, w), axes, strict=True))
        return jnp.stack([plain_conv(x[i], w[i]) for i in range(3)])

    same(jax.jit(jax.vmap(conv, axes))(*args), each(*args))
    got = derivatives(jax.vmap(conv, axes), *args, order=1)
    same(got, derivatives(each, *args, order=1))
    if jax.default_backend() == 'cpu':
        grads = jax.grad(lambda x, w: jnp.sum(jax.vmap(conv, axes)(x, w)), (0, 1))
        assert 'conv_general' not in str(jax.make_jaxpr(grads)(*args))


def test_conv_keeps_the_dtype():
    x, w = normal(2, 5, 5, 4), normal(3, 3, 4, 6, seed=1)
    got = conv(jnp.bfloat16(x), jnp.bfloat16(w))
    assert got.dtype == jnp.bfloat16
    want = plain_conv(jnp.float32(jnp.bfloat16(x)), jnp.float32(jnp.bfloat16(w)))
    np.testing.assert_allclose(np.float32(got), want, rtol=1e-2, atol=1e-2)
    grads = jax.grad(lambda x, w: jnp.sum(jnp.float32(conv(x, w))), (0, 1))(
        jnp.bfloat16(x), jnp.bfloat16(w)
    )
    assert [g.dtype for g in grads] == [jnp.bfloat16] * 2


def test_conv_rejects_bad_shapes():
    with pytest.raises(ValueError, match='needs x'):
        conv(jnp.zeros((1, 5, 5, 2)), jnp.zeros((3, 3, 3, 4)))
    with pytest.raises(ValueError, match='larger than the image'):
        conv(jnp.zeros((1, 5, 2, 3)), jnp.zeros((3, 3, 3, 4)), padding='VALID')


def test_conv_module():
    net = Conv(5, strides=2)
    x = jnp.float32(normal(2, 3, 7, 7, 4))
    params = net.init(jax.random.key(0), x)
    assert jax.tree.map(jnp.shape, params) == {'params': {'kernel': (3, 3, 4, 5), 'bias': (5,)}}
    params['params']['bias'] += 2
    want = plain_conv(x.reshape(6, 7, 7, 4), params['params']['kernel'], stride=2) + 2
    np.testing.assert_allclose(net.apply(params, x), want.reshape(2, 3, 4, 4, 5), atol=1e-5)


@pytest.mark.parametrize('size', [(4, 6), (7, 5)])
def test_max_pool_and_its_derivatives(x64, size):
    x = normal(3, *size, 2)
    np.testing.assert_array_equal(max_pool(x), plain_pool(x))
    for order in (1, 2):
        same(derivatives(max_pool, x, order=order), derivatives(plain_pool, x, order=order))
    got = max_pool(x, jnp.array([1, -1]))
    np.testing.assert_array_equal(got[..., 0], plain_pool(x)[..., 0])
    np.testing.assert_array_equal(got[..., 1], -plain_pool(-x)[..., 1])


def test_max_pool_gives_a_tie_to_the_first():
    x = jnp.array([[0.0, 2, 1, 1], [2, 2, 1, 1], [0, 0, 5, 4], [0, 0, 5, 5]])[None, :, :, None]
    got = jax.grad(lambda x: jnp.sum(max_pool(x)))(x)[0, :, :, 0]
    want = [[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(got, want)
    with pytest.raises(ValueError, match='H, W >= 2'):
        max_pool(jnp.zeros((2, 1, 4, 3)))


def plain_norm(x, scale, bias, eps=1e-5):
    mean, var = x.mean((-4, -3, -2), keepdims=True), x.var((-4, -3, -2), keepdims=True)
    expand = (1,) * (x.ndim - 1) + (-1,)
    return (x - mean) / jnp.sqrt(var + eps) * scale.reshape(expand) + bias.reshape(expand)


@pytest.mark.parametrize('lead', [(), (2,)])
def test_batch_norm_and_its_derivatives(x64, lead):
    x = 2 + 3 * normal(*lead, 4, 3, 3, 2)
    scale, bias = jnp.array([1.5, -0.5]), jnp.array([0.3, -2])
    y, mean, var = batch_norm(x, scale, bias)
    np.testing.assert_allclose(y, plain_norm(x, scale, bias), atol=1e-12)
    np.testing.assert_allclose(mean, x.mean((-4, -3, -2)), atol=1e-12)
    np.testing.assert_allclose(var, x.var((-4, -3, -2)), atol=1e-12)
    for order in (1, 2):
        got = derivatives(lambda *a: batch_norm(*a)[0], x, scale, bias, order=order)
        same(got, derivatives(plain_norm, x, scale, bias, order=order))


def test_batch_norm_does_not_cancel():
    """Mean 1e5 deviations off zero: variance to 1e-5 of itself, as float32 sums give it."""
    x = np.float32(1e3 + 1e-2 * normal(20, 6, 6, 3))
    ones, zeros = jnp.ones(3), jnp.zeros(3)
    y, mean, var = batch_norm(jnp.asarray(x), ones, zeros)
    exact = np.float64(x)
    np.testing.assert_allclose(var, exact.var((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-6)
    want = (exact - exact.mean((0, 1, 2))) / np.sqrt(exact.var((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(y, want, atol=1e-4)
    constant = batch_norm(jnp.full((2, 3, 3, 3), 7.3), ones, zeros)
    np.testing.assert_allclose(constant[0], 0, atol=1e-3)
    assert (constant[2] >= 0).all()


def test_batch_norm_module():
    net = BatchNorm(momentum=0.8)
    x = jnp.float32(2 + 3 * normal(5, 4, 3, 3, 2))  # five tasks
    variables = net.init(jax.random.key(0), x, train=True)
    stats = variables['batch_stats']
    np.testing.assert_array_equal(stats['mean'], 0)
    np.testing.assert_array_equal(stats['var'], 1)

    y, new = net.apply(variables, x, train=True, mutable=['batch_stats'])
    np.testing.assert_allclose(y, plain_norm(x, jnp.ones(2), jnp.zeros(2)), atol=1e-5)
    new = new['batch_stats']
    mean, var = x.mean((1, 2, 3)).mean(0), x.var((1, 2, 3)).mean(0)
    np.testing.assert_allclose(new['mean'], 0.2 * mean, rtol=1e-5)
    np.testing.assert_allclose(new['var'], 0.8 + 0.2 * var, rtol=1e-5)

    inductive = net.apply({**variables, 'batch_stats': new}, x, train=False)
    want = (x - new['mean'].reshape(1, 1, 1, 1, -1)) / jnp.sqrt(new['var'] + 1e-5).reshape(
        1, 1, 1, 1, -1
    )
    np.testing.assert_allclose(inductive, want, atol=1e-5)
    # The batch's own statistics: nothing kept, none needed.
    alone = net.apply({'params': variables['params']}, x, train=False, transductive=True)
    np.testing.assert_array_equal(alone, y)


def plain_conv4(net, params, x):
    """Of one task."""
    for i in range(net.blocks):
        p = params[f'norm{i + 1}']
        x = plain_conv(x, params[f'conv{i + 1}']['kernel'], net.padding[i])
        x = jnp.maximum(plain_norm(x, p['scale'], p['bias']), 0)
        if net.pools[i]:
            x = plain_pool(x)
    return x.reshape(len(x), -1) if net.flatten else x


NETS = {  # net, image, order of derivative
    'second order': (Conv4(18, 2, (True,) * 2, ('SAME',) * 2), (8, 8, 1), 2),
    'colour': (Conv4(features=5), (19, 22, 3), 1),
    'slices': (Conv4(64, 2, (True, False), ('SAME',) * 2), (120, 112, 1), 1),
    'relation': (
        Conv4(18, 4, (True, True, False, False), ('VALID', 'VALID', 'SAME', 'SAME'), False),
        (17, 16, 1),
        1,
    ),
}


@pytest.mark.parametrize('net, image, order', NETS.values(), ids=NETS)
def test_conv4_and_its_derivatives(x64, net, image, order):
    x = np.random.default_rng(3).uniform(size=(4, *image))
    shapes = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=True), x)['params']
    # Scales of both signs: pooling comes before them.
    params = jax.tree.map(lambda s: 0.5 * normal(*s.shape, seed=s.size), shapes)

    @jax.jit
    def ours(params):
        return net.apply({'params': params}, x, train=False, transductive=True)

    def plain(params):
        return plain_conv4(net, params, x)

    same(ours(params), jax.jit(plain)(params))
    got = derivatives(ours, params, order=order)
    same(got, derivatives(plain, params, order=order), tolerance=1e-6)


@pytest.mark.parametrize('kind, fields, order', [
    (Conv4, {'features': 18}, 2), (ResNet12, {'features': (4, 6, 8, 10)}, 0),
])  # fmt: skip
def test_nets_compute_in_bfloat16(kind, fields, order):
    """Values and gradients of gradients near those of float32, and float32 at the ends."""
    x = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 1), np.uint8)
    variables = jax.jit(lambda x: kind(**fields).init(jax.random.key(0), x, train=False))(x)
    params = variables['params']

    def outputs(dtype):
        net = kind(**fields, compute_dtype=dtype)
        f = lambda p: net.apply({'params': p}, x, train=False, transductive=True)
        loss = lambda p: jnp.mean(f(p)[:, 0] ** 2)
        twice = jax.grad(lambda p: optax.tree.norm(jax.grad(loss)(p)))
        functions = (f, jax.grad(loss), twice)[: order + 1]
        return jax.jit(lambda p: [function(p) for function in functions])(params)

    for got, want in zip(outputs('bfloat16'), outputs('float32'), strict=True):
        assert {a.dtype for a in jax.tree.leaves(got)} == {jnp.dtype('float32')}
        got, want = (np.concatenate(list(map(np.ravel, jax.tree.leaves(t)))) for t in (got, want))
        difference = np.linalg.norm(got - want) / np.linalg.norm(want)
        assert 1e-4 < difference < 0.1  # 8 bits of mantissa
    with pytest.raises(InputError, match='need float32 or bfloat16'):
        outputs('float16')


@pytest.mark.parametrize('transductive', [False, True])
def test_conv4_by_task(transductive):
    """[T, N, H, W, C], vmap over x, and vmap over weights too, are each task by itself."""
    net = Conv4(18, 2, (True,) * 2, ('SAME',) * 2)
    x = np.random.default_rng(0).integers(0, 256, (3, 4, 16, 16, 1), np.uint8)
    variables = net.init(jax.random.key(0), x[0], train=True)
    apply = jax.jit(lambda v, x: net.apply(v, x, train=False, transductive=transductive))
    want = np.stack([apply(variables, t) for t in x])
    assert want.shape == (3, 4, 288)
    np.testing.assert_allclose(apply(variables, np.float32(x) / 255), want, atol=1e-5)
    np.testing.assert_allclose(apply(variables, x), want, atol=1e-5)
    np.testing.assert_allclose(jax.vmap(apply, (None, 0))(variables, x), want, atol=1e-5)
    tiled = jax.tree.map(lambda a: jnp.stack([a] * 3), variables)
    np.testing.assert_allclose(jax.vmap(apply)(tiled, x), want, atol=1e-5)


def test_conv4_learns_its_running_statistics():
    net = Conv4(18, 2, (True,) * 2, ('SAME',) * 2)
    x = np.random.default_rng(0).integers(0, 256, (2, 4, 16, 16, 1), np.uint8)
    variables = net.init(jax.random.key(0), x, train=True)
    train = jax.jit(lambda v, x: net.apply(v, x, train=True, mutable=['batch_stats']))
    for _ in range(120):
        y, new = train(variables, x[:1])
        variables = {**variables, **new}
    np.testing.assert_allclose(net.apply(variables, x[:1], train=False), y, atol=1e-2)
    for block, of in ((1, x[:1]), (1, x)):  # the first layer's are those of its convolution
        fresh = net.init(jax.random.key(0), x, train=True)
        _, new = train(fresh, of)
        out = plain_conv(
            np.float32(of.reshape(-1, 16, 16, 1)) / 255, fresh['params'][f'conv{block}']['kernel']
        ).reshape(len(of), -1, 18)
        stats = new['batch_stats'][f'norm{block}']
        np.testing.assert_allclose(stats['mean'], 0.1 * out.mean(1).mean(0), atol=1e-5)
        np.testing.assert_allclose(stats['var'], 0.9 + 0.1 * out.var(1).mean(0), rtol=1e-4)


@pytest.mark.parametrize('order', [1, 2])
def test_pairs_are_pooled_without_the_sums(x64, order):
    q, s = 3 + normal(2, 3, 5, 4, 6), normal(2, 4, 5, 4, 6, seed=1)
    sign = np.array([1, -1, 1, -1, -1, 1])

    def sums(q, s):
        return (q[:, :, None] + s[:, None]).reshape(-1, 5, 4, 6)

    def plain(q, s):
        x = sign.reshape(1, 1, 1, -1)
        return (plain_pool(sums(q, s) * x) * x).reshape(2, 12, 2, 2, 6)

    pooled = lambda q, s: max_pool_pairs(q, s, sign)
    same(pooled(q, s), plain(q, s))
    same(derivatives(pooled, q, s, order=order), derivatives(plain, q, s, order=order))

    def moments(q, s):
        x = sums(q, s).reshape(2, -1, 6)
        return x.mean(1), x.var(1)

    same(pair_moments(q, s), moments(q, s))
    same(
        derivatives(lambda *x: sum(pair_moments(*x)), q, s, order=order),
        derivatives(lambda *x: sum(moments(*x)), q, s, order=order),
    )


@pytest.mark.parametrize('size', [(8, 8), (7, 10), (5, 3), (1, 1)])
def test_winograd_is_the_convolution(x64, size):
    x, w = normal(3, *size, 6), normal(3, 3, 6, 5, seed=1)
    same(jax.jit(winograd)(x, w), plain_conv(x, w))


def test_winograd_where_it_pays():
    large, small = jnp.zeros((2, 30, 28, 64)), jnp.zeros((2, 27, 30, 64))
    w = jnp.zeros((3, 3, 64, 128))
    assert pays(large, w, 1) == (jax.default_backend() == 'cpu')
    assert not pays(small, w, 1) and not pays(large, w, 2) and not pays(large, w[:1, :1], 1)
    assert not pays(large, w[..., :32], 1) and not pays(large.astype(jnp.bfloat16), w, 1)
