"""The colours of images, pixel by pixel with Python's colorsys."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyshot_jax.ops.colour import COLOURS, colour_shares
from anyshot_jax.types import InputError


def named(r, g, b):
    """The colour of one pixel by the words of the docstring."""
    # Rounded: a float just beside a border is on it.
    h, s, v = (round(number, 9) for number in colorsys.rgb_to_hsv(r / 255, g / 255, b / 255))
    if v < 0.2:
        return 'black'
    if s < 0.15:
        return 'grey' if v < 0.75 else 'white'
    if h >= 0.93 or h < 0.04:
        return 'red'
    if h < 0.11:
        return 'brown' if v < 0.6 else 'orange'
    ends = {'yellow': 0.19, 'green': 0.44, 'cyan': 0.53, 'blue': 0.72, 'purple': 0.93}
    return next(name for name, end in ends.items() if h < end)


def counted(image):
    names = [named(*(int(c) for c in pixel)) for pixel in image.reshape(-1, 3)]
    return [names.count(c) / len(names) for c in COLOURS]


def random_images(seed):
    """Saturated, pale and dark ones, and one whose channels are 25 apart: hues on the borders."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (4, 23, 31, 3))
    x[1] = 170 + x[1] // 6
    x[2] //= 4
    x[3, :, :, :2], x[3, :, :, 2] = (0, 25), x[3, :, :, 2] // 10
    x[3] = 50 + rng.permuted(x[3], axis=-1)
    return x.astype(np.uint8)


@pytest.mark.parametrize('seed', range(3))
def test_shares_are_colorsyss(seed):
    x = random_images(seed)
    want = np.array([counted(image) for image in x])
    assert (want.sum(0) > 0).all()  # every colour is tried
    got = jax.jit(colour_shares)(x)
    assert got.dtype == jnp.float32 and got.shape == (4, 11)
    np.testing.assert_allclose(got, want, atol=1e-6)
    np.testing.assert_allclose(got.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(colour_shares(x[1:2]), got[1:2], atol=1e-6)  # alone


@pytest.mark.parametrize(
    ('pixel', 'want'),
    [
        ((0, 0, 0), 'black'), ((50, 0, 0), 'black'), ((51, 0, 0), 'red'), ((0, 0, 50), 'black'),
        ((51, 51, 51), 'grey'), ((191, 191, 191), 'grey'), ((192, 192, 192), 'white'),
        ((255, 255, 255), 'white'), ((200, 171, 171), 'white'), ((200, 170, 170), 'red'),
        ((255, 0, 0), 'red'), ((100, 76, 0), 'yellow'), ((25, 6, 0), 'black'),
        ((250, 60, 0), 'orange'), ((250, 59, 0), 'red'), ((153, 70, 0), 'orange'),
        ((152, 70, 0), 'brown'), ((139, 69, 19), 'brown'), ((255, 165, 0), 'orange'),
        ((255, 255, 0), 'yellow'), ((0, 128, 0), 'green'), ((0, 255, 255), 'cyan'),
        ((0, 0, 255), 'blue'), ((255, 0, 255), 'purple'), ((128, 0, 128), 'purple'),
        ((255, 0, 107), 'red'), ((255, 0, 108), 'purple'), ((255, 192, 203), 'red'),
    ],
)  # fmt: skip
def test_colours_by_hand(pixel, want):
    shares = np.asarray(colour_shares(np.full((1, 2, 3, 3), pixel, np.uint8)))[0]
    assert dict(zip(COLOURS, shares, strict=True)) == {c: float(c == want) for c in COLOURS}


def test_one_channel_is_grey():
    x = np.array([[0, 50, 51, 191], [192, 255, 100, 100]], np.uint8)[None, :, :, None]
    got = colour_shares(x)
    np.testing.assert_allclose(got[0, :3], [2 / 8, 4 / 8, 2 / 8])
    np.testing.assert_array_equal(got, colour_shares(np.repeat(x, 3, -1)))


@pytest.mark.parametrize('x', [np.zeros((2, 8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.uint8),
                               np.zeros((2, 8, 8, 3), np.float32)])  # fmt: skip
def test_what_is_no_image_is_refused(x):
    with pytest.raises(InputError, match='uint8 images'):
        colour_shares(x)
