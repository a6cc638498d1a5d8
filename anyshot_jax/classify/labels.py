"""Labels of classes: texts or numbers, each once, in order."""

import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets

from anyshot_jax.types import Array, InputError


def labels_of(y: Any) -> Any:
    """Labels as one array [N] of texts or of numbers, as they are in a list, a series or a column.

    Raises:
      InputError: a missing one, several classes for an item, or texts and numbers; names the row.
    """
    if isinstance(y, np.ndarray) and y.dtype.kind != 'O':
        return y
    if hasattr(y, 'to_numpy'):
        y = y.to_numpy()
    if not hasattr(y, 'dtype') and not (isinstance(y, Iterable) and not isinstance(y, str)):
        return y  # scikit-learn says what is wrong with it
    if getattr(y, 'ndim', 1) == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if getattr(y, 'dtype', None) is not None and y.dtype.kind != 'O':
        return y
    values = list(y)
    for row, value in enumerate(values):
        if value is None or (not isinstance(value, str) and _is_nan(value)):
            raise InputError(f'the label of row {row} is missing ({value!r}): leave the row out')
        if isinstance(value, (list, tuple, Set, Mapping, np.ndarray)):
            raise InputError(f'the label of row {row} is {value!r:.60}: give one class an item')
    texts = [isinstance(value, str) for value in values]
    if any(texts) and not all(texts):
        a, b = values[texts.index(True)], values[texts.index(False)]
        raise InputError(f'labels {a!r} and {b!r}: some are texts and some are not, name all of '
                         'one kind')  # fmt: skip
    return np.asarray(values, dtype=str) if texts and all(texts) else np.asarray(values)


def _is_nan(value: Any) -> bool:
    """NaN, NaT and pandas.NA are unlike themselves, or can't say."""
    try:
        return not np.ndim(value) and not bool(value == value)
    except (TypeError, ValueError):
        return True


def check_unknown(unknown: Any, classes: Sequence[Any]) -> None:
    """Refuses (InputError) an answer to the unknown that can't stand among the classes' names."""
    if unknown is None or not len(classes):
        return
    if not isinstance(unknown, (str, int, float, bool, np.generic)) or _is_nan(unknown):
        raise InputError(f'unknown={unknown!r}: need a text or a number, as labels are')
    if isinstance(unknown, str) != isinstance(classes[0], str):
        kinds = ('a text', 'numbers') if isinstance(unknown, str) else ('a number', 'texts')
        such = '-1' if isinstance(unknown, str) else "'none of them'"
        raise InputError(
            f'unknown={unknown!r} is {kinds[0]}, but the labels are {kinds[1]}: give '
            f'unknown={such}, or another that is no label'
        )


def check_descriptions(descriptions: Mapping[Any, Any]) -> None:
    """Refuses (InputError) a description that is no text; names the class."""
    if not isinstance(descriptions, Mapping):
        raise InputError(
            f'descriptions is a {type(descriptions).__name__}: give {{class: description}}'
        )
    for name, text in descriptions.items():
        if not isinstance(text, str):
            raise InputError(f'the description of class {name!r} is {text!r:.60}: give one text')


def known_as(name: Any, classes: Iterable[Any]) -> Any:
    """The class that is called so, if only in another Unicode form; else the name itself."""
    if not isinstance(name, str):
        return name
    normal = unicodedata.normalize('NFC', name)
    texts = (c for c in classes if isinstance(c, str))
    return next((c for c in texts if unicodedata.normalize('NFC', c) == normal), name)


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
