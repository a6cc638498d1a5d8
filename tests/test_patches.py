"""Patch features in closed form against the explicit unfolding and pooling, in float64."""

import jax
import numpy as np
import pytest

from anyshot_jax.ops import patches
from anyshot_jax.types import InputError


def pooled(x, num):
    """Adaptive average pooling of the last axis, as defined: floor and ceil of the ends."""
    size = x.shape[-1]
    ends = [(int(np.floor(i * size / num)), int(np.ceil((i + 1) * size / num)))
            for i in range(num)]  # fmt: skip
    return np.stack([x[..., a:b].mean(-1) for a, b in ends], -1)


def unfolded(x):
    """[N, h, w, C] -> [N, h, w, C * 9], flattened as (C, 3, 3), zeros outside."""
    n, h, w, c = x.shape
    wide = np.zeros((n, h + 2, w + 2, c))
    wide[:, 1:-1, 1:-1] = x
    taps = [wide[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
    return np.stack(taps, -1).reshape(n, h, w, 9 * c)


def resized(x, shape):
    """Bilinear, half-pixel centres, one axis after the other, coordinates cut at the edge."""
    for axis, size in zip((1, 2), shape, strict=True):
        old = x.shape[axis]
        at = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, old - 1)
        part = (at - low).reshape([-1 if a == axis else 1 for a in range(4)])
        x = np.take(x, low, axis) * (1 - part) + np.take(x, high, axis) * part
    return x


def oracle(maps, dim):
    shape = max(m.shape[1:3] for m in maps)
    return pooled(np.concatenate([pooled(resized(unfolded(m), shape), dim) for m in maps], -1), dim)


def make(*shapes):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(2, *s)).astype(np.float32) for s in shapes]


@pytest.mark.parametrize(
    ('shapes', 'dim'),
    [
        (((8, 8, 512), (4, 4, 1024)), 1024),  # ResNet-50's widths
        (((6, 6, 12), (3, 3, 24)), 24),  # the same shape of problem, narrower
        (((6, 4, 7), (3, 2, 11)), 13),  # no bin ends where a channel does
        (((5, 5, 10), (3, 3, 10), (2, 2, 21)), 16),  # three layers, odd sizes
        (((4, 4, 6),), 6),
    ],
)
def test_closed_form(shapes, dim):
    maps = make(*shapes)
    got = jax.jit(patches.locally_aware, static_argnums=1)(maps, dim)
    np.testing.assert_allclose(got, oracle([m.astype(float) for m in maps], dim), atol=1e-6)


def test_resnet_50_in_words():
    """Spec: dims 0..511 are (9 box + x) / 10, the others means of two channels of up(box)."""
    two, three = make((8, 8, 512), (4, 4, 1024))
    got = patches.locally_aware([two, three], 1024)
    box = unfolded(two).reshape(2, 8, 8, 512, 9).mean(-1)
    np.testing.assert_allclose(got[..., :512], (9 * box + two) / 10, atol=1e-6)
    up = resized(unfolded(three).reshape(2, 4, 4, 1024, 9).mean(-1), (8, 8))
    np.testing.assert_allclose(got[..., 512:], up.reshape(2, 8, 8, 512, 2).mean(-1), atol=1e-6)


def test_all_channels():
    two, three = make((6, 6, 5), (3, 3, 7))
    got = patches.locally_aware([two, three])
    want = [unfolded(m).reshape(*m.shape, 9).mean(-1) for m in (two, three)]
    np.testing.assert_allclose(got, np.concatenate([want[0], resized(want[1], (6, 6))], -1),
                               atol=1e-6)  # fmt: skip


def test_too_many_dims_are_refused():
    with pytest.raises(InputError, match=r'dim=28 must be 0\.\.27'):
        patches.locally_aware(make((4, 4, 3)), 28)
