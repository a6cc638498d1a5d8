"""Answers of a classifier that keeps its support: classes, probabilities, unknown, neighbours."""

import abc
import warnings
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.validation import check_is_fitted, validate_data

from anyshot_jax.classify import nearest_mean, vectors
from anyshot_jax.classify.feature_store import FeatureStore, store_of
from anyshot_jax.classify.frozen import Frozen
from anyshot_jax.classify.nearest_mean import Head
from anyshot_jax.classify.picture_input import READING, no_thumbnails, thumbnails
from anyshot_jax.classify.trained import Trained
from anyshot_jax.data.readers.images import Reading
from anyshot_jax.data.readers.inputs import images_of, rows_of
from anyshot_jax.data.readers.notes import Notes
from anyshot_jax.types import Array, InputError


class Neighbour(NamedTuple):
    """A support item like the one asked about."""

    row: int  # in the support
    label: Any
    name: str
    similarity: float  # cosine, -1..1


class Answers(NamedTuple):
    """All that is said of N items."""

    probability: Array  # [N, C]
    unknown: Array  # [N] bool
    neighbours: list[list[Neighbour]]  # of each, the nearest first


class Answering(abc.ABC):
    """Mixin of what a fitted estimator says of items; `SupportClassifier` names its attributes."""

    unknown: Any
    transductive = False  # whether the items of a call help each other
    classes_: Array
    head_: Head
    temperature_: float
    frame_: vectors.Frame
    of_images_: bool
    support_features_: Array
    support_labels_: Array
    support_names_: list[str]

    @property
    @abc.abstractmethod
    def encoder_(self) -> Frozen | Trained:
        """Encoder of images; loaded when it is first asked for, once a process."""

    @property
    def reading_(self) -> Reading:
        """Settings for reading images."""
        return READING

    @abc.abstractmethod
    def _scores(self, x: Array, z: Array) -> Array:
        """[N, C] of features x, which the head's space has at z."""

    def _probabilities(self, x: Array, z: Array, score: Array) -> Array:
        p = nearest_mean.probabilities(score.astype(np.float64), self.temperature_)
        return p / p.sum(1, keepdims=True)

    def embed(self, X) -> Array:
        """[N, D] float32, the encoder's features of images; vectors as they are."""
        return self._features(X)[0]

    def feature_store(self) -> FeatureStore:
        """Features of image files, kept in the cache directory: embedded once, not at every call.

        Its rows are what `embed` gives, and what `fit(..., features=)` and `predict` take.
        """
        return store_of(self.encoder_, self.reading_)

    def predict(self, X) -> Array:
        """[N] the most likely classes, and `unknown` for what is unlike them all."""
        p, unknown = self._judged(*self._placed(X))
        answer = self.classes_[p.argmax(1)]
        return answer if self.unknown is None else np.where(unknown, self.unknown, answer)

    def predict_proba(self, X) -> Array:
        """[N, C] probabilities of the classes, as if there were no others."""
        return self._judged(*self._placed(X))[0]

    def is_unknown(self, X) -> Array:
        """[N] bool: less like any class than all but `false_alarm` of the known ones' items."""
        return self._judged(*self._placed(X))[1]

    def explain(self, X, k: int = 3) -> list[list[Neighbour]]:
        """The k support items most like each item, the nearest first."""
        return self._neighbours(self._features(X)[0], k)

    def answer(self, X, k: int = 3) -> Answers:
        """`predict_proba`, `is_unknown` and `explain` of the same items in one go."""
        x, z = self._placed(X)
        return Answers(*self._judged(x, z), self._neighbours(x, k))

    def _placed(self, X) -> tuple[Array, Array]:
        """Features, and where the head's space has them."""
        x = self._features(X)[0]
        return x, nearest_mean.place(self.head_.space, x)

    def _neighbours(self, x: Array, k: int) -> list[list[Neighbour]]:
        like = self._directions(x) @ self._support_unit.T
        rows = np.argsort(-like, axis=1, kind='stable')[:, :k]
        labels = self.support_labels_.tolist()  # Python's own texts and numbers
        return [
            [Neighbour(int(r), labels[r], self.support_names_[r], float(of[r])) for r in near]
            for of, near in zip(like, rows, strict=True)
        ]  # fmt: skip

    def _judged(self, x: Array, z: Array) -> tuple[Array, Array]:
        """Probabilities [N, C] and whether each is unknown [N]."""
        score = self._scores(x, z)
        unknown = nearest_mean.familiarity(self.head_, score) < self.head_.threshold
        return self._probabilities(x, z, score), unknown

    def _features(self, X, keep: bool = False) -> tuple[Array, Array]:
        """Features [N, D], and thumbnails if they are to be kept."""
        check_is_fitted(self)
        items = images_of(X, self.reading_.span)
        if items is not None:
            if not self.of_images_:
                raise InputError('this classifier was fitted on feature vectors, X is images')
            net = self.encoder_
            if keep:
                return self._noted(net.features_and, items, thumbnails)
            return self._noted(net.features, items), no_thumbnails()
        x = validate_data(self, rows_of(X), dtype=np.float64, reset=False)
        if far := vectors.too_far(x, self.frame_):
            warnings.warn(
                f'{far} of {len(x)} feature vectors are over {vectors.FARTHEST:g} times as far '
                'away as the support: what is said of them means nothing',
                stacklevel=4,
            )
        x = vectors.placed(x, self.frame_)
        return x, no_thumbnails(len(x))

    def _noted(self, read, *args):
        """read(*args, how, notes); what of the images is worth a word is warned of."""
        notes = Notes()
        found = read(*args, self.reading_, notes)
        if notes:
            warnings.warn(f'among the images: {notes}', stacklevel=4)
        return found

    def index_support(self) -> None:
        """Places the support where neighbours are looked for at every call."""
        self._support_unit = self._directions(self.support_features_)

    def _directions(self, x: Array) -> Array:
        """Features [N, D] to length 1: an encoder's as they are, vectors around the support's mean.

        The head's own space isn't asked: it pulls the examples of a class into one point, so that
        all of them would be equally near.
        """
        shift = self.head_.space.shift
        return nearest_mean.unit(x[:, : len(shift)] if self.of_images_ else x - shift)

    def _label(self) -> Array:
        """[N] the support's labels as places in `classes_`."""
        return np.searchsorted(self.classes_, self.support_labels_)
