"""The page's detector of defects: what it shows, its verdicts, and what a change makes of it.

Functions of a model that leave it as it is; `session.Session` puts one in place of another.
"""

import copy
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone

from anyshot_jax.data.readers.images import Reading
from anyshot_jax.detect.defect_types import UNKNOWN
from anyshot_jax.detect.detector import AnomalyDetector
from anyshot_jax.detect.heat import heat
from anyshot_jax.detect.scores import Comparison
from anyshot_jax.detect.verdicts import DEFECT, NORMAL, Verdict
from anyshot_jax.report import overlay
from anyshot_jax.serve.uploads import Limits, Seen, Upload, digest, encoded, line, opened, uri
from anyshot_jax.types import Array, InputError

SMALL, LARGE = 160, 360  # pixels of the longer side of what is kept, and of what is answered


class Known(NamedTuple):
    """A detector, and small copies of what this server was given; its file holds none."""

    detector: AnomalyDetector
    images: dict[str, bytes]  # JPEG by address
    normal: dict[str, tuple[str, ...]]  # addresses, the newest last, and what they are called
    types: dict[str, tuple[str, ...]]  # by the type of defect


def known(detector: AnomalyDetector) -> Known:
    return Known(detector, {}, {}, {})


def is_fitted(detector: AnomalyDetector) -> bool:
    return hasattr(detector, 'normal_')


def save(model: Known, path: Path) -> None:
    """Writes the detector; InputError where it has seen nothing."""
    check(model)
    model.detector.save(path)


def check(model: Known) -> None:
    """Raises InputError if no normal image was seen yet."""
    if not is_fitted(model.detector):
        raise InputError('no normal image is known yet: add some first')


def read(uploads: Sequence[Upload], limits: Limits) -> list[Seen]:
    """The images of a request, unpacked; needs no lock. Raises as `opened`."""
    how = Reading(max_pixels=limits.pixels)
    return list(opened(uploads, how, limits.held_pixels))


# What the page shows.


def state(model: Known) -> dict[str, Any]:
    """The model as JSON: what it has seen, its threshold, and what that promises."""
    of = model.detector
    fitted = is_fitted(of)
    promises = [p for p in of.promise_of_.values() if p is not None] if fitted else []
    said = [f'{p}.' for p in promises]
    notes = [f'{n[:1].upper()}{n[1:]}.' for n in (of.notes() if fitted else [])]
    count = np.bincount(of.types_of_.label, minlength=len(of.types_)).tolist() if fitted else []
    return {
        'by': f'encoder {Path(of.encoder).name}',
        'false_alarm': of.false_alarm,
        'number': sum(len(n.names) for n in of.normal_.values()) if fitted else 0,
        'products': [p for p in of.products_ if p] if fitted else [],
        'normal': list(model.normal),
        'threshold': bool(promises),
        'promise': said,
        'loose': any(p.loose for p in promises),
        'notes': [n for n in notes if n not in said],
        'types': [
            {'name': name, 'number': n, 'images': list(model.types.get(name, ()))}
            for name, n in zip(of.types_ if fitted else [], count, strict=True)
        ],
    }


# Its verdicts.


def verdicts(model: Known, seen: Sequence[Seen]) -> list[dict[str, Any]]:
    """The model's verdicts about images, as JSON.

    Raises:
      InputError: it has seen no normal image yet.
    """
    check(model)
    of = model.detector
    told = of.each([one.image for one in seen])
    return [_verdict(of, seen[i], said, found) for i, said, found in told]


def _verdict(of: AnomalyDetector, one: Seen, said: Verdict, found: Comparison) -> dict[str, Any]:
    image = overlay.on_page(_pixels(one), LARGE)
    limit = said.threshold
    told = bool(said.defect and said.type)
    return {
        'verdict': {None: '', True: DEFECT, False: NORMAL}[said.defect],
        'score': round(said.score, 4),
        'threshold': None if limit is None else round(limit, 4),
        # How far from the threshold, as a factor's logarithm.
        'sure': abs(float(np.log(max(said.score, 1e-9) / limit))) if limit else None,
        'p_value': None if said.p_value is None else round(said.p_value, 4),
        'product': said.product,  # null: it is like none
        'type': said.type if told else '',
        'known_type': told and said.type != UNKNOWN,
        'type_probability': round(said.type_probability, 4) if told else None,
        'place': list(said.place),
        'image': uri(image),
        'heat': uri(_hot(of, image, found, limit)),
    }


