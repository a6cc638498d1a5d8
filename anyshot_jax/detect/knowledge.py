"""All that a detector goes by, and its answers as functions of that.

`AnomalyDetector` has the arguments and scikit-learn's conventions; what it answers is made here.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from anyshot_jax.data.readers.notes import Notes
from anyshot_jax.data.readers.sources import name_of
from anyshot_jax.detect import defect_net, defect_types, heat, pretraining, products
from anyshot_jax.detect import normal as one_product
from anyshot_jax.detect import notes as of_normal
from anyshot_jax.detect.defect_types import UNKNOWN, Types
from anyshot_jax.detect.heat import Explanation
from anyshot_jax.detect.inputs import content
from anyshot_jax.detect.normal import Bank, Normal
from anyshot_jax.detect.scores import Comparison, Looks
from anyshot_jax.detect.seeing import Eye
from anyshot_jax.detect.threshold import Promise
from anyshot_jax.detect.verdicts import NORMAL, Verdict, verdict
from anyshot_jax.types import Array, InputError, nearest

TYPE_FALSE_ALARM = 0.05  # share of known types' images that may be called of an unknown type


class Knowledge(NamedTuple):
    """Products as they are known, dicts by their names, and the means to look at new images."""

    eye: Eye
    looks: Looks
    false_alarm: float
    normal: dict[str, Normal]
    banks: dict[str, Bank]
    limits: dict[str, float | None]  # thresholds
    promises: dict[str, Promise | None]
    types: Types


# What changes it; the old one stays as it is.


def of_products(eye: Eye, looks: Looks, false_alarm: float, normal: dict[str, Normal]) -> Knowledge:
    """Knowledge of products and of no types."""
    banks = {name: one_product.bank_of(n) for name, n in normal.items()}
    limits, promises = products.limits(normal, false_alarm)
    types = defect_types.NOTHING
    return Knowledge(eye, looks, false_alarm, normal, banks, limits, promises, types)


def with_net(
    known: Knowledge,
    learnt: bool,
    items: Sequence[Any],
    groups: Sequence[Any] | None,
    product: Sequence[str] | str | None,
    seed: int,
) -> tuple[Knowledge, Array | tuple[()]]:
    """With a net that has learnt synthetic defects, and the numbers of the images that it has seen.

    Args:
      learnt: whether there is to be one; else none and ().
    Raises:
      InputError: as `defect_net.spared`, or other numbers of groups or products than images.
    """
    known = known._replace(eye=known.eye._replace(net=None))
    if not learnt:
        return known, ()
    if groups is None:
        how = known.looks.reading
        groups = [content(x, name_of(x, i), how) for i, x in enumerate(items)]
    if len(groups) != len(items):
        raise InputError(f'{len(items)} images, but {len(groups)} groups')
    of = products.of_each('' if product is None else product, len(items))
    net, spent = defect_net.learn(known.eye, known.looks, items, groups, of, seed)
    return known._replace(eye=known.eye._replace(net=net)), spent


def learn(
    known: Knowledge,
    items: Sequence[Any],
    groups: Sequence[Any] | None,
    product: Sequence[str] | str | None,
    spent: Array | tuple[()] = (),
) -> Knowledge:
    """After more normal images, see `products.learn`."""
    odd = Notes()
    of = known.eye, known.looks, known.normal
    normal = products.learn(*of, items, groups, product, odd, spent)
    if odd:
        logging.warning('among the normal images: %s', odd)
    return _with_products(known, normal)


def without(known: Knowledge, name: str, product: str | None) -> Knowledge:
    """After the normal images of a name were forgotten, see `normal.without`.

    Raises:
      InputError: there is none, no other, or as `products.meant`.
    """
    of = products.meant(known.normal, product)
    return _with_products(known, {**known.normal, of: one_product.without(known.normal[of], name)})


def _with_products(known: Knowledge, normal: dict[str, Normal]) -> Knowledge:
    after = of_products(known.eye, known.looks, known.false_alarm, normal)
    return after._replace(types=known.types)


def pretrained(
    known: Knowledge, items: Sequence[Any], product: Sequence[str] | str | None, seed: int
) -> Knowledge:
    """After synthetic defects on normal images have shown by what types differ; no type is known.

    Args:
      items: the images. product: of each, or of all.
    """
    view = known.looks.view
    if view.tile:  # synthetic defects are made on tiles, which are seen as they are
        view = view._replace(size=0)
    seen = known._replace(looks=known.looks._replace(view=view), types=defect_types.NOTHING)
    told = lambda images, of: vectors(seen, images, of, say='look at synthetic defects')
    kernel = pretraining.kernel(known.eye, known.looks, items, product, told, seed)
    return known._replace(types=defect_types.NOTHING._replace(kernel=kernel))


def with_type(
    known: Knowledge,
    name: str,
    items: Sequence[Any],
    product: Sequence[str | None] | str | None = None,
    masks: Sequence[Any] | None = None,
) -> Types:
    """The types after examples of one that may be new.

    Raises:
      InputError: a name that can't be, another number of masks than images, or as `vectors`.
    """
    if not name.strip() or name in (UNKNOWN, NORMAL):
        raise InputError(f'{name!r} can be no type of defect: give another name')
    if masks is not None and len(masks) != len(items):
        raise InputError(f'type {name!r}: {len(items)} images, but {len(masks)} masks')
    odd = Notes()
    z = vectors(known, items, product, masks, odd)
    if odd:
        logging.warning('among the images of type %r: %s', name, odd)
    return defect_types.add(known.types, name, z, TYPE_FALSE_ALARM)


def without_type(known: Knowledge, name: str) -> Types:
    """The types without one; InputError: there is none of that name."""
    if name not in known.types.names:
        raise InputError(f'there is no type {name!r}{nearest(name, known.types.names)}')
    return defect_types.without(known.types, name, TYPE_FALSE_ALARM)


# What it answers.


def compare(
    known: Knowledge,
    items: Sequence[Any],
    product: Sequence[str | None] | str | None = None,
    masks: Sequence[Any] | None = None,
    errors: dict[int, InputError] | None = None,
    notes: Notes | None = None,
    say: str = '',
) -> Iterator[tuple[int, Comparison, str, bool]]:
    """See `products.compare`."""
    of = products.Known(known.normal, known.banks)
    return products.compare(known.eye, known.looks, of, items, product, masks, errors, notes, say)


def judge(
    known: Knowledge,
    items: Sequence[Any],
    product: Sequence[str | None] | str | None = None,
    errors: dict[int, InputError] | None = None,
    notes: Notes | None = None,
) -> Iterator[tuple[int, Verdict, Comparison]]:
    """(number, verdict, map and nearest patches) of images one at a time; see `compare`."""
    for number, found, name, of_none in compare(known, items, product, None, errors, notes):
        normal, limit, view = known.normal[name], known.limits[name], known.looks.view
        said = verdict(found, name, normal, limit, known.types, of_none, view, known.eye.cells)
        yield number, said, found


def heat_map(known: Knowledge, items: Sequence[Any], product: str | None) -> Array:
    """[H, W] of one image, see `heat.heat`."""
    ((_, found, *_),) = compare(known, items, product)
    return heat.heat(found, known.looks.view, known.eye.cells)


def explain(known: Knowledge, items: Sequence[Any], product: str | None) -> Explanation:
    """The worst place of one image, see `heat.explain_worst`."""
    ((_, found, name, _),) = compare(known, items, product)
    return heat.explain_worst(found, known.normal[name], known.looks.view, known.eye.cells)


def told_types(
    known: Knowledge, items: Sequence[Any], product: Sequence[str | None] | str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [N, C] of the types, and whether each image is of none; see `defect_types`.

    Raises:
      InputError: no type is known.
    """
    if not known.types.names:
        raise InputError('no type of defect is known: add_type(name, images) first')
    return defect_types.classify(known.types, vectors(known, items, product))


