"""The page's classifier: what the page shows of it, and its answers."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anyshot_jax.classify.frozen import Frozen, frozen
from anyshot_jax.classify.heat_map import last_map, lead, left_out
from anyshot_jax.classify.picture_input import shown
from anyshot_jax.classify.trained_classifier import TrainedClassifier
from anyshot_jax.data.readers import copies
from anyshot_jax.data.splits import plain
from anyshot_jax.report.overlay import with_heat
from anyshot_jax.serve.uploads import Limits, Seen, Upload, digest, encoded, opened, uri
from anyshot_jax.types import Array, InputError

SHOWN = 3  # classes and neighbours of an answer
COPY = 0.9999  # similarity from which an image is one of the examples
NAMED = 3  # names beside a count


class Taught(NamedTuple):
    """A classifier, and what is found out about its support once a change."""

    classifier: Any
    digests: list[str]  # of the support's images, in order
    notes: list[dict[str, Any]]  # counts of what looks odd among them, see `_odd`


class Sight(NamedTuple):
    """An image as the encoder sees it."""

    side: int  # pixels
    cells: Callable[[Array], tuple[Array, Array]] | None  # `last_map`, where that makes heat maps


def sight(classifier: Any) -> Sight:
    """Loads the encoder and compiles it beforehand."""
    net = classifier.encoder_
    if not isinstance(net, Frozen):  # a trained method answers by more than the nearest mean
        return Sight(frozen(net.encoder).size if net.encoder else net.shape[0], None)
    net.of_squares(np.zeros((1, net.size, net.size, 3), np.uint8))
    tiles = classifier.reading_.crop == 'tiles'  # the heat is of one square
    return Sight(net.size, None if tiles else last_map(net.encoder, net.size))


def taught(classifier: Any) -> Taught:
    images = classifier.support_images_ if is_fitted(classifier) else []
    return Taught(classifier, [digest(x) for x in images], _odd(classifier))


def is_fitted(classifier: Any) -> bool:
    return hasattr(classifier, 'classes_')


def save(model: Taught, path: Path) -> None:
    """Writes the classifier; InputError where it has no class."""
    check(model)
    model.classifier.save(path)


def check(model: Taught) -> None:
    """Raises InputError if there is no class yet."""
    if not is_fitted(model.classifier):
        raise InputError('the model has no class yet: add one first')


# What the page shows.


def state(model: Taught, heat: bool) -> dict[str, Any]:
    """The model as JSON: its classes, and what can be said of it."""
    of = model.classifier
    if isinstance(of, TrainedClassifier):
        by = f'trained run {Path(of.workdir).name}'
    else:
        by = f'encoder {Path(of.counted() if is_fitted(of) else of.encoder).name}'
    fitted = is_fitted(of)
    labels = [str(c) for c in of.support_labels_] if fitted else []
    images: dict[str, list[str]] = defaultdict(list)
    for address, label in zip(model.digests, labels, strict=True):
        images[label].append(address)
    texts = {str(c): text for c, text in of.descriptions_.items()} if fitted else {}
    count = of.held_out_confusion() if fitted else np.zeros((0, 0), int)
    return {
        'by': by,
        'together': of.transductive,  # queries of a call help each other
        'heat': heat,
        'unknown': fitted and of.threshold_ is not None,
        'false_alarm': of.false_alarm_ if fitted else None,
        'detected': of.unseen_detected_ if fitted else None,
        'held_out': [int(np.trace(count)), int(count.sum())],  # examples called right, of how many
        'notes': model.notes,
        'classes': [
            {'name': c, 'description': texts.get(c, ''), 'images': images.get(c, [])}
            for c in names_of(of)
        ],
    }


def thumbnail(model: Taught, address: str) -> bytes | None:
    """PNG of the support image of this digest; None if there is none."""
    if address not in model.digests:
        return None
    return encoded(model.classifier.support_images_[model.digests.index(address)], 'png')


def _odd(classifier: Any) -> list[dict[str, Any]]:
    """Oddities among the examples and the classes: {kind, number, names} of each kind."""
    if not is_fitted(classifier):
        return []
    found: dict[str, list[str]] = defaultdict(list)
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names_of(classifier):
        alike[plain(name)].append(name)
    for same in alike.values():
        if len(same) > 1:
            found['classes of nearly the same name'].append(' and '.join(map(repr, same)))
    images, names = classifier.support_images_, classifier.support_names_
    label = np.searchsorted(classifier.classes_, classifier.support_labels_)
    first: dict[tuple[str, int], int] = {}
    for row, image in enumerate(images):
        before = first.setdefault((digest(image), int(label[row])), row)
        if before != row:
            found['copies within a class'].append(f'{names[before]} and {names[row]}')
    smalls = [copies.small(x) for x in images]
    for i, j in copies.nearly_alike(np.array(smalls, np.uint8).reshape(-1, 8, 9), label):
        found['examples nearly alike in different classes'].append(f'{names[i]} and {names[j]}')
    return [
        {'kind': kind, 'number': len(some), 'names': some[:NAMED]} for kind, some in found.items()
    ]


# Its answers.


def squares_of(
    classifier: Any, side: int, uploads: Sequence[Upload], limits: Limits
) -> tuple[list[Array], list[Seen]]:
    """[side, side, 3] uint8 of each image, what the encoder sees of it; and what was odd.

    Needs no lock. Raises as `opened`.
    """
    how = classifier.reading_._replace(max_pixels=limits.pixels)
    squares, seen = [], []
    for one in opened(uploads, how, limits.all_pixels):
        squares.append(shown(one.image, side, how))
        one.image.close()
        seen.append(one)
    return squares, seen


def answers(
    model: Taught, sight: Sight, uploads: Sequence[Upload], squares: list[Array]
) -> list[dict[str, Any]]:
    """The model's answers about images, as JSON.

    Raises:
      InputError: there is no class yet.
    """
    check(model)
    of = model.classifier
    told = of.answer(items_of(of, uploads, squares), k=SHOWN)
    return [_answer(model, sight, *one) for one in zip(squares, *told, strict=True)]


def _answer(model: Taught, sight: Sight, square, shares, unknown, nearest) -> dict[str, Any]:
    best = np.argsort(-shares, kind='stable')
    names = names_of(model.classifier)
    heat, grid = _heat(model.classifier, sight, square, int(best[0]))
    return {
        'label': names[best[0]],
        'unknown': bool(unknown),
        'shares': [[names[c], round(float(shares[c]), 4)] for c in best[:SHOWN]],
        'nearest': [
            {
                'label': str(n.label),
                'name': str(n.name),
                'similarity': round(float(n.similarity), 4),
                'image': model.digests[n.row],
            }
            for n in nearest
        ],
        'copy': bool(nearest and nearest[0].similarity > COPY),
        'image': uri(square),
        'heat': None if heat is None else uri(heat),
        'grid': grid,  # places that the heat tells apart, up and across
    }


def _heat(
    classifier: Any, sight: Sight, square: Array, winner: int
) -> tuple[Array | None, list[int] | None]:
    """The image under the heat of what puts the class ahead; None where nothing can tell.

    From 0 to the image's own maximum: what speaks against the class has no colour. It is
    about the nearest class mean, also where queries help each other.
    """
    if sight.cells is None:
        return None, None
    cells, joined = sight.cells(square)
    fall = left_out(cells, lead(classifier.head_, winner, joined))
    return with_heat(square, fall, 0.0, float(fall.max())), list(fall.shape)


def names_of(classifier: Any) -> list[str]:
    """Names of the classes; [] before there is one."""
    return [str(c) for c in classifier.classes_] if is_fitted(classifier) else []


def items_of(classifier: Any, uploads: Sequence[Upload], squares: list[Array]) -> list[Any]:
    """Inputs of the model: the squares, or where it sees tiles the files."""
    tiles = classifier.reading_.crop in ('tiles', 'auto')
    return [upload.content for upload in uploads] if tiles else squares
