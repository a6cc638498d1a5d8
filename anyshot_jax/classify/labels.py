"""Labels of classes: texts or numbers, each once, in order."""

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets

from anyshot_jax.types import Array, InputError


def one_of_each(names: Iterable[Any], dtype: np.dtype) -> Array:
    """[C], sorted.

    Args:
      dtype: of the labels there were; texts become as long as they need to be.
    Raises:
      InputError: texts and numbers among them, which would all become texts.
    """
    found = sorted(set(names), key=lambda c: (isinstance(c, str), c))
    if len({isinstance(c, str) for c in found}) > 1:
        raise InputError(
            f'classes {found[0]!r} and {found[-1]!r}: some are texts and some are not, name all of '
            'one kind'
        )
    made = np.array(found)
    as_before = dtype.kind == 'O' or dtype.kind == made.dtype.kind != 'U'
    return made.astype(dtype) if as_before else made


def check_labels(y: Array) -> None:
    """scikit-learn's ValueError for what are no labels of classes."""
    with warnings.catch_warnings():
        # Few examples a class are what this is for.
        warnings.filterwarnings('ignore', message='The number of unique classes is greater than')
        check_classification_targets(y)
