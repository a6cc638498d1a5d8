"""Images made ready for an encoder, beside Pillow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from anyshot_jax.ops.preprocess import Preprocessing, preprocess, resize
from anyshot_jax.types import InputError

HOW = Preprocessing(8, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))


def textured(h, w, seed=0):
    """Blobs, edges and noise, so that every frequency is there."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8)).resize((w, h), 3)
    x = np.asarray(coarse).astype(int) + rng.integers(-40, 41, (h, w, 3))
    x[h // 3 : h // 2, w // 4 : w // 2] = 255
    return np.clip(x, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    'shape', [(64, 64), (224, 224), (300, 300), (37, 37), (90, 131), (131, 90)]
)
def test_resize_is_pillows_bicubic(shape):
    h, w = shape
    x = textured(h, w)
    short, (top, left) = min(shape), ((h - min(shape)) // 2, (w - min(shape)) // 2)
    square = Image.fromarray(x).crop((left, top, left + short, top + short))
    want = np.asarray(square.resize((112, 112), Image.Resampling.BICUBIC)).astype(float)
    got = np.asarray(jax.jit(resize, static_argnums=1)(x[None], 112))[0]
    assert np.abs(got - want).mean() < 0.05  # grey levels; Pillow's weights have 22 bits
    assert np.abs(got - want).max() <= 1


def test_a_image_of_the_right_size_is_only_scaled():
    x = np.full((2, 8, 8, 3), 255, np.uint8)
    x[1] = 0
    got = preprocess(x, how=HOW)
    np.testing.assert_allclose(got[0, 3, 3], [1.0, 3.0, 1.0], atol=1e-6)
    np.testing.assert_allclose(got[1, 3, 3], [-1.0, -1.0, 0.0], atol=1e-6)


def test_grey_becomes_three_channels():
    grey = textured(20, 20)[None, :, :, :1]
    got = preprocess(grey, how=HOW._replace(mean=(0, 0, 0), std=(1, 1, 1)))
    want = preprocess(np.repeat(grey, 3, -1), how=HOW._replace(mean=(0, 0, 0), std=(1, 1, 1)))
    assert got.shape == (1, 8, 8, 3)
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize('x', [np.zeros((2, 8, 8, 4), np.uint8), np.zeros((2, 8), np.uint8),
                               jnp.zeros((2, 8, 8, 3))])  # fmt: skip
def test_what_is_no_image_is_refused(x):
    with pytest.raises(InputError, match='an encoder takes uint8 images'):
        preprocess(x, how=HOW)
