"""The forms for accelerators beside those for CPUs: the same values and derivatives, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyshot_jax import target
from anyshot_jax.episodes.episodic import log_likelihood
from anyshot_jax.nets import conv as convolution
from anyshot_jax.nets.conv import conv
from anyshot_jax.nets.conv4 import Conv4
from anyshot_jax.nets.norm import batch_norm
from anyshot_jax.nets.pool import max_pool
from anyshot_jax.ops.coreset import greedy_coreset
from anyshot_jax.ops.neighbours import nearest
from anyshot_jax.ops.transport import sinkhorn

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def chain(f, order):
    """A value of f, or the gradient of a scalar of it, or of that one's."""

    def up_to(n):
        if n == 0:
            return f
        inner = up_to(n - 1)

        def scalar(*args):
            return sum(jnp.sum(jnp.sin(y)) for y in jax.tree.leaves(inner(*args)))

        return lambda *args: jax.grad(scalar, tuple(range(len(args))))(*args)

    return up_to(order)


def on(platform, f, *args, order=0):
    with target.written_for(platform):
        return jax.tree.map(np.asarray, jax.jit(chain(f, order))(*args))


def same(got, want):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), got, want)


def by_task(f, *axes):
    return lambda *args: jax.vmap(f, axes)(*args)


FORMS = {  # function, arguments
    'few channels': (conv, (normal(4, 7, 6, 1), normal(3, 3, 1, 8))),
    'wide': (conv, (normal(4, 6, 5, 6), normal(3, 3, 6, 7))),
    'valid': (lambda x, w: conv(x, w, padding='VALID'), (normal(2, 6, 5, 4), normal(3, 2, 4, 5))),
    'strided': (lambda x, w: conv(x, w, stride=2), (normal(2, 6, 5, 4), normal(3, 3, 4, 5))),
    'own kernels': (by_task(conv, 0, 0), (normal(3, 2, 5, 4, 6), normal(3, 3, 3, 6, 5))),
    'own kernels, few channels': (
        by_task(conv, 0, 0), (normal(3, 2, 5, 4, 1), normal(3, 3, 3, 1, 5))
    ),
    'one kernel': (by_task(conv, 0, None), (normal(3, 2, 5, 4, 6), normal(3, 3, 6, 5))),
    'one image': (by_task(conv, None, 0), (normal(2, 5, 4, 6), normal(3, 3, 3, 6, 5))),
    'members and tasks': (
        by_task(by_task(conv, 0, None), 0, 0), (normal(2, 3, 2, 4, 5, 6), normal(2, 3, 3, 6, 5))
    ),
    'pooling': (max_pool, (normal(2, 7, 6, 3),)),
    'pooling of minima': (lambda x: max_pool(x, jnp.array([1, -1, 1])), (normal(2, 7, 6, 3),)),
    'normalisation': (
        lambda *args: batch_norm(*args)[0], (2 + normal(2, 3, 4, 5, 2), normal(2), normal(2))
    ),
}  # fmt: skip


# No net takes the second derivative of a strided convolution, which has none on a CPU.
CASES = [(name, n) for name in FORMS for n in (0, 1, 2) if (name, n) != ('strided', 2)]


@pytest.mark.parametrize('name, order', CASES)
@pytest.mark.parametrize('platform', ['gpu', 'tpu'])
def test_each_form(platform, name, order):
    f, args = FORMS[name]
    same(on(platform, f, *args, order=order), on('cpu', f, *args, order=order))


@pytest.mark.parametrize('platform, form', [('gpu', 'rows'), ('gpu', 'grouped'), ('tpu', '')])
def test_the_meta_gradient_of_a_net(platform, form, monkeypatch):
    """Of two inner steps for each of three tasks: all forms together, second order."""
    if form:
        monkeypatch.setattr(convolution, 'GPU_BY_TASK', form)
    # So wide that the first block's mean is that of its input.
    net = Conv4(18, 2, (True, True), ('SAME', 'SAME'))
    x = jnp.asarray(np.random.default_rng(0).uniform(size=(3, 4, 8, 8, 1)))
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), x[0], train=True))['params']
    params = jax.tree.map(lambda s: 0.5 * normal(*s.shape, seed=s.size), shapes)

    def loss(params, x):
        y = net.apply({'params': params}, x, train=False, transductive=True)
        return jnp.mean(jnp.sin(y))

    def adapted(params, x):
        for _ in range(2):
            params = jax.tree.map(lambda p, g: p - g, params, jax.grad(loss)(params, x))
        return loss(params, x)

    gradient = jax.grad(lambda params: jax.vmap(adapted, (None, 0))(params, x).mean())
    same(on(platform, gradient, params), on('cpu', gradient, params))


