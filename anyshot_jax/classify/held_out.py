"""Answers for the support itself: each example's while it was held out."""

import numpy as np

from anyshot_jax.ops.label_noise import LabelNoise, fit_label_noise
from anyshot_jax.types import Array


def suspicion(held_out: Array, label: Array) -> Array:
    """[N] one less an example's probability of its own label; 0 of one that wasn't held out.

    Args:
      held_out: [N, C] probabilities, NaN of examples that weren't held out. label: [N].
    """
    own = held_out[np.arange(len(label)), label]
    return np.where(np.isnan(own), 0, 1 - own)


def label_errors(held_out: Array, label: Array) -> LabelNoise:
    """The examples' wrong labels, [N]; 0 of one that wasn't held out. Arguments as above."""
    rows = np.flatnonzero(~np.isnan(held_out[:, 0]))
    log_p = np.log(np.maximum(held_out[rows].astype(np.float64), 1e-300))
    noise = fit_label_noise(log_p, label[rows])
    wrong = np.zeros(len(held_out))
    wrong[rows] = noise.wrong
    return noise._replace(wrong=wrong)


def confusion(held_out: Array, label: Array) -> Array:
    """[C, C] how many examples of a class (row) were called what (column). Arguments as above."""
    num, asked = held_out.shape[1], ~np.isnan(held_out[:, 0])
    pairs = label[asked] * num + held_out[asked].argmax(1)
    return np.bincount(pairs, minlength=num * num).reshape(num, num)
