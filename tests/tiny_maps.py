"""Nets of no weights worth the name, whose maps can be computed by hand."""

import jax.numpy as jnp
import numpy as np

from anyshot_jax.encoders import ImageEncoder
from anyshot_jax.ops.preprocess import resize


def net(which='tiny', *, size=0, dtype='float32'):
    """Two maps: twice the image's 2x2 means, and the means of 4x4 with their squares."""

    def maps(params, x):
        pool = lambda s: x.reshape(len(x), x.shape[1] // s, s, x.shape[2] // s, s, 3).mean((2, 4))
        coarse = pool(4)
        return {'stride2': params * pool(2), 'stride4': jnp.concatenate([coarse, coarse**2], -1)}

    ready = lambda x: jnp.repeat(resize(x, size or 16).mean(-1, keepdims=True), 3, -1) / 255
    return ImageEncoder('tiny', None, jnp.float32(2), ready, 0, f'tiny{size}', maps=maps)


def unshuffled(which='tiny', *, size=0, dtype='float32'):
    """Maps of 1/2 and 1/4 whose channels are a cell's pixels: patches far from each other."""

    def maps(params, x):
        cells = lambda s: x.reshape(len(x), x.shape[1] // s, s, x.shape[2] // s, s).transpose(
            0, 1, 3, 2, 4
        )
        flat = lambda a: params * a.reshape(*a.shape[:3], -1)
        return {f'stride{s}': flat(cells(s)) for s in (2, 4)}

    ready = lambda x: resize(x, size or 16).mean(-1) / 255
    return ImageEncoder('tiny', None, jnp.float32(2), ready, 0, f'unshuffled{size}', maps=maps)


def named(which='tiny', *, size=0, dtype='float32'):
    """Maps by the names that the real nets have, 128 channels each: the image's means."""

    def maps(params, x):
        cut = lambda s: x[:, : x.shape[1] // s * s, : x.shape[2] // s * s]
        pool = lambda x, s: x.reshape(len(x), x.shape[1] // s, s, -1, s, 1).mean((2, 4))
        repeated = lambda s: jnp.repeat(pool(cut(s), s), 128, -1)
        return {f'stride{s}': repeated(s) for s in (8, 16, 32)}

    ready = lambda x: resize(x, size or 64).mean(-1, keepdims=True) / 255
    return ImageEncoder('tiny', None, {}, ready, 0, f'named{size}', maps=maps)


def bright_squares(n, seed, bright=0):
    """Noise around grey; `bright` is added to a square of 6x6."""
    rng = np.random.default_rng(seed)
    x = rng.normal(128, 8, (n, 16, 16, 1))
    mask = np.zeros((n, 16, 16), bool)
    for m, row, column in zip(mask, *rng.integers(0, 10, (2, n)), strict=True):
        m[row : row + 6, column : column + 6] = bright > 0
    return np.clip(x + bright * mask[..., None], 0, 255).astype(np.uint8), mask