def named_types(
    known: Knowledge, items: Sequence[Any], product: Sequence[str | None] | str | None
) -> np.ndarray:
    """[N] the likeliest type of each image, UNKNOWN where it is of none; see `told_types`."""
    p, unknown = told_types(known, items, product)
    return np.where(unknown, UNKNOWN, np.array(known.types.names)[p.argmax(1)])


def vectors(
    known: Knowledge,
    items: Sequence[Any],
    product: Sequence[str | None] | str | None = None,
    masks: Sequence[Any] | None = None,
    notes: Notes | None = None,
    say: str = '',
) -> np.ndarray:
    """[N, D] by which the types of defects in images are told.

    Args:
      notes: takes what of the images and masks is worth a word.
      say: what a progress bar says; '': there is none.
    Raises:
      InputError: a product of which one normal image is known.
    """
    if any(not normal.mean for normal in known.normal.values()):
        raise InputError('types of defects need two normal images or more')
    every = compare(known, items, product, masks, notes=notes, say=say)
    return np.concatenate(
        [defect_types.vectors(known.types, known.normal[name], [f]) for _, f, name, _ in every]
    )


def like_others(known: Knowledge) -> np.ndarray:
    """[N] 1 or -1 of each normal image: whether it is like those that it was held out from.

    1, with a warning, of those that were not held out.

    Raises:
      InputError: there are several products.
    """
    if len(known.normal) > 1:
        raise InputError('fit_predict takes images of one product')
    ((name, normal),) = known.normal.items()
    answer, limit = np.ones(len(normal.names), int), known.limits[name]
    if limit is not None:
        answer[normal.held_out.number[normal.held_out.score > limit]] = -1
    if left := len(answer) - len(normal.held_out.number):
        logging.warning(
            '%d of %d images were not judged and are answered 1: those that the net has learnt '
            'from, and any beyond %d others', left, len(answer), one_product.HELD_OUT,
        )  # fmt: skip
    return answer


def notes(known: Knowledge) -> list[str]:
    """Warnings of `notes.notes` about each product, its name before them."""
    said = []
    for name, normal in known.normal.items():
        of = f'{name}: ' if name else ''
        own = of_normal.notes(normal, known.promises[name], known.looks.view)
        said += [of + note for note in own]
    return said
