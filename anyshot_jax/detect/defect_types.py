"""Types of defects, told apart from one or more images of each.

An image of a defect is three vectors: the residual of its most unusual place (what its patches have
that their nearest normal ones have not, weighed by how far they are), the encoder's last map there,
and that map's mean over the image; each relative to the mean of normal images held out, and by how
far those are from it (`defects/residual.py` explores them). An image is of the type whose mean of
unit vectors has the largest cosine with it. Examples held out in turn tell how sure to be.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from anyshot_jax.detect.normal import Normal
from anyshot_jax.detect.scores import Comparison
from anyshot_jax.ops.calibration import fit_temperature, fit_threshold, held_out
from anyshot_jax.types import Array

# Where no example can be held out: the likeliest of 0.02 to 0.5 in one-shot tasks of the magnetic
# tiles' five types.
ONE_SHOT_TEMPERATURE = 0.2
# Of what is learnt from synthetic types, beside the rest. On such types that were not learnt from,
# a half keeps 71, 74 and 89 % of the gain at 1, 2 and 5 examples, and the whole is better; on the
# magnetic tiles' true types, which were looked at for this, the whole gains nothing.
LEARNT = 0.5
UNKNOWN = 'unknown type'


class Types(NamedTuple):
    """Types and what is known of their examples."""

    names: tuple[str, ...]  # [C]
    z: Array  # [N, D] float32 examples, of length 1
    label: Array  # [N] int32
    temperature: float
    threshold: float  # a best cosine below it is of no type; -inf: too few examples to tell
    false_alarm: float | None  # share of known types' images that are expected below it
    kernel: Array | None = None  # [D, E] of `pretraining.py`


NOTHING = Types((), np.zeros((0, 0), np.float32), np.zeros(0, np.int32), 1.0, -np.inf, None)


def vectors(types: Types, normal: Normal, found: Sequence[Comparison]) -> np.ndarray:
    """[N, D] of length 1, of images of a product."""
    parts = [np.stack(v) for v in zip(*(f.vectors for f in found), strict=True)]
    relative = [(p - m) / f for p, m, f in zip(parts, normal.mean, normal.far, strict=True)]
    z = _unit(np.concatenate(relative, 1))
    if types.kernel is None:
        return z
    return joined(z, z @ types.kernel)


def joined(described: Array, learnt: Array) -> np.ndarray:
    """[N, D + E] float32 of length 1: descriptions [N, D], and what is learnt of them [N, E]."""
    both = np.concatenate([_unit(described), LEARNT * _unit(learnt)], 1)
    return _unit(both).astype(np.float32)


def _unit(x: Array) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def add(types: Types, name: str, z: Array, false_alarm: float) -> Types:
    """The types with more examples z [n, D] of one, which may be new."""
    names = types.names if name in types.names else (*types.names, name)
    label = np.concatenate([types.label, np.full(len(z), names.index(name), np.int32)])
    z = np.concatenate([types.z, z]) if len(types.z) else np.asarray(z)
    types = types._replace(names=names, z=z.astype(np.float32), label=label)
    return _calibrated(types, false_alarm)


def without(types: Types, name: str, false_alarm: float) -> Types:
    """The types without one of them."""
    if len(types.names) == 1:
        return NOTHING._replace(kernel=types.kernel)
    gone = types.names.index(name)
    kept = types.label != gone
    label = types.label[kept] - (types.label[kept] > gone)
    names = tuple(n for n in types.names if n != name)
    types = types._replace(names=names, z=types.z[kept], label=label)
    return _calibrated(types, false_alarm)


def _calibrated(types: Types, false_alarm: float) -> Types:
    """Temperature and threshold by examples that are held out of their type's mean in turn."""
    types = types._replace(threshold=-np.inf, false_alarm=None)
    scored = []
    for rows in held_out(types.label):
        kept = np.setdiff1d(np.arange(len(types.label)), rows)
        scored.append((rows, types.z[rows] @ _means(types, kept).T))
    if not scored:
        return types._replace(temperature=ONE_SHOT_TEMPERATURE)
    rows, score = (np.concatenate(a) for a in zip(*scored, strict=True))
    label = types.label[rows]
    limit, expected = fit_threshold(score[np.arange(len(label)), label], false_alarm)
    temperature = ONE_SHOT_TEMPERATURE
    if len(types.names) > 1:
        temperature = fit_temperature(score, label)
    return types._replace(temperature=temperature, threshold=limit, false_alarm=expected)


def _means(types: Types, rows: Array) -> np.ndarray:
    total = np.zeros((len(types.names), types.z.shape[1]))
    np.add.at(total, types.label[rows], types.z[rows])
    return _unit(total)


def classify(types: Types, z: Array) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [N, C] of the types, and whether each image is of none [N]."""
    score = z @ _means(types, np.arange(len(types.label))).T
    logits = (score - score.max(1, keepdims=True)) / types.temperature
    p = np.exp(logits)
    return p / p.sum(1, keepdims=True), score.max(1) < types.threshold