def test_second_order_convolves_no_image_as_a_kernel():
    """On a GPU no kernel is larger than the net's, however often it is differentiated by it."""
    x, w = normal(2, 14, 14, 6), normal(3, 3, 6, 5)

    def twice(x, w):
        first = jax.grad(lambda w, x: jnp.sum(jnp.sin(conv(x, w))))
        return jax.grad(lambda x: jnp.sum(jnp.sin(first(w, x))))(x)

    def padded(platform):
        """The largest padding of a convolution: of a 3x3 one 1, of a derivative by a kernel 1."""
        with target.written_for(platform):
            eqns = _equations(jax.make_jaxpr(twice)(x, w).jaxpr)
        found = [e.params for e in eqns if e.primitive.name == 'conv_general_dilated']
        assert found
        return max(n for p in found for pads in p['padding'] for n in pads)

    assert padded('gpu') == 1
    assert padded('tpu') == 12  # as JAX writes it; that compiler swaps the two


def _equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, 'jaxpr', inner)
                if hasattr(inner, 'eqns'):
                    yield from _equations(inner)


def test_a_loss_scatters_nothing():
    f = lambda scores: log_likelihood(scores, jnp.array([0, 2])).sum()
    eqns = _equations(jax.make_jaxpr(jax.grad(f))(normal(2, 3)).jaxpr)
    assert not any('scatter' in e.primitive.name for e in eqns)


def test_a_coreset_is_the_same():
    x = jnp.float32(normal(300, 5))
    with jax.enable_x64(False):
        chosen = on('gpu', lambda x: greedy_coreset(jax.random.key(0), x, 20), x)
        np.testing.assert_array_equal(chosen, greedy_coreset(jax.random.key(0), x, 20))


def test_sinkhorn_comes_to_the_same_plan():
    """Also where it needs several restarts; the sums are right by themselves."""
    cost = 4 * np.abs(normal(12, 3))
    rows, columns = np.ones(12), np.array([3.0, 2.0, 1.0])
    plan = lambda cost: sinkhorn(cost, rows, columns, tolerance=1e-13, max_rounds=5000)[0]
    got = on('gpu', plan, cost)
    np.testing.assert_allclose(got.sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(got.sum(0), [6, 4, 2], rtol=1e-12)
    same(got, on('cpu', plan, cost))


def test_the_nearest_are_the_same():
    x, bank = normal(30, 4), normal(70, 4, seed=1)
    same(on('gpu', lambda x, bank: nearest(x, bank, 3), x, bank), nearest(x, bank, 3))


@pytest.mark.parametrize('platform', ['gpu', 'tpu'])
def test_a_tie_goes_to_the_first(platform):
    x = jnp.array([[0.0, 2, 1, 1], [2, 2, 1, 1], [0, 0, 5, 4], [0, 0, 5, 5]])[None, :, :, None]
    want = [[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    got = on(platform, jax.grad(lambda x: jnp.sum(max_pool(x))), x)
    np.testing.assert_array_equal(got[0, :, :, 0], want)
    # The derivative of that by what comes back picks the same entries.
    twice = lambda u: jax.grad(lambda g: jnp.vdot(jax.vjp(max_pool, x)[1](g)[0], u))(max_pool(x))
    u = jnp.arange(16.0).reshape(x.shape)
    np.testing.assert_array_equal(on(platform, twice, u)[0, :, :, 0], [[1, 2], [8, 10]])


def test_the_form_is_that_of_the_platform():
    assert target.on_cpu() == (jax.default_backend() == 'cpu')
    with target.written_for('tpu'):
        assert target.platform() == 'tpu' and not target.on_cpu()
    assert target.platform() == jax.default_backend()
