"""Whitening within classes against plain NumPy in float64."""

import jax
import numpy as np
import pytest

from anyshot_jax.ops.whitening import fit_whitening, standardise, whiten

PARTS = (3, 4)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def items(num, seed=0):
    rng = np.random.default_rng(seed)
    label = np.sort(rng.integers(0, 3, num))
    label[:3] = 0, 1, 2
    spread = np.array([5, 1, 1, 0.1, 1, 2, 1])
    return rng.normal(size=(num, 7)) * spread + 3 * rng.normal(size=(3, 7))[label], label


def plain(x, shift, scale):
    z = (x - shift) / scale
    return np.concatenate([p / np.linalg.norm(p, axis=1, keepdims=True)
                           for p in (z[:, :3], z[:, 3:])], 1)  # fmt: skip


@pytest.mark.parametrize('num', [40, 6])  # more items than dimensions, and fewer
def test_whitening(x64, num):
    x, label = items(num)
    new = items(9, seed=1)[0]
    fitted = jax.jit(fit_whitening, static_argnums=(2, 3))(x, label, 3, PARTS, 0.3)
    got = np.asarray(whiten(fitted, new, PARTS))

    shift, scale = x.mean(0), x.std(0) + 1e-6
    z = plain(x, shift, scale)
    np.testing.assert_allclose(standardise(x, shift, scale, PARTS), z, atol=1e-12)
    around = z - np.stack([z[label == c].mean(0) for c in range(3)])[label]
    cov = around.T @ around / num
    cov = 0.7 * cov + 0.3 * np.trace(cov) / 7 * np.eye(7)
    value, vector = np.linalg.eigh(cov)
    root = vector / np.sqrt(value) @ vector.T
    np.testing.assert_allclose(got, (plain(new, shift, scale) - z.mean(0)) @ root, atol=1e-6)


def test_full_shrinkage_only_scales(x64):
    x, label = items(40)
    fitted = fit_whitening(x, label, 3, (7,), 1.0)
    z = standardise(x, x.mean(0), x.std(0) + 1e-6, (7,))
    ratio = whiten(fitted, x, (7,)) / (z - z.mean(0)[None])
    np.testing.assert_allclose(ratio, float(fitted.rest), rtol=1e-6)


@pytest.mark.parametrize('num', [40, 5])
def test_items_that_are_not_there_change_nothing(x64, num):
    x, label = items(num)
    new = items(9, seed=1)[0]
    without = fit_whitening(x, label, 3, PARTS, 0.3)
    more, none = np.concatenate([x, 1e3 * new]), np.concatenate([label, np.full(9, -1)])
    given = jax.jit(fit_whitening, static_argnums=(2, 3))(more, none, 3, PARTS, 0.3)
    np.testing.assert_allclose(whiten(given, new, PARTS), whiten(without, new, PARTS), atol=1e-8)
