"""The model behind the page: what the page shows of it, and what the page may do to it."""

import base64
import hashlib
import io
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from anyshot_jax import encoders, heat_map
from anyshot_jax.classifier import AnyShotClassifier
from anyshot_jax.data.images import fit, read_picture
from anyshot_jax.report.overlay import SIDE, with_heat
from anyshot_jax.types import InputError

SHOWN = 3  # classes and neighbours of an answer


class Limits(NamedTuple):
    """What a request may bring."""

    bytes: int = 64 * 2**20
    pictures: int = 16
    pixels: int = 50_000_000  # of one picture, unpacked
    all_pixels: int = 200_000_000  # of the pictures that a class gets at once: they lie in memory
    name: int = 100  # characters
    description: int = 2000


class Upload(NamedTuple):
    """A picture file as it came; its name is for messages only."""

    name: str
    content: bytes


class Served:
    """A classifier used by many threads, one at a time."""

    def __init__(self, classifier: AnyShotClassifier, save_to: Path | None, limits: Limits):
        self.classifier, self.save_to, self.limits = classifier, save_to, limits
        self._lock = threading.Lock()
        self._on_disk = _stamp(save_to)
        self._maps = None

    # What the page shows.

    def state(self) -> dict[str, Any]:
        """The model as JSON: its classes, and what can be done with it."""
        with self._lock:
            return self._state()

    def thumbnail(self, digest: str) -> bytes | None:
        """PNG of the support picture with this digest; None if there is none."""
        with self._lock:
            row = self._rows().get(digest)
            return None if row is None else _file(self.classifier.support_pictures_[row], 'png')

    def predict(self, uploads: Sequence[Upload]) -> list[dict[str, Any]]:
        """The model's answers about pictures, as JSON."""
        with self._lock:
            if not self._classes():
                raise InputError('the model has no class yet: add one first')
            squares, features = [], []
            for upload in uploads:  # one by one: only one is unpacked at a time
                picture = read_picture(upload.content, self.limits.pixels, upload.name)
                squares.append(fit(picture.convert('RGB'), SIDE))
                features.append(self.classifier.embed([picture]))
            x = np.concatenate(features)
            # Together, for methods by which queries help each other.
            shares, unknown = self.classifier.predict_proba(x), self.classifier.is_unknown(x)
            nearest = self.classifier.explain(x, k=SHOWN)
            digests = {row: digest for digest, row in self._rows().items()}
            return [
                self._answer(squares[i], shares[i], bool(unknown[i]), nearest[i], digests)
                for i in range(len(x))
            ]

    def _answer(self, square, shares, unknown, nearest, digests) -> dict[str, Any]:
        classes = self.classifier.classes_
        best = np.argsort(-shares, kind='stable')[:SHOWN]
        winner = classes[best[0]]
        heat = self._heat(square, winner)
        return {
            'label': str(winner),
            'unknown': unknown,
            'shares': [[str(classes[c]), round(float(shares[c]), 4)] for c in best],
            'nearest': [
                {
                    'label': str(n.label),
                    'name': str(n.name),
                    'similarity': round(float(n.similarity), 4),
                    'picture': digests.get(n.row),
                }
                for n in nearest
            ],
            'picture': _uri(square),
            'heat': None if heat is None else _uri(heat),
        }

    def _heat(self, square: np.ndarray, winner: Any) -> np.ndarray | None:
        """The picture under the heat of what speaks for the class; None where that can't be told.

        Colours run from 0 to the picture's own maximum: what speaks against the class has none.
        """
        labels, z = self.classifier.support_labels_, self.classifier.support_features_
        if self._map() is None or not (labels == winner).any():
            return None
        means = np.stack([z[labels == c].mean(0) for c in np.unique(labels)])
        centre = means.mean(0) if len(means) > 1 else np.zeros_like(means[0])
        prototype = z[labels == winner].mean(0)
        share = heat_map.likeness(self._map()(square[None])[0], prototype, centre)
        return with_heat(square, share, 0.0, float(share.max()))
