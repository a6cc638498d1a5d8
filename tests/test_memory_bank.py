"""The memory bank on a net of one convolution, against its patches taken all at once in NumPy."""

import jax
import numpy as np
import pytest
import tiny_maps

from anyshot_jax.defects import memory_bank
from anyshot_jax.types import InputError


@pytest.fixture
def patcher(monkeypatch):
    monkeypatch.setattr(memory_bank, 'load', tiny_maps.net)
    return memory_bank.load_patcher('tiny', ('stride2', 'stride4'), size=16)


def images(n, seed=0):
    x = np.random.default_rng(seed).integers(0, 256, (n, 16, 16, 1))
    return x.astype(np.uint8)


def all_patches(patcher, x):
    return np.asarray(patcher.apply(patcher.params, x))


def test_shape_and_digest(patcher, monkeypatch):
    assert patcher.shape[2] == 9
    other = memory_bank.load_patcher('tiny', ('stride2',), size=16)
    assert other.shape[2] == 3 and other.digest != patcher.digest


@pytest.mark.parametrize('projection', [0, 4])
def test_the_bank_is_the_coreset_of_all_patches(patcher, projection):
    """Whatever passes at once: 11 images are no multiple of what the devices take."""
    x = images(11)
    every = all_patches(patcher, x).reshape(-1, 9)
    bank = memory_bank.fit(patcher, x, ratio=0.1, projection=projection, seed=5)
    assert bank.shape == (70, 9)  # floor(0.1 * 11 * 64)
    rows = [np.flatnonzero(np.abs(every - b).max(1) < 1e-6) for b in bank]
    chosen = [int(r[0]) for r in rows]
    assert len(set(chosen)) == 70
    small = every
    if projection:
        key = jax.random.split(jax.random.key(5))[0]
        small = every @ np.asarray(memory_bank.random_projection(key, 9, 4))
    # Greedy: each choice is no nearer to those before it than any later one is.
    gap = [np.linalg.norm(small[chosen[:i]] - small[chosen[i]], axis=1).min()
           for i in range(1, 70)]  # fmt: skip
    assert (np.diff(gap[10:]) < 1e-5).all()
    # All else is nearer than the last choice was.
    rest = np.linalg.norm(small[:, None] - small[chosen][None], axis=-1).min(1).max()
    assert rest <= gap[-1] + 1e-5


def test_all_patches_stay_in_order(patcher):
    x = images(3)
    bank = memory_bank.fit(patcher, x, ratio=1.0)
    np.testing.assert_allclose(bank, all_patches(patcher, x).reshape(-1, 9), atol=1e-6)


def test_residuals(patcher):
    """0 where the patch is in the bank, else the difference to the nearest that is."""
    x, new = images(3), images(5, seed=1)
    bank = memory_bank.fit(patcher, x, ratio=1.0)
    assert not memory_bank.residuals(patcher, bank, x).any()
    got = memory_bank.residuals(patcher, bank, new)
    patches = all_patches(patcher, new)
    near = np.linalg.norm(patches[..., None, :] - bank, axis=-1).argmin(-1)
    np.testing.assert_allclose(got, patches - bank[near], atol=1e-6)
    maps = memory_bank.anomaly_maps(patcher, bank, new)
    np.testing.assert_allclose(maps, np.linalg.norm(patches - bank[near], axis=-1), atol=1e-6)


def test_same_seed_same_bits(patcher, monkeypatch):
    x = images(4)
    build = lambda seed: memory_bank.choose(patcher, x, 0.2, 4, seed)[0]
    np.testing.assert_array_equal(build(1), build(1))
    assert (build(1) != build(2)).any()


@pytest.mark.parametrize('fields', [{'ratio': 0.0}, {'ratio': 1.5}, {'projection': -1}])
def test_impossible_shares_are_refused(patcher, fields):
    with pytest.raises(InputError, match=f'^{next(iter(fields))}=.* must be >'):
        memory_bank.fit(patcher, images(2), **fields)


@pytest.mark.parametrize(
    ('layers', 'match'),
    [(('stride3',), r"tiny has no map 'stride3'.*did you mean"), ((), r'layers is empty')],
)
def test_unknown_layers_are_refused(patcher, layers, match):
    with pytest.raises(InputError, match=match):
        memory_bank.load_patcher('tiny', layers)
