"""Verdicts on images: the score, whether that is a defect, where, and of which type."""

from typing import NamedTuple

import numpy as np

from anyshot_jax.detect import defect_types, threshold, views
from anyshot_jax.detect.defect_types import UNKNOWN, Types
from anyshot_jax.detect.normal import Normal
from anyshot_jax.detect.scores import Comparison
from anyshot_jax.detect.views import View
from anyshot_jax.types import InputError

NORMAL, DEFECT = 'normal', 'defect'
# An image of another product is that many times as far as the farthest normal one, or more.
# It was set by three drawn objects, of whose large synthetic defects 4 % come to it. Of the
# magnetic tiles' true defects none does, of textures beside them 94 % do. To say of a defect that
# it is of none is the worse error.
MARGIN = 1.5
# Share of what the worst patch of normal images comes to: where most patches are the same in all of
# them, as on a plain ground without noise, a little noise makes no other product.
FLOOR = 0.25


class Verdict(NamedTuple):
    """A verdict on one image."""

    score: float  # large: unlike normal images
    threshold: float | None  # above it: a defect; None: too few normal images for one
    defect: bool | None
    p_value: float | None  # share of normal images, with it among them, that score as high
    product: str | None  # which it was compared with; None: it is like none
    place: tuple[int, int, int, int]  # left, top, right, bottom of its worst patch, in pixels
    type: str  # of a defect; '': no types are known
    type_probability: float


def margin(said: Verdict) -> float:
    """The threshold less the score: below 0 is a defect.

    Raises:
      InputError: there is no threshold.
    """
    if said.threshold is None:
        raise InputError(
            'one normal image gives no threshold: fit on two or more (99 for 1 % of false '
            'alarms), or compare score_samples among themselves'
        )
    return said.threshold - said.score


def how_far(known: Normal, found: Comparison) -> float:
    """Distance from a product as a share of what its images come to: above 1 is another product.

    Even its most usual patches are farther from normal ones then than in any normal image, by more
    than those differ among themselves, by the MARGIN, and by more than a FLOOR.
    """
    held = known.held_out
    if not len(held.low):
        return 0.0
    most = float(held.low.max())
    # Distances, where a net's words are in the scores too.
    worst = known.per * float((held.score - held.more[:, 0]).max())
    spread = 2 * most - float(np.median(held.low))
    return found.low / max(spread, MARGIN * most, FLOOR * worst, 1e-6)


def verdict(
    found: Comparison,
    name: str,
    known: Normal,
    limit: float | None,
    types: Types,
    of_none: bool,
    view: View,
    cells: int,
) -> Verdict:
    """Returns the verdict on an image.

    Args:
      name, known, limit: the product that it is compared with, and its threshold.
      of_none: whether it is of no product. cells: of a side of a square of the view.
    """
    p_value, kind, probability = None, '', 0.0
    held = known.held_out
    if limit is not None:
        groups = [known.group[i] for i in held.number]
        p_value = float(threshold.as_unlike(np.array([found.score]), held.score, groups)[0])
    if types.names:
        kind = UNKNOWN
        if not of_none and known.mean:
            p, unknown = defect_types.classify(types, defect_types.vectors(types, known, [found]))
            kind = UNKNOWN if unknown[0] else types.names[int(p[0].argmax())]
            probability = float(p[0].max())
    row, column = np.unravel_index(int(found.dist.argmax()), found.dist.shape)
    return Verdict(
        found.score,
        limit,
        None if limit is None else found.score > limit,
        p_value,
        None if of_none else name,
        views.box((int(row), int(column)), cells, found.size, view),
        kind,
        probability,
    )
