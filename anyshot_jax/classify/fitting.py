"""A classifier's head from its support: means, words, calibration and the rejection threshold.

The support is also held out, a part in turn: what it is then said to be tells how sure to be.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from anyshot_jax.classify import nearest_mean, word_means
from anyshot_jax.classify.frozen import Frozen
from anyshot_jax.classify.nearest_mean import Head
from anyshot_jax.ops import calibration, open_set
from anyshot_jax.ops.open_set import Rejection
from anyshot_jax.types import Array, InputError

# Of cosines where no example can be held out: the likeliest of 0.05 to 0.3 in one-shot tasks of
# Emoji's validation classes, of 5, of 20 and of 100 ways.
ONE_SHOT_TEMPERATURE = 0.1
# From more on, one class hardly moves the space that all are seen in.
FEW_CLASSES = 12


class Calibrated(NamedTuple):
    """Temperature and threshold of scores, fitted on held-out examples."""

    temperature: float
    rejection: Rejection | None  # of unknown classes; None: nothing could be held out
    held_out: Array  # [N, C] probabilities of support items while they were held out, else NaN


def learn(
    x: Array,
    label: Array,
    classes: Sequence[Any],
    said: Mapping[Any, str],
    *,
    net: Frozen | None,
    how: dict,
    text_encoder: str,
    false_alarm: float,
) -> tuple[Head, Calibrated]:
    """The head of classes that have examples, or words, or both.

    Args:
      x: [N, D] features, leading ones of the net's. label: [N] places in classes.
      said: descriptions of some. net: what made the features of images; None: they are vectors.
      how: of `nearest_mean.fit_space`. text_encoder: see `word_means.class_words`.
    Raises:
      InputError: a class with neither; names it.
    """
    empty = np.bincount(label, minlength=len(classes)) == 0
    bare = [c for c, e in zip(classes, empty, strict=True) if e]
    silent = [c for c in bare if not said.get(c, '')]
    if silent:
        raise InputError(f'class {silent[0]!r} has neither an image nor a description')
    words = known = None
    if bare:
        texts = [said.get(c, '') for c in classes]
        words = word_means.class_words([str(c) for c in classes], texts, text_encoder)
        known = net.imagenet(text_encoder) if net else None
        if known is not None:
            known = known._replace(directions=known.directions[:, : x.shape[1]])
    return fit(x, label, len(classes), how=how, words=words, known=known, false_alarm=false_alarm)


def fit(
    x: Array,
    label: Array,
    num_classes: int,
    *,
    how: dict,
    words: Array | None = None,
    known: word_means.Known | None = None,
    false_alarm: float = 0.05,
) -> tuple[Head, Calibrated]:
    """A head, its temperature and threshold by `calibration.held_out` examples.

    Args:
      x: [N, D] features. label: [N] in 0..C-1. how: of `nearest_mean.fit_space`.
      words: [C, A] where a class has no example, else None. known: see `word_means`, in the
        encoder's own space.
    """
    told = {'how': how, 'words': words, 'known': known}
    head, _ = head_of(x, label, num_classes, **told)
    scored, said = [], []
    for rows in calibration.held_out(label):
        kept = np.setdiff1d(np.arange(len(x)), rows)
        part, by_words = head_of(x[kept], label[kept], num_classes, **told)
        z = nearest_mean.place(part.space, x[rows])
        scored.append((rows, nearest_mean.scores(part, z)))
        said.append((z * by_words[label[rows]]).sum(1))
    if words is not None and scored:
        rows, score = map(np.concatenate, zip(*scored, strict=True))
        of_words = np.bincount(label, minlength=num_classes) == 0
        bias = choose_bias(score, np.concatenate(said), label[rows], of_words)
        head = head._replace(bias=np.where(of_words, bias, 0).astype(np.float32))
        scored = [(rows, score + head.bias) for rows, score in scored]
    unseen = None
    if scored and (found := by_others(x, label, num_classes, **told)) is not None:
        unseen = found + head.bias, label
    calibrated = calibrate(
        scored, label, num_classes, _usual_temperature(head), false_alarm, unseen
    )
    return with_limits(head, calibrated), calibrated


def by_others(x: Array, label: Array, num_classes: int, *, how, words, known) -> Array | None:
    """[N, C] scores of examples by heads that know nothing of their class; its own don't count.

    None where there are many classes: the space hardly depends on one of them, and held-out
    scores without it are as good. Arguments as for `fit`.
    """
    if not 1 < num_classes <= FEW_CLASSES:
        return None
    score = np.zeros((len(x), num_classes))
    for c in np.unique(label):
        own = label == c
        if own.all():
            return None
        part, _ = head_of(x[~own], label[~own], num_classes, how=how, words=words, known=known)
        score[own] = nearest_mean.scores(part, nearest_mean.place(part.space, x[own]))
    return score


def choose_bias(score: Array, said: Array, y: Array, of_words: Array) -> float:
    """Offset of the scores of classes that are known by words only.

    They are less like their items than others, and would never win. The harmonic mean of two shares
    decides, both of held-out items and averaged over classes: of those that still get their own
    class, and of those that would get it if that, too, were known by words only.

    Args:
      score: [N, C] of held-out items. said: [N] by the words of their own class. y: [N] it.
      of_words: [C] bool.
    Reference:
      Chao, Changpinyo, Gong, Sha, "An empirical study and analysis of generalized zero-shot
      learning for object recognition in the wild", ECCV 2016 (calibrated stacking).
    """
    num, classes = np.arange(len(y)), np.unique(y)
    own, others = score[num, y], score.astype(np.float64)
    others[num, y] = -np.inf
    imaged = np.where(of_words, -np.inf, others).max(1)
    worded = np.where(of_words, others, -np.inf).max(1)
    share = lambda right: np.mean([right[y == c].mean() for c in classes])
    best, chosen = 0.0, 0.0
    for bias in np.linspace(0, 1, 101) * float(np.ptp(own) + np.ptp(said)):
        rival = np.maximum(imaged, worded + bias)
        seen, unseen = share(own > rival), share(said + bias > rival)
        both = 2 * seen * unseen / max(seen + unseen, 1e-12)
        if both > best:
            best, chosen = both, bias
    return chosen


def fit_trained(
    answer: Callable, x: Array, label: Array, num_classes: int, *, how: dict, false_alarm: float
) -> tuple[Head, Calibrated]:
    """The same for a method that scores queries by the support itself; neighbours need a head.

    Args:
      answer: (x_s, label, num_classes, x_q) -> scores [Q, C], logits.
    """
    head, _ = head_of(x, label, num_classes, how=how, words=None, known=None)
    scored = []
    for rows in calibration.held_out(label):
        kept = np.setdiff1d(np.arange(len(x)), rows)
        scored.append((rows, answer(x[kept], label[kept], num_classes, x[rows])))
    found = calibrate(scored, label, num_classes, 1.0, false_alarm)
    return with_limits(head, found), found


def calibrate(
    scored, label, num_classes, usual: float, false_alarm: float, unseen=None
) -> Calibrated:
    """Temperature and threshold.

    Args:
      scored: (rows, scores [n, C]) of parts of the support held out; none: `usual` is taken.
      unseen: see `open_set.fit_rejection`.
    """
    held_out = np.full((len(label), num_classes), np.nan, np.float32)
    if not scored:
        return Calibrated(usual, None, held_out)
    rows, score = map(np.concatenate, zip(*scored, strict=True))
    score = score.astype(np.float64)
    temperature = usual
    if num_classes > 1:
        temperature = calibration.fit_temperature(score, label[rows])
    held_out[rows] = nearest_mean.probabilities(score, temperature)
    rejection = open_set.fit_rejection(score, label[rows], false_alarm, unseen)
    return Calibrated(temperature, rejection, held_out)


def with_limits(head: Head, found: Calibrated) -> Head:
    """`head` with the fitted temperature and threshold."""
    head = head._replace(temperature=np.float32(found.temperature))
    if found.rejection is None:
        return head
    level, crowd, threshold, *_ = found.rejection
    return head._replace(level=level, crowd=crowd, threshold=np.float32(threshold))


def head_of(x, label, num_classes, *, how, words, known) -> tuple[Head, Array]:
    """The head without its calibration, and means [C, D] by words as if a class had no examples.

    Arguments as for `fit`.
    """
    if len(x):
        space = nearest_mean.fit_space(x, label, num_classes, **how)
    else:
        space = nearest_mean.no_support(x.shape[1], how['power'], how['normalise'])
    means = nearest_mean.class_means(nearest_mean.place(space, x), label, num_classes)
    by_words = np.zeros_like(means)
    if words is not None:
        empty = np.bincount(label, minlength=num_classes) == 0
        if known is not None:
            known = known._replace(directions=nearest_mean.turn(space, known.directions))
        found = word_means.fit_means(words, ~empty, means, known)
        means[empty], by_words[empty], by_words[~empty] = found.means, found.means, found.left_out
    return nearest_mean.plain_head(space, means), by_words


def _usual_temperature(head: Head) -> float:
    """Temperature for tasks of one example a class; by the spread of the means of plain vectors."""
    if head.space.normalise:
        return ONE_SHOT_TEMPERATURE
    spread = np.square(head.means - head.means.mean(0)).sum(1).mean()
    return max(float(spread), 1e-12) / 2
