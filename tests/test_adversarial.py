"""The critic's penalty by hand, the contrast against a slow loop."""

import jax
import jax.numpy as jnp
import numpy as np

from anyshot_jax.ops.adversarial import contrast, gradient_penalty


def test_gradient_penalty_by_hand():
    x = jnp.array([[3.0, 4.0], [0.0, 0.5]])
    # The slope of |x|^2 / 2 is x, of length 5 and 0.5: (4^2 + 0.5^2) / 2.
    np.testing.assert_allclose(gradient_penalty(lambda x: (x**2).sum(-1) / 2, x), 8.125, rtol=1e-6)
    # That of a.x is a everywhere.
    plane = lambda a: gradient_penalty(lambda x: x @ a, x)
    np.testing.assert_allclose(plane(jnp.array([0.6, 0.8])), 0, atol=1e-12)
    # d/da (|a| - 1)^2 = 2 (|a| - 1) a / |a|: a derivative of a derivative.
    np.testing.assert_allclose(jax.grad(plane)(jnp.array([3.0, 4.0])), [4.8, 6.4], rtol=1e-5)
    assert np.isfinite(jax.grad(plane)(jnp.zeros(2))).all()


def slow(anchor, other, y, y_other, temperature, own):
    means = []
    for i in range(len(anchor)):
        values = []
        apart = [anchor[i] @ other[j] for j in range(len(other)) if y[i] != y_other[j]]
        for j in range(len(other)):
            if y[i] == y_other[j] and not own[i, j]:
                s = np.exp(anchor[i] @ other[j] / temperature)
                values.append(-np.log(s / (s + np.exp(np.array(apart) / temperature).sum())))
        if values:
            means.append(np.mean(values))
    return np.mean(means) if means else 0.0


def test_contrast():
    rng = np.random.default_rng(0)
    f = rng.normal(size=(7, 3))
    f /= np.linalg.norm(f, axis=1, keepdims=True)
    y = np.array([0, 0, 1, 1, 1, 2, 3])
    own = np.eye(7, dtype=bool)
    want = slow(f, f, y, y, 0.2, own)
    np.testing.assert_allclose(contrast(f, f, y, y, 0.2, own=jnp.array(own)), want, rtol=1e-5)
    other, y_other = f[::-1][:4].copy(), np.array([0, 1, 1, 5])
    want = slow(f, other, y, y_other, 0.2, np.zeros((7, 4), bool))
    np.testing.assert_allclose(contrast(f, other, y, y_other, 0.2), want, rtol=1e-5)


def test_contrast_without_a_pair_is_zero():
    f = jnp.eye(3)
    loss = lambda f: contrast(f, f, jnp.arange(3), jnp.arange(3), 0.1, own=jnp.eye(3, dtype=bool))
    value, slope = jax.value_and_grad(loss)(f)
    assert value == 0 and np.all(np.asarray(slope) == 0)
    # Everyone of one class: nothing to tell apart, no NaN.
    same = jax.value_and_grad(lambda f: contrast(f, f, jnp.zeros(3), jnp.zeros(3), 0.1))(f)
    assert np.isfinite(same[0]) and np.isfinite(same[1]).all()
