"""Objects found among patches, whose cells are known."""

import numpy as np
import pytest

from anyshot_jax import AnomalyDetector
from anyshot_jax.detect import objects
from anyshot_jax.types import InputError


def patches(inside, seed=0, far=3.0):
    """[12, 12, 20]: noise, and where the object is a direction of its own."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(12, 12, 20)).astype(np.float32)
    return x + far * inside[..., None] * rng.normal(size=20).astype(np.float32)


def disc(row, column, radius):
    y, x = np.ogrid[:12, :12]
    return (y - row) ** 2 + (x - column) ** 2 <= radius**2


@pytest.mark.parametrize('seed', range(4))
def test_an_object_is_found_with_its_edge_and_its_holes(seed):
    inside = disc(5 + seed % 2, 6, 4)
    shown = inside.copy()
    shown[4:7, 5:8] = False  # a hole
    found = objects.in_patches(patches(shown, seed)) > 0
    assert found[inside].all()
    near = disc(5 + seed % 2, 6, 4 + 1.5)  # a cell further, corners with it
    assert not found[~near].any()


@pytest.mark.parametrize('seed', range(4))
def test_a_surface_counts_as_a_whole(seed):
    assert objects.in_patches(patches(np.zeros((12, 12), bool), seed)).all()
    half = np.zeros((12, 12), bool)
    half[:, 6:] = True  # two surfaces, neither of which lies inside
    assert objects.in_patches(patches(half, seed)).all()


def test_otsu_by_all_thresholds():
    rng = np.random.default_rng(0)
    v = np.concatenate([rng.normal(size=30), rng.normal(4, 2, 50)])
    apart = lambda t: (v <= t).mean() * (v > t).mean() * (v[v <= t].mean() - v[v > t].mean()) ** 2
    best = max(np.sort(v)[:-1], key=apart)
    assert ((v <= objects.otsu(v)) == (v <= best)).all()


def test_ways_that_can_not_be():
    for fields, says in (
        ({'foreground': 'otsu'}, 'need none, grabcut, flood or pca'),
        ({'foreground': 'pca', 'tile': 64, 'overlap': 0}, 'or tile=0'),
    ):
        with pytest.raises(InputError, match=says):
            AnomalyDetector(**fields).fit([np.zeros((16, 16), np.uint8)])
