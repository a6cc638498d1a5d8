"""What an accelerator's rounding of factors leaves as it is, emulated on a CPU.

A TPU rounds the factors of a product to bfloat16 (7 bits after the point), a GPU to TF32 (10),
wherever nothing else is asked for, and sums in float32. The same rounding is put into the lowering
of every such product, wherever it comes from: derivatives, vmap, loops.
"""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.interpreters import mlir
from jax._src.lax import convolution
from jax._src.lax import lax as lax_internal
from jax._src.lib.mlir import ir
from jax._src.lib.mlir.dialects import hlo

from anyshot_jax.ops.adversarial import contrast
from anyshot_jax.ops.distance import cosine, squared_euclidean, unit
from anyshot_jax.ops.graph import graph_embedding
from anyshot_jax.ops.innerloop import conjugate_gradient
from anyshot_jax.ops.prototype import class_centres, class_means
from anyshot_jax.ops.transport import sinkhorn
from anyshot_jax.ops.weighting import votes
from anyshot_jax.ops.whitening import fit_whitening, whiten
from anyshot_jax.training import loop

pytestmark = pytest.mark.slow

BITS = {'tf32': 10, 'bfloat16': 7}


@contextlib.contextmanager
def rounding(bits: int):
    """Products that ask for no precision round their factors to so many bits of mantissa."""
    default = (None, jax.lax.Precision.DEFAULT, (jax.lax.Precision.DEFAULT,) * 2)

    def rounded(x, aval):
        if aval.dtype != 'float32':
            return x
        i32 = ir.IntegerType.get_signless(32)
        return hlo.reduce_precision(x, ir.IntegerAttr.get(i32, 8), ir.IntegerAttr.get(i32, bits))

    tables = [mlir._lowerings, *mlir._platform_specific_lowerings.values()]
    before = []
    for primitive in (lax_internal.dot_general_p, convolution.conv_general_dilated_p):
        for table in tables:
            if primitive not in table:
                continue
            old = table[primitive]
            before.append((table, primitive, old))

            def rule(ctx, a, b, *rest, old=old, **params):
                if params.get('precision') in default:
                    a, b = (rounded(v, t) for v, t in zip((a, b), ctx.avals_in, strict=True))
                return old.rule(ctx, a, b, *rest, **params)

            table[primitive] = type(old)(rule, old.inline)
    jax.clear_caches()
    try:
        yield
    finally:
        for table, primitive, old in before:
            table[primitive] = old
        jax.clear_caches()


@pytest.fixture(params=BITS)
def bits(request):
    return BITS[request.param]


def features(seed=0, ways=5, each=8, dim=320):
    """Like a frozen net's: positive, most of them shared, and classes a little apart."""
    rng = np.random.default_rng(seed)
    common, own = 2 + rng.uniform(size=dim), rng.normal(size=(ways, 1, dim))
    x = common + 0.3 * own + 0.3 * rng.normal(size=(ways, each, dim))
    return np.float32(x.reshape(-1, dim)), np.repeat(np.arange(ways), each)


X, Y = features()
SLOPE = np.linspace(1, 2, X.shape[1], dtype=np.float32)  # of a quadratic, along each axis
KINDS = {
    'distances': lambda: squared_euclidean(X, X[::3]),
    'cosines': lambda: cosine(X, X[::3]),
    'class means': lambda: class_means(X, Y, 5),
    'graph': lambda: graph_embedding(X, neighbours=4, power=3, self_weight=0.75),
    'class centres': lambda: class_centres(X[:20], jax.nn.one_hot(Y[:20], 5), X[20:])[1],
    'transport': lambda: sinkhorn(squared_euclidean(X, X[::8]) / 300, jnp.ones(40), jnp.ones(5))[0],
    'votes': lambda: votes(cosine(X, X), Y, jnp.ones(40), 5),
    'contrast': lambda: contrast(unit(X), unit(X[::3]), Y, Y[::3], 0.1),
    'conjugate gradient': lambda: conjugate_gradient(lambda v: SLOPE * v, X[0], steps=3),
    'whitening': lambda: whiten(fit_whitening(X, Y, 5, (320,), 0.5), X, (320,)),
}


@pytest.mark.parametrize('kind', KINDS)
def test_what_is_compared_or_printed_is_the_same(kind, bits):
    """Also edges of the graph and the limit below which an item is unknown: they follow."""
    want = np.asarray(jax.jit(KINDS[kind])())
    with rounding(bits):
        got = np.asarray(jax.jit(KINDS[kind])())
    np.testing.assert_array_equal(got, want)


def test_a_plain_product_is_not(bits):
    """The rounding is at work: 2^-bits of each factor, some of which cancels in the sum."""
    with rounding(bits):
        got = jax.jit(lambda a, b: a @ b)(X, X.T)
    error = np.abs(got - X @ X.T).max() / np.abs(X @ X.T).max()
    assert 2.0 ** -(bits + 7) < error < 2.0**-bits


def test_a_training_under_it_reaches_the_same(bits, tiny_config, tmp_path):
    """Of a convolutional net by MAML: gradients of gradients in few bits."""
    config = lambda: tiny_config('maml', 'conv4', eval__episodes=60, data__noise=0.4)
    want = loop.run(config(), tmp_path / 'exact').means
    with rounding(bits):
        got = loop.run(config(), tmp_path / 'rounded').means
    assert abs(got['3-way 1-shot'] - want['3-way 1-shot']) < 0.05
