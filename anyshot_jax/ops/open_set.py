"""Open-set recognition: is an item of a known class at all, by its scores for each of them?

A threshold on the best score takes a narrow class and a broad one for the same, and one that has
many like it for one that stands alone. So the best score is compared with what held-out examples
of that class got, and with the scores of the classes that come next (`familiarity`).
"""

from typing import Any, NamedTuple

import numpy as np

from anyshot_jax.ops import calibration
from anyshot_jax.types import Array

# Chosen on Emoji: 20 to 160 classes, 4 and 5 shots; measured once on other sets.
NEXT = 5  # classes after the best
CROWD, LEVEL = 0.5, 0.25  # what is subtracted of their mean score, and of the class's usual score


class Rejection(NamedTuple):
    """A fitted rejection of unknown classes."""

    level: Array  # [C] float32, subtracted where the class is the best
    crowd: Array  # [] float32, of the mean of the next scores; 0 where there are few classes
    threshold: float  # of `familiarity`; below it is an unknown class
    false_alarm: float  # share of known classes' items to expect below it
    detected: float | None  # share of items of left-out classes below it; None: one class only


def familiarity(score: Array, level: Array, crowd: Array, xp: Any = np) -> Array:
    """[N] how much items are like a known class, large for known.

    Args:
      score: [N, C] of items and classes. level: [C], crowd: [] as in `Rejection`.
    """
    best = score.max(-1) - xp.broadcast_to(level, score.shape[-1:])[score.argmax(-1)]
    if score.shape[-1] < 2:
        return best
    after = xp.sort(score, axis=-1)[:, -1 - NEXT : -1]
    return best - crowd * after.mean(-1)


def fit_rejection(
    score: Array, label: Array, false_alarm: float, unseen: tuple[Array, Array] | None = None
) -> Rejection:
    """Levels, threshold and what to expect of it, by items that were held out.

    An item of an unknown class is imitated by an item without its own class's score: every class
    is left out in turn.

    Args:
      score: [N, C] of items that took no part in the classes' means, N >= 1. label: [N].
      false_alarm: share of known classes' items that may be below the threshold.
      unseen: scores [M, C] of items by what knows nothing of their class, and that class [M], whose
        own scores don't count; None: as of the held-out items. A space that was centred on few
        classes knows each of them.
    """
    num, classes = score.shape
    score = score.astype(np.float64)
    rows = np.arange(num)
    own = score[rows, label]
    count = np.bincount(label, minlength=classes)
    total = np.bincount(label, own, classes)
    usual = LEVEL * own.mean()
    level = np.where(count > 0, LEVEL * total / np.maximum(count, 1), usual)
    # Where one class is left out, as many others have to come next.
    crowd = CROWD if classes > NEXT + 1 else 0.0

    # An item has no part in the level that it is compared with.
    winner = score.argmax(1)
    without = np.where(count > 1, count - 1, 1)[label]
    left = np.where(count[label] > 1, LEVEL * (total[label] - own) / without, usual)
    shift = np.where(winner == label, left - level[winner], 0)
    known = familiarity(score, level, crowd) - shift
    threshold, expected = calibration.fit_threshold(known, false_alarm)
    detected = None
    if classes > 1:
        asked, of = (score, label) if unseen is None else unseen
        shape = len(asked), classes - 1
        others = np.arange(classes)[None] != of[:, None]
        rest = asked[others].reshape(shape)
        levels = np.broadcast_to(level, asked.shape)[others].reshape(shape)
        best = rest.argmax(1)
        likeness = familiarity(rest, np.zeros(classes - 1), crowd)
        detected = float(np.mean(likeness - levels[np.arange(len(best)), best] < threshold))
    return Rejection(level.astype(np.float32), np.float32(crowd), threshold, expected, detected)
