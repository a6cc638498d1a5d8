"""Changes of the page's classifier: each makes another one, and leaves the one before as it is."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import clone

from anyshot_jax.serve.classes import Taught, is_fitted, items_of, names_of, taught
from anyshot_jax.serve.uploads import Limits, Upload, line
from anyshot_jax.types import Array, InputError


def added(
    model: Taught,
    name: str,
    text: str,
    uploads: Sequence[Upload],
    squares: list[Array],
    limits: Limits,
) -> Taught:
    """The model with images or a description, or both, of a class, new or not.

    Raises:
      InputError: the number of classes or examples is beyond the limits, or the name is of
        another kind than the others.
    """
    of = model.classifier
    names = names_of(of)
    if name not in names and len(names) >= limits.classes:
        raise InputError(f'the model has {len(names)} classes, no more fit')
    if len(model.digests) + len(squares) > limits.support:
        raise InputError(f'a model holds {limits.support:,} support images at most')
    label, items = _label(of, name), items_of(of, uploads, squares)
    of = copy.copy(of)  # add_class and fit put new arrays in place of old ones
    if is_fitted(of):
        of.add_class(label, items or None, text or None)
    else:
        of.fit(items or None, [label] * len(squares) or None, {label: text} if text else None)
    if squares:
        kept = of.support_names_[: -len(squares)]
        of.support_names_ = [*kept, *(u.name for u in uploads)]
    return taught(of)


def checked(
    name: str, description: str, uploads: Sequence[Upload], limits: Limits
) -> tuple[str, str]:
    """Name and description of a class as they are kept; InputError for what can't be."""
    name = line(name, 'the name of the class', limits.name)
    text = line(description, f'the description of {name!r}', limits.description, empty=True)
    if not uploads and not text:
        raise InputError(f'class {name!r}: choose images or write a description')
    return name, text


def without(model: Taught, name: str) -> Taught:
    """The model without a class; InputError: there is no such class."""
    of, names = model.classifier, names_of(model.classifier)
    if name not in names:
        raise InputError(f'there is no class {name[:100]!r}: load the page again')
    if len(names) == 1:
        return taught(clone(of))
    of = copy.copy(of)
    return taught(of.remove_class(of.classes_.tolist()[names.index(name)]))


def without_example(model: Taught, name: str, address: str) -> Taught:
    """The model without one example, and without its class if nothing else tells that.

    Raises:
      InputError: the class has no such example.
    """
    of = model.classifier
    labels = [str(c) for c in of.support_labels_] if is_fitted(of) else []
    rows = [i for i, at in enumerate(zip(labels, model.digests, strict=True))
            if at == (name, address)]  # fmt: skip
    if not rows:
        raise InputError(f'class {name[:100]!r} has no such example: load the page again')
    kept = np.delete(np.arange(len(labels)), rows[0])
    texts = dict(of.descriptions_)
    if not len(kept) and not texts:
        return taught(clone(of))
    # Without examples the labels' kind is lost; descriptions bring their own.
    of = clone(of).fit(
        list(of.support_images_[kept]) or None, of.support_labels_[kept] if len(kept) else None,
        texts, features=of.support_features_[kept] if len(kept) else None,
    )  # fmt: skip
    before = model.classifier
    of.support_images_ = before.support_images_[kept]
    of.support_names_ = [before.support_names_[i] for i in kept]
    return taught(of)


def _label(classifier: Any, name: str) -> Any:
    """The class of this name as the model writes it: its classes may be numbers."""
    if not is_fitted(classifier):
        return name
    classes = classifier.classes_
    if name in (names := names_of(classifier)):
        return classes.tolist()[names.index(name)]
    if classes.dtype.kind in 'USO':
        return name
    try:
        return classes.dtype.type(name).item()
    except ValueError:
        raise InputError(f'class {name!r}: the classes of this model are numbers') from None