def _hot(of: AnomalyDetector, image: Array, found: Comparison, limit: float | None) -> Array:
    """The image under the colours of its distances, outlined where they are above the threshold."""
    far = heat(found, of._looks().view, of._eye().cells)
    middle = limit or float(far.max())
    hot = overlay.with_heat(image, far, middle / 2, 1.5 * middle)
    above = far > middle
    return overlay.with_outline(hot, above) if limit and above.any() else hot


# What a change makes of it.


def with_normal(model: Known, seen: Sequence[Seen], limits: Limits) -> Known:
    """The model with more normal images.

    Raises:
      InputError: there are too many, or what `AnomalyDetector.fit` and `add_normal` refuse.
    """
    of, images = model.detector, [one.image for one in seen]
    if len(model.normal) + len(seen) > limits.support:
        raise InputError(f'the page takes {limits.support:,} normal images at most')
    if is_fitted(of):
        if len(of.products_) > 1:
            raise InputError(
                f'this detector knows {len(of.products_)} products: here it only judges; add '
                'normal images with add_normal(images, product=...) in Python'
            )
        of = copy.copy(of).add_normal(images)
    else:
        of = clone(of).fit(images)
    of, small, normal = _named(of, [one.name for one in seen]), _small(seen), dict(model.normal)
    ((_, known),) = of.normal_.items()
    for (address, _), name in zip(small, known.names[-len(seen) :], strict=True):
        normal[address] = (*normal.get(address, ()), name)
    return model._replace(detector=of, images={**model.images, **dict(small)}, normal=normal)


def without_normal(model: Known, address: str) -> Known:
    """The model without a normal image, and without those that look the same.

    Raises:
      InputError: it has no small copy here, or what `AnomalyDetector.remove_normal` refuses.
    """
    if address not in model.normal:
        raise InputError('there is no such normal image: load the page again')
    of, (product,) = copy.copy(model.detector), model.detector.products_
    for name in model.normal[address]:
        of.remove_normal(name, product)
    normal = {k: v for k, v in model.normal.items() if k != address}
    return model._replace(detector=of, normal=normal)


def with_type(model: Known, name: str, seen: Sequence[Seen], limits: Limits) -> Known:
    """The model with a type of defect, or more examples of one that is there.

    Raises:
      InputError: a name that can't be, or what `AnomalyDetector.add_type` refuses.
    """
    name = line(name, 'the name of the type', limits.name)
    check(model)
    if name not in model.detector.types_ and len(model.detector.types_) >= limits.classes:
        raise InputError(f'there are {limits.classes} types already: no more fit')
    of = copy.copy(model.detector).add_type(name, [one.image for one in seen])
    small = _small(seen)
    types = {**model.types, name: (*model.types.get(name, ()), *dict(small))}
    return model._replace(detector=of, images={**model.images, **dict(small)}, types=types)


def without_type(model: Known, name: str) -> Known:
    """The model without a type of defect; InputError: there is no such type."""
    if not is_fitted(model.detector) or name not in model.detector.types_:
        raise InputError(f'there is no type {name[:100]!r}: load the page again')
    types = {k: v for k, v in model.types.items() if k != name}
    return model._replace(detector=copy.copy(model.detector).remove_type(name), types=types)


def emptied(model: Known) -> Known:
    """The same detector before it has seen anything."""
    return known(clone(model.detector))


def _named(of: AnomalyDetector, names: list[str]) -> AnomalyDetector:
    """The detector with the last normal images called by their files, not by numbers.

    One whose name is taken gets a number behind it.
    """
    ((product, last),) = of.normal_.items()
    called = list(last.names[: -len(names)])
    for name in names:
        numbered = (f'{name} ({i})' for i in itertools.count(2))
        called.append(next(n for n in itertools.chain([name], numbered) if n not in called))
    of.normal_ = {product: last._replace(names=tuple(called))}
    return of


def _small(seen: Sequence[Seen]) -> list[tuple[str, bytes]]:
    """Address and small copy of each."""
    pixels = [overlay.on_page(_pixels(one), SMALL) for one in seen]
    return [(digest(x), encoded(x, 'jpeg')) for x in pixels]


def _pixels(one: Seen) -> Array:
    return np.asarray(one.image.convert('RGB'))
