"""Classes told by words and images together, in the space that both towers of an encoder share.

An item's score for a class is a mixture: how it lies to the class's images (`nearest_mean`), and
the cosine of its features with the class's words. How much of either, held-out examples say.

Wang, Liang, He, Wang, Xu, Tan, "A hard-to-beat baseline for training-free CLIP-based adaptation",
ICLR 2024 (GDA: means and a shared covariance beside the zero-shot head).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from anyshot_jax.classify import fitting, nearest_mean
from anyshot_jax.classify.fitting import Calibrated
from anyshot_jax.classify.nearest_mean import Head, unit
from anyshot_jax.encoders import TextEncoder, texts_to_vectors
from anyshot_jax.encoders.describe import spoken
from anyshot_jax.ops import calibration
from anyshot_jax.types import Array

TEMPLATES = (
    'a photo of a {}.',
    'a photo of the {}.',
    'a close-up photo of a {}.',
    'a good photo of a {}.',
    'a bad photo of a {}.',
    'itap of a {}.',
)
SHARES = np.linspace(0, 1, 11)  # of words in the mixture, that are tried
ONE_SHOT_SHARE = 0.5  # where no example can be held out


class Joint(NamedTuple):
    """Text side of a joint classifier, beside its `nearest_mean.Head`."""

    texts: Array  # [C, T] of length 1; T first features of an item are of that space
    share: Array  # [C] of the head's score; 0 of a class without images
    weight: Array  # [C] of the cosines
    bias: Array  # [C]


def class_texts(names: Sequence[str], texts: Sequence[str], encoder: TextEncoder) -> Array:
    """[C, T] float32 of length 1: the mean over TEMPLATES of a name, and of its description.

    A description is read as it is, after the name, and in the templates with the name.
    Radford et al. 2021, section 3.1.4, for the mean.
    """
    sentences: list[str] = []
    rows: list[int] = []
    for c, (name, text) in enumerate(zip(names, texts, strict=True)):
        word, said = spoken(str(name)), text.strip().rstrip('.')
        what = f'{word}, {said}' if said else word
        new = [template.format(what) for template in TEMPLATES]
        new += [f'{word}: {said}.'] if said else []
        sentences += new
        rows += [c] * len(new)
    vectors = texts_to_vectors(encoder, sentences)
    return unit(nearest_mean.class_means(vectors, np.array(rows), len(names))).astype(np.float32)


def scores(joint: Joint, head_score: Array, x: Array, xp: Any = np) -> Array:
    """[N, C] of items by their features x [N, D] and by `nearest_mean.scores` of the head."""
    cosines = unit(x[:, : joint.texts.shape[1]], xp) @ joint.texts.T
    return joint.share[None] * head_score + joint.weight[None] * cosines + joint.bias[None]


def fit(
    x: Array,
    label: Array,
    texts: Array,
    scale: float,
    *,
    how: dict,
    false_alarm: float,
) -> tuple[Head, Joint, Calibrated]:
    """The head of the images, what words add, and what held-out examples say of both.

    Args:
      x: [N, D] features; N may be 0. label: [N] in 0..C-1. texts: [C, T]. scale: see
        `TextEncoder.scale`. how: of `nearest_mean.fit_space`.
    """
    num_classes = len(texts)
    head = _head(x, label, num_classes, how)
    bare = np.bincount(label, minlength=num_classes) == 0
    if not len(x):
        joint = _mixture(texts, bare, 1.0, 1.0, 0.0)
        usual = 1 / scale if scale > 1 else fitting.ONE_SHOT_TEMPERATURE
        found = fitting.calibrate([], label, num_classes, usual, false_alarm)
        return fitting.with_limits(head, found), joint, found
    folds = calibration.held_out(label)
    parts = []
    for rows in folds:
        kept = np.setdiff1d(np.arange(len(x)), rows)
        part = _head(x[kept], label[kept], num_classes, how)
        parts.append(nearest_mean.scores(part, nearest_mean.place(part.space, x[rows])))
    rows = np.concatenate(folds) if folds else np.arange(len(x))
    if folds:
        score = np.concatenate(parts).astype(np.float64)
    else:
        score = nearest_mean.scores(head, nearest_mean.place(head.space, x)).astype(np.float64)
    cosines = (unit(x[rows, : texts.shape[1]]) @ texts.T).astype(np.float64)
    y = label[rows]
    factor, offset = _alike(score, cosines, y, bare)
    share = ONE_SHOT_SHARE
    if folds:
        share = _best_share(score, cosines, y, texts, bare, factor, offset)
    joint = _mixture(texts, bare, share, factor, offset)
    mixed = _mixed(joint, score, cosines)
    if bare.any() and folds:
        said = factor * cosines[np.arange(len(y)), y] + (1 - share) * offset
        more = fitting.choose_bias(mixed, said, y, bare)
        joint = joint._replace(bias=(joint.bias + more * bare).astype(np.float32))
        mixed = _mixed(joint, score, cosines)
    scored = [(rows, mixed)] if folds else []
    usual = fitting.ONE_SHOT_TEMPERATURE
    others = fitting.by_others(x, label, num_classes, how=how, words=None, known=None)
    unseen = None
    if others is not None:
        unseen = _mixed(joint, others, unit(x[:, : texts.shape[1]]) @ texts.T), label
    found = fitting.calibrate(scored, label, num_classes, usual, false_alarm, unseen)
    return fitting.with_limits(head, found), joint, found


def _head(x, label, num_classes, how) -> Head:
    return fitting.head_of(x, label, num_classes, how=how, words=None, known=None)[0]


def _alike(score: Array, cosines: Array, y: Array, bare: Array) -> tuple[float, float]:
    """(factor, offset) by which cosines lie as scores of images do, over items and other classes.

    Other than their own: of that the support itself is no example.
    """
    others = ~bare[None] & (np.arange(score.shape[1])[None] != y[:, None])
    if others.sum() < 2:
        return 1.0, 0.0
    a, b = score[others], cosines[others]
    factor = float(a.std() / max(b.std(), 1e-6))
    return factor, float(a.mean() - factor * b.mean())


def _mixture(texts, bare, share: float, factor: float, offset: float) -> Joint:
    """A class without images has its words for both parts."""
    arrays = (
        np.where(bare, 0.0, 1 - share),
        np.where(bare, factor, share * factor),
        np.where(bare, (1 - share) * offset, 0.0),
    )
    return Joint(texts, *(a.astype(np.float32) for a in arrays))


def _mixed(joint: Joint, score: Array, cosines: Array) -> Array:
    return joint.share * score + joint.weight * cosines + joint.bias


def _best_share(score, cosines, y, texts, bare, factor, offset) -> float:
    """Weight that makes held-out items likeliest, at its own temperature; of equals the least."""
    losses = []
    for share in SHARES:
        mixed = _mixed(_mixture(texts, bare, share, factor, offset), score, cosines)
        seen = mixed[:, ~bare]
        place = np.cumsum(~bare)[y] - 1
        if seen.shape[1] < 2:
            return ONE_SHOT_SHARE
        p = nearest_mean.probabilities(seen, calibration.fit_temperature(seen, place))
        losses.append(-np.mean(np.log(np.maximum(p[np.arange(len(y)), place], 1e-12))))
    return float(SHARES[int(np.argmin(losses))])
