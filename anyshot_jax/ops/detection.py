"""Measures of anomaly detection, and the maps that they judge. Higher scores are more anomalous.

All of them are means of values, one an image or region, so that a confidence interval comes along.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from anyshot_jax.types import Array

MAX_RATE = 0.3  # false positive rate up to which per-region overlap counts


def area_under(positive: Array, negative: Array, limit: float = 1.0) -> Array:
    """Contribution of every positive to the area under the ROC curve up to a false positive rate.

    Args:
      positive: [P] scores. negative: [M] scores, M >= 1. limit: 0 < L <= 1.
    Returns:
      [P] float64 in 0..1, the area under the curve of this positive alone, over L. Their mean is
      the area under the curve of all, over L, with straight lines between thresholds: at L = 1 each
      is the share of negatives that score lower, ties counting half.
    """
    return _area(*_rates(positive, np.sort(negative)), limit)


def _rates(positive: Array, negative: Array) -> tuple[Array, Array]:
    """Shares of the sorted negatives that score higher than each positive; that reach it."""
    counts = [np.searchsorted(negative, positive, side=side) for side in ('right', 'left')]
    above, reached = (1 - f / len(negative) for f in counts)
    return above, reached


def _area(above: Array, reached: Array, limit: float) -> Array:
    """Between these two false positive rates the curve rises evenly from 0 to 1."""
    part = np.clip(limit - above, 0, None) ** 2 / (2 * np.maximum(reached - above, 1e-300))
    return np.where(limit >= reached, limit - (above + reached) / 2, part) / limit


def pixel_values(maps: Array, mask: Array, limit: float = MAX_RATE) -> dict[str, Array]:
    """Pixel AUROC and per-region overlap (PRO) of anomaly maps.

    Args:
      maps: [N, H, W] scores, of normal images too. mask: [N, H, W] bool, the defects.
      limit: PRO counts false positive rates up to this one.
    Returns:
      'pixel AUROC' [images with a defect] float64: their mean is the area under the ROC curve of
      all pixels (each is the image's mean over its defect's pixels, times how many those are,
      over how many there are on average: above 1 in images of large defects).
      'PRO' [regions]: of each 8-connected region the area under its overlap against the false
      positive rate of all pixels, up to `limit`, over `limit`; their mean is the PRO of Bergmann et
      al., "The MVTec anomaly detection dataset", IJCV 2021, section 5.2.
      Both are empty where there is no defect, or nothing else.
    """
    maps, mask = np.asarray(maps), np.asarray(mask, bool)
    good = np.sort(maps[~mask])
    marked = np.flatnonzero(mask.any((1, 2)))
    if not len(good) or not len(marked):
        return {'pixel AUROC': np.zeros(0), 'PRO': np.zeros(0)}
    overall: list[float] = []
    overlap: list[float] = []
    for i in marked:
        rates = _rates(maps[i][mask[i]], good)
        overall.append(_area(*rates, 1.0).sum())
        region = ndimage.label(mask[i], np.ones((3, 3)))[0][mask[i]]
        sums = np.bincount(region, _area(*rates, limit))
        overlap.extend(sums[1:] / np.bincount(region)[1:])
    return {
        'pixel AUROC': np.array(overall) / mask[marked].sum((1, 2)).mean(),
        'PRO': np.array(overlap),
    }


def enlargement(old: int, new: int, sigma: float) -> Array:
    """[new, old] float32: bilinear resizing of one axis (half-pixel centres), then a Gaussian.

    The Gaussian is cut off at 4 sigma and reflects at the ends (d c b a | a b c d), as scipy's.
    sigma: standard deviation in pixels of the new axis; 0: none.
    """
    at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    resize = np.maximum(1 - np.abs(at[:, None] - np.arange(old)), 0)
    if not sigma:
        return resize.astype(np.float32)
    reach = int(4 * sigma + 0.5)
    step = np.arange(-reach, reach + 1)
    weight = np.exp(-0.5 * (step / sigma) ** 2)
    place = (np.arange(new)[:, None] + step) % (2 * new)
    place = np.minimum(place, 2 * new - 1 - place)
    blur = np.zeros((new, new))
    np.add.at(blur, (np.arange(new)[:, None], place), weight / weight.sum())
    return (blur @ resize).astype(np.float32)


def enlarge(maps: Array, shape: Sequence[int], sigma: float) -> Array:
    """Anomaly maps [N, h, w] at the images' size [N, *shape], smoothed (see `enlargement`)."""
    rows, columns = (enlargement(o, n, sigma) for o, n in zip(maps.shape[1:], shape, strict=True))
    return np.stack([rows @ m @ columns.T for m in np.asarray(maps)])
