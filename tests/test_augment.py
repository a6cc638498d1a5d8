"""Transforms against NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from anyshot_jax.episodes import augment

KEY = jax.random.key(3)
MOVES = ('degrees', 'shear', 'scale', 'shift')
affine = jax.jit(augment.affine, static_argnames=MOVES)


def images(*shape, dtype=np.uint8):
    x = np.random.default_rng(0).integers(0, 256, shape)
    return x.astype(dtype) if dtype == np.uint8 else (x / 255).astype(dtype)


@pytest.mark.parametrize('k', range(4))
@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_turn_is_rot90(k, dtype):
    x = images(3, 5, 5, 2, dtype=dtype)
    want = np.stack([np.rot90(one, k) for one in x])
    for turn in (augment.turn, jax.jit(augment.turn)):  # k traced or not
        got = turn(x, k)
        np.testing.assert_array_equal(got, want)
        assert got.dtype == dtype


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
@pytest.mark.parametrize('size', [(6, 6), (5, 8), (1, 1)])
def test_affine_of_nothing_is_the_identity(dtype, size):
    x = images(4, *size, 3, dtype=dtype)
    got = affine(KEY, x)
    np.testing.assert_array_equal(got, x)
    assert got.dtype == dtype


def uniform(n):
    """The seven numbers in -1..1 that affine draws for each image."""
    return np.asarray(jax.random.uniform(KEY, (7, n), minval=-1, maxval=1), np.float64)


CASES = {
    'degrees': {'degrees': 180.0},
    'shear': {'shear': 0.4},
    'scale': {'scale': 0.5},
    'shift': {'shift': 4.0},
    'all': {'degrees': 25.0, 'shear': 0.3, 'scale': 0.2, 'shift': 2.0},
}


@pytest.mark.parametrize('moves', CASES.values(), ids=CASES)
@pytest.mark.parametrize('size', [(9, 9), (7, 12)])
def test_affine_is_scipys(moves, size):
    """The same matrices, from the same random numbers, through ndimage.affine_transform."""
    x = images(6, *size, 2, dtype=np.float32)
    got = np.asarray(affine(KEY, x, **moves))
    scale, shear, shift = (moves.get(k, 0) for k in ('scale', 'shear', 'shift'))
    mid = (np.array(size) - 1) / 2
    for i, u in enumerate(uniform(len(x)).T):
        t = np.radians(u[0] * moves.get('degrees', 0))
        rotate = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])
        stretch = np.array([[1 + u[1] * scale, u[3] * shear], [u[4] * shear, 1 + u[2] * scale]])
        xy = rotate @ stretch  # (column, row) of the target -> of the source
        matrix = xy[::-1, ::-1]  # SciPy counts (row, column)
        offset = mid + shift * u[[6, 5]] - matrix @ mid
        # SciPy drops to zero at the border; with a frame of zeros it fades, as here.
        padded = np.pad(x[i], ((2, 2), (2, 2), (0, 0)))
        for c in range(2):
            want = ndimage.affine_transform(
                padded[..., c], matrix, offset + 2, output_shape=size, order=1, cval=0.0
            )
            np.testing.assert_allclose(got[i, ..., c], want, atol=1e-4)


def test_shift_moves_by_as_much_as_it_says():
    """A single lit pixel goes where the drawn shift sends it, each image by its own."""
    x = np.zeros((5, 21, 21, 1), np.float32)
    x[:, 10, 10] = 1
    got = np.asarray(affine(KEY, x, shift=8.0))[..., 0]
    for one, u in zip(got, uniform(5).T, strict=True):
        centre = ndimage.center_of_mass(one)
        np.testing.assert_allclose(centre, (10 - 8 * u[6], 10 - 8 * u[5]), atol=1e-3)
    assert len(np.unique(got.reshape(5, -1).argmax(1))) == 5


def test_draws_differ_by_key_and_uint8_is_rounded():
    x = images(2, 8, 8, 1)
    as_float = affine(KEY, x.astype(np.float32), degrees=30.0)
    as_int = affine(KEY, x, degrees=30.0)
    np.testing.assert_array_equal(as_int, np.round(as_float).astype(np.uint8))
    other = affine(jax.random.key(4), x, degrees=30.0)
    assert not jnp.array_equal(as_int, other)
