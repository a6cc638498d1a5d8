"""One detector for several products: learning each, and finding of which a new image is."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from anyshot_jax.data.readers.notes import Notes
from anyshot_jax.data.readers.sources import name_of
from anyshot_jax.detect import normal, threshold, views
from anyshot_jax.detect.inputs import mask_cells
from anyshot_jax.detect.normal import Bank, Normal
from anyshot_jax.detect.scores import Comparison, Looks, compare_images
from anyshot_jax.detect.seeing import Eye
from anyshot_jax.detect.threshold import Promise
from anyshot_jax.detect.verdicts import how_far
from anyshot_jax.types import Array, InputError, nearest

NUMBERED = re.compile(r'#([0-9]{1,18})')  # what an image without a name is called


class Known(NamedTuple):
    """Products by name, and their patches."""

    normal: dict[str, Normal]
    banks: dict[str, Bank]


def meant(known: Mapping[str, Normal], name: str | None) -> str:
    """The name of a product that is known; None: of the only one.

    Raises:
      InputError: there is none of that name, or None where there are several.
    """
    if name is None:
        return only(known)
    if name not in known:
        raise InputError(f'there is no product {name!r}{nearest(str(name), known)}')
    return name


def only(known: Mapping[str, Normal]) -> str:
    """The name of the only product, '' where there is none yet; InputError: there are several."""
    if len(known) > 1:
        raise InputError(f'product is missing: of {", ".join(known)}')
    return next(iter(known), '')


def of_each(product: Sequence[str] | str, num: int) -> list[str]:
    """The product of each of `num` images; InputError: there are not as many."""
    if isinstance(product, str):
        return [product] * num
    if len(product) != num:
        raise InputError(f'{num} images, but {len(product)} products')
    return [str(name) for name in product]


def learn(
    eye: Eye,
    looks: Looks,
    before: dict[str, Normal],
    items: Sequence[Any],
    groups: Sequence[Any] | None,
    product: Sequence[str] | str | None,
    notes: Notes,
    spent: Array | tuple[()] = (),
) -> dict[str, Normal]:
    """Learns more normal images of one product or several; `before` stays as it is.

    Args:
      groups: of each image, equal for near copies. product: of each, or of all; none: of the only
        one there is. notes: takes what of the images is worth a word. spent: as `normal.extend`.
    Raises:
      InputError: other numbers of groups or products than images, no product where there are
        several, images that are all the same, or as `normal.extend`.
    """
    names = _names(before, items)
    if groups is not None and len(groups) != len(items):
        raise InputError(f'{len(items)} images, but {len(groups)} groups')
    labels = of_each(only(before) if product is None else product, len(items))
    after = dict(before)
    for name in dict.fromkeys(labels):
        rows = [i for i, label in enumerate(labels) if label == name]
        known = normal.extend(
            eye,
            looks,
            after.get(name) or normal.nothing(eye.dim),
            [items[i] for i in rows],
            [names[i] for i in rows],
            None if groups is None else [groups[i] for i in rows],
            f'{name} images'.strip(),
            notes,
            np.flatnonzero(np.isin(rows, spent)),
        )
        if len(known.names) > 1 and len(set(known.group)) == 1 and known.group[0][0] == '#':
            of = f'product {name!r}: ' if name else ''
            raise InputError(
                f'{of}all {len(known.names)} normal images are the same image: give different ones'
            )
        after[name] = known
    return after


def _names(before: Mapping[str, Normal], items: Sequence[Any]) -> list[str]:
    """Names of new images; those without one are numbered on, so that no two are called alike."""
    known = [name for one in before.values() for name in one.names]
    numbers = [int(found[1]) for name in known if (found := NUMBERED.fullmatch(name))]
    at = max(len(known), *(n + 1 for n in numbers), 0)
    return [name_of(item, at + i) for i, item in enumerate(items)]


def limits(
    known: Mapping[str, Normal], false_alarm: float
) -> tuple[dict[str, float | None], dict[str, Promise | None]]:
    """The threshold of each product, and what it promises; None: it has one normal image."""
    values: dict[str, float | None] = dict.fromkeys(known)
    promises: dict[str, Promise | None] = dict.fromkeys(known)
    for name, one in known.items():
        held = one.held_out
        if len(held.number):
            group = [one.group[i] for i in held.number]
            values[name], promises[name] = threshold.fit_threshold(
                held.score, group, len(one.folds), false_alarm
            )
    return values, promises


def compare(
    eye: Eye,
    looks: Looks,
    known: Known,
    items: Sequence[Any],
    product: Sequence[str | None] | str | None,
    masks: Sequence[Any] | None = None,
    errors: dict[int, InputError] | None = None,
    notes: Notes | None = None,
    say: str = '',
) -> Iterator[tuple[int, Comparison, str, bool]]:
    """(number, what sets it apart, the product, whether it is like none) of each image.

    Args:
      product: of each image, or of all; None: the one that it is most like.
      masks: where to look, as `mask_cells` takes them. errors, notes: as `in_order` takes them.
      say: what a progress bar says; '': there is none.
    """
    names = [name_of(item, i) for i, item in enumerate(items)]
    told = [product] * len(items) if product is None or isinstance(product, str) else product
    if len(told) != len(items):
        raise InputError(f'{len(items)} images, but {len(told)} products')
    for name in {p for p in told if p is not None}:
        meant(known.normal, name)
    counts_of = None
    if masks is not None:
        counts_of = lambda i, size, grid: mask_cells(
            masks[i], size, views.looked_at(size, looks.view), grid, names[i], notes
        )
    banks = [bank.search for bank in known.banks.values()]
    products = list(known.banks)
    for i, every in compare_images(eye, looks, items, names, banks, say, counts_of, errors, notes):
        far = [how_far(known.normal[n], f) for n, f in zip(products, every, strict=True)]
        own = told[i]
        at = int(np.argmin(far)) if own is None else products.index(own)
        yield i, every[at], products[at], far[at] > 1
