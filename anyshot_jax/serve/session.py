"""The model behind the page: what the page shows of it, and what the page may do to it."""

import base64
import copy
import hashlib
import io
import re
import threading
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from sklearn.base import clone

from anyshot_jax.classify.classifier import AnyShotClassifier
from anyshot_jax.classify.frozen import Frozen, frozen
from anyshot_jax.classify.heat_map import last_map, lead, left_out
from anyshot_jax.classify.picture_input import shown
from anyshot_jax.classify.trained_classifier import TrainedClassifier
from anyshot_jax.data.readers.sources import image_of
from anyshot_jax.report.overlay import with_heat
from anyshot_jax.types import Array, InputError

SHOWN = 3  # classes and neighbours of an answer


class Limits(NamedTuple):
    """Limits of a request, and of a model."""

    bytes: int = 64 * 2**20
    images: int = 16
    pixels: int = 50_000_000  # of one image, unpacked
    all_pixels: int = 200_000_000  # of all images of a request
    seconds: int = 60  # that a request may take to arrive
    name: int = 100  # characters
    description: int = 2000
    classes: int = 1000
    support: int = 10_000  # images


class Upload(NamedTuple):
    """An image file as it came; its name is shown, and never a path."""

    name: str
    content: bytes


class Served:
    """A classifier used by many threads, one at a time."""

    def __init__(self, classifier: AnyShotClassifier, save_to: Path | None, limits: Limits):
        self.classifier, self.save_to, self.limits = classifier, save_to, limits
        self._lock = threading.Lock()
        self._unpacking = threading.Lock()  # only one image is unpacked at once: it may be large
        self._on_disk, self._unsaved = _stamp(save_to), False
        self._digests: tuple[Any, list[str]] = None, []
        net = classifier.encoder_
        self._cells = None  # a trained method answers by more than the nearest class mean
        if isinstance(net, Frozen):
            self._side = net.size
            if classifier.reading_.crop != 'tiles':  # the heat is of one square
                self._cells = last_map(net.encoder, net.size)
            net.of_squares(np.zeros((1, net.size, net.size, 3), np.uint8))  # compiled beforehand
        else:
            self._side = frozen(net.encoder).size if net.encoder else net.shape[0]

    # What the page shows.

    def state(self) -> dict[str, Any]:
        """The model as JSON: its classes, and what can be done with it."""
        with self._lock:
            return self._state()

    def _state(self) -> dict[str, Any]:
        model = self.classifier
        if isinstance(model, TrainedClassifier):
            by = f'trained run {Path(model.workdir).name}'
        else:
            by = f'encoder {Path(model.encoder).name}'
        rows = self._rows()
        labels = [str(c) for c in model.support_labels_] if rows else []
        images: dict[str, list[str]] = {}
        for digest, label in zip(rows, labels, strict=True):
            images.setdefault(label, []).append(digest)
        texts = {str(c): text for c, text in model.descriptions_.items()} if self._fitted() else {}
        return {
            'by': by,
            'together': model.transductive,  # queries of a call help each other
            'heat': self._cells is not None,
            'unknown': self._fitted() and model.threshold_ is not None,
            'false_alarm': model.false_alarm_ if self._fitted() else None,
            'detected': model.unseen_detected_ if self._fitted() else None,
            'file': self.save_to.name if self.save_to else None,
            'unsaved': self._unsaved,
            'limits': self.limits._asdict(),
            'classes': [
                {'name': c, 'description': texts.get(c, ''), 'images': images.get(c, [])}
                for c in self._classes()
            ],
        }

    def thumbnail(self, digest: str) -> bytes | None:
        """PNG of the support image of this digest; None if there is none."""
        with self._lock:
            if digest not in (rows := self._rows()):
                return None
            return _file(self.classifier.support_images_[rows.index(digest)], 'png')

    def predict(self, uploads: Sequence[Upload]) -> list[dict[str, Any]]:
        """The model's answers about images, as JSON.

        Raises:
          InputError: there is no class yet, or a file is no image, damaged or too large.
        """
        with self._lock:
            if not self._fitted():
                raise InputError('the model has no class yet: add one first')
        squares = self._squares(uploads)
        with self._lock:
            if not self._fitted():  # any more
                raise InputError('the model has no class yet: add one first')
            model = self.classifier
            shares, unknown, nearest = model.answer(self._items(uploads, squares), k=SHOWN)
            rows = self._rows()
            return [
                self._answer(squares[i], shares[i], bool(unknown[i]), nearest[i], rows)
                for i in range(len(squares))
            ]

    def _answer(self, square, shares, unknown, nearest, rows) -> dict[str, Any]:
        best = np.argsort(-shares, kind='stable')
        names = self._classes()
        heat = self._heat(square, int(best[0]))
        return {
            'label': names[best[0]],
            'unknown': unknown,
            'shares': [[names[c], round(float(shares[c]), 4)] for c in best[:SHOWN]],
            'nearest': [
                {
                    'label': str(n.label),
                    'name': str(n.name),
                    'similarity': round(float(n.similarity), 4),
                    'image': rows[n.row],
                }
                for n in nearest
            ],
            'image': _uri(square),
            'heat': None if heat is None else _uri(heat),
        }

    def _heat(self, square: np.ndarray, winner: int) -> np.ndarray | None:
        """The image under the heat of what puts the class ahead; None where nothing can tell.

        From 0 to the image's own maximum: what speaks against the class has no colour. It is
        about the nearest class mean, also where queries help each other.
        """
        if self._cells is None:
            return None
        fall = left_out(self._cells(square[None])[0], lead(self.classifier.head_, winner))
        return with_heat(square, fall, 0.0, float(fall.max()))

    # What it may do.

    def add(self, name: str, description: str, uploads: Sequence[Upload]) -> dict[str, Any]:
        """Adds images or a description, or both, to a class, new or not; gives the new state.

        Raises:
          InputError: neither came, a text or a number is beyond the limits, or a file is no
            image; the model is as it was then.
        """
        name, limits = _line(name, 'the name of the class', self.limits.name), self.limits
        text = _line(description, f'the description of {name!r}', limits.description, empty=True)
        if not uploads and not text:
            raise InputError(f'class {name!r}: choose images or write a description')
        squares = self._squares(uploads)
        with self._lock:
            names = self._classes()
            items = self._items(uploads, squares)
            if name not in names and len(names) >= limits.classes:
                raise InputError(f'the model has {len(names)} classes, no more fit')
            if len(self._rows()) + len(squares) > limits.support:
                raise InputError(f'a model holds {limits.support:,} support images at most')
            label = self._label(name)
            model = copy.copy(self.classifier)  # add_class puts new arrays in place of old ones
            if self._fitted():
                model.add_class(label, items or None, text or None)
            else:
                texts = {label: text} if text else None
                model.fit(items or None, [label] * len(squares) or None, texts)
            if squares:
                kept = model.support_names_[: -len(squares)]
                model.support_names_ = [*kept, *(u.name for u in uploads)]
            self.classifier, self._unsaved = model, True
            return self._state()

    def remove(self, name: str) -> dict[str, Any]:
        """Removes a class; gives the new state.

        Raises:
          InputError: there is no such class.
        """
        with self._lock:
            names = self._classes()
            if name not in names:
                raise InputError(f'there is no class {name[:100]!r}: load the page again')
            if len(names) == 1:
                self.classifier = clone(self.classifier)
            else:
                model = copy.copy(self.classifier)
                model.remove_class(model.classes_.tolist()[names.index(name)])
                self.classifier = model
            self._unsaved = True
            return self._state()

    def save(self) -> dict[str, Any]:
        """Writes the model to the file of the command line; gives the new state.

        Raises:
          InputError: none was named, there is nothing to save, or another program wrote it since.
        """
        with self._lock:
            if self.save_to is None:
                raise InputError('nothing may be written: start the server with --save')
            if not self._fitted():
                raise InputError('the model has no class yet: add one first')
            if _stamp(self.save_to) != self._on_disk:
                raise InputError(
                    f'{self.save_to.name} was changed by something else since the start: move it '
                    'away, then save'
                )
            self.classifier.save(self.save_to)
            self._on_disk, self._unsaved = _stamp(self.save_to), False
            return self._state()

    def _fitted(self) -> bool:
        return hasattr(self.classifier, 'classes_')

    def _classes(self) -> list[str]:
        return [str(c) for c in self.classifier.classes_] if self._fitted() else []

    def _label(self, name: str) -> Any:
        """The class of this name as the model writes it: its classes may be numbers."""
        if not self._fitted():
            return name
        classes = self.classifier.classes_
        if name in (names := self._classes()):
            return classes.tolist()[names.index(name)]
        if classes.dtype.kind in 'USO':
            return name
        try:
            return classes.dtype.type(name).item()
        except ValueError:
            raise InputError(f'class {name!r}: the classes of this model are numbers') from None

    def _rows(self) -> list[str]:
        """Digest of every support image's content, which is its address."""
        if not self._fitted():
            return []
        images = self.classifier.support_images_
        if self._digests[0] is not images:  # a change of the support makes a new array
            found = [hashlib.blake2b(x.tobytes(), digest_size=16).hexdigest() for x in images]
            self._digests = images, found
        return self._digests[1]

    def _squares(self, uploads: Sequence[Upload]) -> list[Array]:
        """[side, side, 3] uint8 of each image, what the encoder sees of it.

        The others' requests go on meanwhile.

        Raises:
          InputError: a file is no image, damaged or too large, or all of them are together.
        """
        squares, pixels = [], 0
        how = self.classifier.reading_._replace(max_pixels=self.limits.pixels)
        for upload in uploads:
            with self._unpacking:
                image = image_of(upload.content, upload.name, how)
                pixels += image.width * image.height
                if pixels > self.limits.all_pixels:
                    raise InputError(
                        f'more than {self.limits.all_pixels:,} pixels in one request: send fewer '
                        'images at once'
                    )
                squares.append(shown(image, self._side, how))
        return squares

    def _items(self, uploads: Sequence[Upload], squares: list[Array]) -> list[Any]:
        """What the model reads: the squares, or where it sees tiles the files."""
        tiles = self.classifier.reading_.crop in ('tiles', 'auto')
        return [upload.content for upload in uploads] if tiles else squares


def _line(text: str, what: str, most: int, empty: bool = False) -> str:
    """One line of text without control characters; InputError if it is too long, or empty."""
    text = unicodedata.normalize('NFC', text)
    text = ' '.join(re.sub(r'[\x00-\x1f\x7f-\x9f\ud800-\udfff]', ' ', text).split())
    if not (text or empty):
        raise InputError(f'{what} is missing')
    if len(text) > most:
        raise InputError(f'{what} has {len(text):,} characters: {most:,} at most')
    return text


def _stamp(path: Path | None) -> tuple[int, int] | None:
    """Signature that changes when a file is written; None if the file isn't there."""
    if path is None or not path.exists():
        return None
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def _file(image: np.ndarray, kind: str) -> bytes:
    data = io.BytesIO()
    how = {} if kind == 'png' else {'quality': 85, 'subsampling': 0}
    Image.fromarray(image).save(data, kind, **how)
    return data.getvalue()


def _uri(image: np.ndarray) -> str:
    return 'data:image/jpeg;base64,' + base64.b64encode(_file(image, 'jpeg')).decode()
