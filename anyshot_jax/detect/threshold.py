"""The score from which on an image is called a defect, by normal images alone.

Every normal image is scored by a memory that hasn't seen it (cross-fitting). The threshold is such
a quantile of these scores that a new normal image, if it is like them (exchangeable), is above it
at the rate that was asked for at most. Near copies are one group and weigh together as one image.

The memory that judges new images is larger than the ones that judged the held-out images and
contains each of them, so that a new image's score is at most what any of those would give. Hence
an image above the threshold is above it for all folds, and the bound of CV+ holds. (After a full
memory has taken in more images it holds nearly: a fold may have let go of patches since.)
Barber, Candes, Ramdas, Tibshirani, "Predictive inference with the jackknife+", Annals of Statistics
2021, theorem 4. What one draw of normal images comes to is distributed like Beta(k, G + 1 - k), of
G groups of which k - 1 are above the threshold (Vovk, "Conditional validity of inductive conformal
predictors", 2012). Groups as in Dunn, Wasserman, Ramdas, "Distribution-free prediction sets for
two-layer hierarchical models", JASA 2023.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv

from anyshot_jax.types import Array

SURE = 0.9


class Promise(NamedTuple):
    """False alarms that a threshold promises not to exceed."""

    asked: float  # share of them that may be called defects
    expected: float  # at most this share is expected to be: 1 / (groups + 1) or more,
    likely: float  # and in SURE of all draws of such normal images no more than this is
    proven: float  # no more than this share, whatever the images are (CV+)
    images: int  # normal images that it rests on
    groups: int  # of near copies
    needed: int  # groups for `asked` to be kept

    @property
    def loose(self) -> bool:
        """True if there are too few images for what was asked."""
        return self.groups < self.needed

    def __str__(self) -> str:
        of = f'{self.images:,} normal images'
        if self.groups != self.images:
            of += f' ({self.groups:,} groups of near copies)'
        asked = f'{100 * self.asked:.3g} %'
        said = (
            f'Of new normal images at most {100 * self.expected:.3g} % are expected to be called a '
            f'defect ({asked} was asked), going by {of}; by their '
            f'luck more than {100 * self.likely:.3g} % in one case of ten'
        )
        if self.loose:
            said += f'; that is loose: {self.needed:,} or more can keep {asked}'
        return said


def fit_threshold(
    score: Array, group: Array, folds: int, false_alarm: float
) -> tuple[float, Promise]:
    """The threshold, and what it promises.

    Args:
      score: [N] of held-out normal images. group: [N] equal for near copies.
      folds: how many of them the images were held out in. false_alarm: 0 < share < 1.
    Returns:
      The smallest score t such that the groups' shares of images at or below t sum to
      (1 - false_alarm) (G + 1) or more, G the number of groups; the largest score where G is too
      small for that.
    """
    score = np.asarray(score, np.float64)
    _, which, count = np.unique(group, return_inverse=True, return_counts=True)
    groups = len(count)
    order = np.argsort(score, kind='stable')
    below = np.cumsum(1 / count[which][order])
    wanted = (1 - false_alarm) * (groups + 1)
    at = int(np.searchsorted(below, wanted - 1e-9))
    at = min(at, len(score) - 1)
    # All that are equal to the threshold are not above it.
    at = int(np.searchsorted(score[order], score[order][at], side='right')) - 1
    expected = 1 - below[at] / (groups + 1)
    likely = betaincinv(groups + 1 - below[at], below[at], SURE)
    bound = 1.0
    if folds > 1:
        k, n = min(folds, groups), groups
        slack = min(2 * (1 - 1 / k) / (n / k + 1), (1 - k / n) / (k + 1))
        bound = min(1.0, 2 * expected + max(slack, 0))
    promise = Promise(
        false_alarm, float(expected), float(likely), float(bound), len(score), groups,
        least(false_alarm),
    )  # fmt: skip
    return float(score[order][at]), promise


def least(false_alarm: float) -> int:
    """Groups of normal images from which on `false_alarm` can be kept: 99 for 1 %."""
    return math.ceil(1 / false_alarm - 1 - 1e-9)


def as_unlike(score: Array, held_out: Array, group: Array) -> np.ndarray:
    """[M] conformal p-values: the share of normal images, a new one counted in, that score as high.

    Args:
      score: [M] of new images. held_out: [N] of normal ones. group: [N].
    """
    _, which, count = np.unique(group, return_inverse=True, return_counts=True)
    order = np.argsort(held_out, kind='stable')
    below = np.concatenate([[0], np.cumsum(1 / count[which][order])])
    at = np.searchsorted(np.asarray(held_out)[order], score, side='left')
    return (1 + len(count) - below[at]) / (len(count) + 1)
