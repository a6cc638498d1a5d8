"""The inner loops on quadratics, whose descent and minimum have closed forms."""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyshot_jax.ops.innerloop import adapt, adapt_implicit, conjugate_gradient

STEPS, LR = 4, 0.1


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def problem():
    """A symmetric positive definite [5, 5], and vectors b (of the task), c (wanted), p (start)."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(5, 5))
    return a @ a.T / 5 + 0.5 * np.eye(5), *rng.normal(size=(3, 5))


def quadratic(p, a, b):
    """p'Ap / 2 - b'p of a vector given as two leaves."""
    p = jnp.concatenate(jax.tree.leaves(p))
    return p @ a @ p / 2 - b @ p


def split(p):
    return {'first': p[:2], 'second': {'third': p[2:]}}


def join(tree):
    return np.concatenate(jax.tree.leaves(tree))


def outer(p, lr, a, b, c, **fields):
    """|adapted p - c|^2 / 2."""
    loss = lambda p: (quadratic(p, a, b), None)
    end = adapt(loss, p, steps=STEPS, lr=lr, **fields).params
    return ((jnp.concatenate(jax.tree.leaves(end)) - c) ** 2).sum() / 2


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-10)


def after(p, a, b, lr, steps=STEPS):
    """p_n = p* + (I - lr A)^n (p - p*)."""
    best = np.linalg.solve(a, b)
    return best + np.linalg.matrix_power(np.eye(5) - lr * a, steps) @ (p - best)


def test_descent_is_the_closed_form(problem):
    a, b, _, p = problem
    loss = lambda p: (quadratic(p, a, b), {'value': quadratic(p, a, b)})
    seen = jax.jit(lambda p: adapt(loss, p, steps=STEPS, lr=LR, after=lambda p: p))(split(p))
    path = [after(p, a, b, LR, n) for n in range(STEPS + 1)]
    close(join(seen.params), path[-1])
    for n in range(STEPS):
        close(seen.aux['value'][n], quadratic(path[n], a, b))
        close(join(jax.tree.map(lambda leaf, n=n: leaf[n], seen.after)), path[n + 1])


@pytest.mark.parametrize('remat', [False, True])
@pytest.mark.parametrize('unroll', [1, True])
def test_outer_gradient_is_the_closed_form(problem, remat, unroll):
    a, b, c, p = problem
    error = after(p, a, b, LR) - c
    flags = {'remat': remat, 'unroll': unroll}
    grad = jax.jit(jax.grad(partial(outer, **flags), (0, 1)))
    by_p, by_lr = grad(split(p), LR, a, b, c)
    power = partial(np.linalg.matrix_power, np.eye(5) - LR * a)
    close(join(by_p), power(STEPS) @ error)
    by_hand = -STEPS * a @ power(STEPS - 1) @ (p - np.linalg.solve(a, b))
    close(by_lr, by_hand @ error)


def test_first_order_is_the_gradient_at_the_adapted_point(problem):
    a, b, c, p = problem
    grad = jax.grad(partial(outer, first_order=True))(split(p), LR, a, b, c)
    close(join(grad), after(p, a, b, LR) - c)


def test_first_order_still_learns_its_rate(problem):
    """Of one step p - lr g: the derivative by lr is -g (p1 - c), g a constant or not."""
    a, b, c, p = problem

    def one(lr, first_order):
        loss = lambda p: (quadratic(p, a, b), None)
        end = adapt(loss, p, steps=1, lr=lr, first_order=first_order).params
        return ((end - c) ** 2).sum() / 2

    g = a @ p - b
    for first_order in (False, True):
        close(jax.grad(one)(LR, first_order), -g @ (p - LR * g - c))


@pytest.mark.parametrize('shape', ['number', 'leaf', 'step', 'step and leaf'])
def test_rates_of_every_shape(problem, shape):
    a, b, c, p = problem
    rng = np.random.default_rng(1)
    rate = lambda *size: rng.uniform(0.01, 0.2, size)
    lead = (STEPS,) if 'step' in shape else ()
    sizes = [(2,), (3,)] if 'leaf' in shape else [(), ()]
    lr = {'first': rate(*lead, *sizes[0]), 'second': {'third': rate(*lead, *sizes[1])}}
    run = jax.jit(partial(outer, per_step='step' in shape))
    got = jax.grad(run, 1)(split(p), lr, a, b, c)

    def by_hand(first, third):
        q = p
        for n in range(STEPS):
            row = lambda r, n=n: r[n] if 'step' in shape else r
            scale = np.concatenate([np.full(2, row(first)), np.full(3, row(third))])
            q = q - scale * (a @ q - b)
        return ((q - c) ** 2).sum() / 2

    first, third = lr['first'], lr['second']['third']
    close(run(split(p), lr, a, b, c), by_hand(first, third))
    for i in np.ndindex(first.shape):
        h = np.zeros(first.shape)
        h[i] = 1e-6
        slope = (by_hand(first + h, third) - by_hand(first - h, third)) / 2e-6
        np.testing.assert_allclose(got['first'][i], slope, rtol=1e-7)


def test_rates_for_other_steps_are_refused(problem):
    a, b, c, p = problem
    with pytest.raises(ValueError, match=r'lr has leaves \(3,\) for 4 steps'):
        outer(p, np.full(3, 0.1), a, b, c, per_step=True)


# Implicit.


def implicit(p, a, b, c, steps=2000, cg_steps=5, strength=2.0):
    args = (steps, 0.1, strength, cg_steps)
    end = adapt_implicit(quadratic, p, (a, b), *args)
    return ((jnp.concatenate(jax.tree.leaves(end)) - c) ** 2).sum() / 2


def test_implicit_gradient_is_the_closed_form(problem):
    """p* = (A + lI)^-1 (b + l p), so the gradient is l (A + lI)^-1 (p* - c)."""
    a, b, c, p = problem
    inverse = np.linalg.inv(a + 2 * np.eye(5))
    end = inverse @ (b + 2 * p)
    value, grad = jax.jit(jax.value_and_grad(implicit))(split(p), a, b, c)
    close(value, ((end - c) ** 2).sum() / 2)
    close(join(grad), 2 * inverse @ (end - c))


def test_implicit_gradient_gets_better_with_cg_steps(problem):
    a, b, c, p = problem
    want = join(jax.grad(implicit)(split(p), a, b, c, cg_steps=5))
    errors = []
    for n in range(5):
        got = join(jax.grad(implicit)(split(p), a, b, c, cg_steps=n))
        errors.append(np.abs(got - want).max())
    assert all(late < early for early, late in pairwise(errors))


def test_implicit_gradient_is_that_of_the_unrolled_loop(problem):
    """Proximal descent to the end, differentiated step by step."""
    a, b, c, p = problem

    def unrolled(p):
        start = jnp.concatenate(jax.tree.leaves(p))
        loss = lambda q: (quadratic(q, a, b) + ((q - start) ** 2).sum(), None)
        return ((adapt(loss, start, steps=2000, lr=0.1).params - c) ** 2).sum() / 2

    got, want = jax.grad(implicit)(split(p), a, b, c), jax.grad(unrolled)(split(p))
    close(join(got), join(want))


def test_implicit_under_vmap_is_task_by_task(problem):
    a, _, c, p = problem
    bs = np.random.default_rng(2).normal(size=(3, 5))
    grad = jax.grad(implicit)
    together = jax.vmap(lambda b: grad(split(p), a, b, c))(bs)
    for i in range(3):
        alone = grad(split(p), a, bs[i], c)
        jax.tree.map(lambda t, s, i=i: close(t[i], s), together, alone)


def test_conjugate_gradient_solves(problem):
    a, b, _, _ = problem
    apply = lambda v: split(a @ jnp.concatenate(jax.tree.leaves(v)))
    for steps in (5, 50):  # more steps than dimensions do no harm
        close(join(conjugate_gradient(apply, split(b), steps=steps)), np.linalg.solve(a, b))


def test_conjugate_gradient_stops_at_negative_curvature():
    a = np.diag([2.0, 1.0, -1.0])
    got = conjugate_gradient(lambda v: a @ v, np.array([1.0, 1.0, 3.0]), steps=5)
    np.testing.assert_array_equal(got, np.zeros(3))
    assert not np.asarray(conjugate_gradient(lambda v: a @ v, np.zeros(3), steps=5)).any()
