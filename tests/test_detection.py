"""Measures of detection against scikit-learn, and against maps whose curves are drawn by hand."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom
from sklearn.metrics import roc_auc_score, roc_curve

from anyshot_jax.ops import detection


def scores(n, seed, ties):
    x = np.random.default_rng(seed).normal(size=n)
    return np.round(x, 1) if ties else x


@pytest.mark.parametrize('ties', [False, True])
def test_image_auroc(ties):
    bad, good = scores(50, 0, ties) + 0.5, scores(70, 1, ties)
    got = detection.area_under(bad, good)
    want = roc_auc_score(np.repeat([1, 0], [50, 70]), np.concatenate([bad, good]))
    assert got.mean() == pytest.approx(want, abs=1e-12)
    one = np.mean(bad[3] > good) + np.mean(bad[3] == good) / 2
    assert got[3] == pytest.approx(one, abs=1e-12)


@pytest.mark.parametrize('ties', [False, True])
@pytest.mark.parametrize('limit', [0.05, 0.3, 0.999])
def test_area_up_to_a_rate(ties, limit):
    """The trapezoids under scikit-learn's curve, cut at the limit."""
    bad, good = scores(40, 2, ties) + 0.5, scores(60, 3, ties)
    label = np.repeat([1, 0], [40, 60])
    x, y, _ = roc_curve(label, np.concatenate([bad, good]), drop_intermediate=False)
    at = np.sort(np.append(x[x < limit], limit))
    # np.interp takes the last of equal rates, which is the upper end of a vertical step.
    keep = np.append(np.diff(x) > 0, True)
    low = np.array([y[x == r].min() if (x == r).any() else np.interp(r, x[keep], y[keep])
                    for r in np.unique(at)])  # fmt: skip
    high = np.interp(np.unique(at), x[keep], y[keep])
    rate = np.unique(at)
    want = np.sum((high[:-1] + low[1:]) / 2 * np.diff(rate)) / limit
    got = detection.area_under(bad, good, limit).mean()
    assert got == pytest.approx(want, abs=1e-9)


def test_pixel_auroc_is_that_of_all_pixels():
    rng = np.random.default_rng(0)
    mask = np.zeros((5, 8, 9), bool)
    mask[1, 2:4, 3:8] = mask[3, :, 0] = mask[3, 5, 5] = True
    maps = rng.normal(size=mask.shape) + mask
    got = detection.pixel_values(maps, mask)
    want = roc_auc_score(mask.ravel(), maps.ravel())
    assert len(got['pixel AUROC']) == 2
    assert got['pixel AUROC'].mean() == pytest.approx(want, abs=1e-12)


def test_overlap_by_hand():
    """Ten good pixels scoring 0..9, two regions in one image and one in another.

    With the rate up to 0.3: a pixel above all counts 1; one between 9 and 8 is found from rate 0.1
    on, 2/3; between 8 and 7 from 0.2 on, 1/3; below 7 never.
    """
    mask, maps = np.zeros((2, 3, 6), bool), np.full((2, 3, 6), -1.0)
    good = [(0, 0, c) for c in range(6)] + [(1, 0, c) for c in range(4)]
    for value, at in enumerate(good):
        maps[at] = value
    first = [(0, 1, 1), (0, 2, 2)]  # touching by a corner: one region
    second, third = [(0, 2, 5)], [(1, 2, 0), (1, 2, 1), (1, 2, 2)]
    for at, value in zip(first + second + third, [10, 8.5, 7.5, 10, 8.5, 6], strict=True):
        mask[at], maps[at] = True, value
    # All other pixels score lowest, so that only the ten are false positives first.
    total = (~mask).sum()
    got = detection.pixel_values(maps, mask, limit=0.3 * 10 / total)['PRO']
    want = [(1 + 2 / 3) / 2, 1 / 3, (1 + 2 / 3 + 0) / 3]
    np.testing.assert_allclose(got, want, atol=1e-9)


def test_perfect_maps_reach_one_and_flat_ones_chance():
    mask = np.zeros((3, 10, 10), bool)
    mask[0, 2:5, 2:5] = True
    perfect = detection.pixel_values(mask.astype(float), mask)
    assert perfect['PRO'].mean() == perfect['pixel AUROC'].mean() == 1
    flat = detection.pixel_values(np.zeros(mask.shape), mask)
    assert flat['pixel AUROC'].mean() == pytest.approx(0.5)
    assert flat['PRO'].mean() == pytest.approx(0.15)  # the triangle under y = x up to 0.3, over 0.3


@pytest.mark.parametrize('value', [True, False])
def test_masks_without_any_or_with_nothing_else(value):
    got = detection.pixel_values(np.ones((2, 4, 4)), np.full((2, 4, 4), value))
    assert all(len(v) == 0 for v in got.values())


@pytest.mark.parametrize('sigma', [0.0, 1.5, 4.0])
@pytest.mark.parametrize('shape', [(21, 40), (7, 5)])
def test_enlarged_and_smoothed(sigma, shape):
    """scipy: its zoom on a grid of pixels is the same half-pixel bilinear resizing."""
    maps = np.random.default_rng(0).normal(size=(2, 7, 5))
    got = detection.enlarge(maps, shape, sigma)
    for g, m in zip(got, maps, strict=True):
        factor = np.divide(shape, m.shape)
        want = zoom(m, factor, order=1, mode='nearest', grid_mode=True)
        want = gaussian_filter(want, sigma) if sigma else want
        np.testing.assert_allclose(g, want, atol=1e-5)
