"""Classify images from any number of examples: a scikit-learn estimator.

    classifier = AnyShotClassifier().fit(paths, labels, descriptions={'dent': 'a hollow, ...'})
    classifier.predict(more_paths)

Images pass a frozen encoder; classes are told by the nearest mean (`nearest_mean.py`). A class
may have no example, only words (`word_means.py`), one, or many.
"""

import copy
import warnings
from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as e:
    raise ImportError(
        "AnyShotClassifier is a scikit-learn estimator: pip install 'anyshot-jax[app]'"
    ) from e

from anyshot_jax.classify import fitting, model_file, nearest_mean
from anyshot_jax.classify.frozen import Frozen, frozen
from anyshot_jax.classify.inputs import examples_of, images_of, is_folder, rows_of
from anyshot_jax.classify.labels import (
    check_descriptions,
    check_labels,
    check_unknown,
    labels_of,
    one_of_each,
    warn_alike,
)
from anyshot_jax.classify.picture_input import MAX_PIXELS, THUMBNAIL, thumbnails
from anyshot_jax.classify.trained import Trained, trained
from anyshot_jax.classify.transduce import transduced
from anyshot_jax.data.readers.images import Reading
from anyshot_jax.data.readers.notes import Notes
from anyshot_jax.data.readers.sources import name_of
from anyshot_jax.types import Array, InputError

METHODS = ('prototypes', 'refine')


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


class AnyShotClassifier(ClassifierMixin, BaseEstimator):
    """The nearest class mean of frozen features, calibrated, with classes of words and 'unknown'.

    X is images (paths, bytes, open files, PIL images, RGB arrays; one or a list, see `inputs.py`),
    or feature vectors [N, D], such as `embed` gives.

    Args:
      encoder: as `frozen` takes it, such as 'efficientnet_lite0+stride16' for surfaces; unused for
        feature vectors.
      method: 'prototypes', every item by itself; or 'refine', all items of a call together, which
        are taken to be spread evenly over the classes (transductive, see methods/refine.py); or
        the workdir of a trained run, whose method answers from the support (`trained.py`).
      text_encoder: of names and descriptions, for `encoders.load`, or 'tfidf'.
      unknown: the answer to what is unlike all classes; None: the nearest class whatever it is.
      false_alarm: share of known classes' items that may be called unknown, 0 < share < 1.
      power, normalise, shrink: see `nearest_mean.fit_space`; None: 0.5 and True for images, 1 and
        False for feature vectors.
      crop: what is seen of images that are no squares: 'whole' (sides stretched), 'centre' (the
        largest centred square), 'tiles' (squares along the longer side, their features' mean), or
        'auto': centre where the sides differ by a third at most, else whole.
      range: (low, high), the values of 16-bit and float images that become black and white; None:
        each image's own, see `pixels.value_range`. max_pixels: a larger image is refused.

    Attributes:
      classes_: [C]. head_: `nearest_mean.Head`. temperature_, threshold_ (None: no class has two
      examples, so nothing tells), false_alarm_ (what to expect of the threshold).
      support_features_ [N, D], support_labels_ [N], support_names_, support_images_
      [N, 64, 64, 3] uint8 (black for feature vectors).
    """

    def __init__(
        self,
        encoder: str = 'efficientnet_lite0',
        method: str = 'prototypes',
        *,
        text_encoder: str = 'minilm_l6',
        unknown: Any = None,
        false_alarm: float = 0.05,
        power: float | None = None,
        normalise: bool | None = None,
        shrink: float = nearest_mean.SHRINK,
        crop: str = 'auto',
        range: tuple[float, ...] | None = None,
        max_pixels: int = MAX_PIXELS,
    ):
        self.encoder = encoder
        self.method = method
        self.text_encoder = text_encoder
        self.unknown = unknown
        self.false_alarm = false_alarm
        self.power = power
        self.normalise = normalise
        self.shrink = shrink
        self.crop = crop
        self.range = range
        self.max_pixels = max_pixels

    # Learning.

    def fit(
        self, X, y=None, descriptions: Mapping[Any, str] | None = None,
        features: Array | None = None,
    ):  # fmt: skip
        """Learns classes from examples X, y and from descriptions; either may be empty.

        Args:
          X: examples; or, without y, a folder <class>/<image> (and classes.json, if it is there).
          features: [N, D], what `embed` gives for images X, where that is known already.
        Raises:
          InputError: an image that can't be read, a field that can't be; says which.
          ValueError: feature vectors or labels that scikit-learn refuses.
        """
        self._check()
        self.encoder_digest_ = ''  # of a loaded model: the weights that it was fitted with
        check_descriptions({} if descriptions is None else descriptions)
        descriptions = dict(descriptions or {})
        if y is None and X is not None and is_folder(X):
            X, y, described = examples_of(X)
            descriptions = {**described, **descriptions}
        if descriptions and isinstance(X, Sized) and len(X) == 0:
            X = None
        if X is None:
            if not descriptions:
                raise ValueError('nothing to learn from: give X and y, or descriptions')
            if self._is_trained():
                raise InputError(f'method={self.method!r} needs images of every class')
            self.of_images_, y = True, np.array([], dtype=str)
            x, names, images = np.zeros((0, self._net().dim), np.float32), [], _no_images()
            self.n_features_in_ = x.shape[1]
        else:
            if y is None:
                raise ValueError('requires y to be passed, but the target y is None')
            items, y = images_of(X, self._reading().span), labels_of(y)
            self.of_images_ = items is not None
            x, y, names, images = self._examples(
                rows_of(X) if items is None else items, y, features
            )
        self.support_features_, self.support_names_ = x, names
        self.support_images_, self.descriptions_ = images, descriptions
        self.classes_ = one_of_each([*np.unique(y).tolist(), *descriptions], y.dtype)
        self.support_labels_ = np.asarray(y, dtype=self.classes_.dtype)
        check_unknown(self.unknown, self.classes_.tolist())
        warn_alike(self.classes_.tolist())
        return self._learn()

    def _examples(self, X, y, features=None):
        if not self.of_images_:
            x, y = validate_data(self, X, y, dtype=np.float64)
            check_labels(y)
            return x.astype(np.float32), y, [f'#{i}' for i in range(len(x))], _no_images(len(x))
        y = np.asarray(y)
        y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
        if y.shape != (len(X),):
            raise ValueError(f'{len(X)} images, but labels of shape {y.shape}')
        check_labels(y)
        net = self._net()
        if features is None:
            features, small = self._noted(net.features_and, X, thumbnails)
        else:
            features, small = (
                np.asarray(features, np.float32),
                net.of_all(X, thumbnails, self._reading()),
            )
            if features.shape != (len(X), net.dim):
                raise ValueError(f'{len(X)} images, but features {features.shape}')
        self.n_features_in_ = net.dim
        return features, y, [name_of(item, i) for i, item in enumerate(X)], small

    def _learn(self):
        """The head, of what is kept of the support and said of the classes."""
        power = self.power if self.power is not None else 0.5 if self.of_images_ else 1.0
        normalise = self.of_images_ if self.normalise is None else self.normalise
        how = {'power': power, 'normalise': normalise, 'shrink': self.shrink}
        net = self._net() if self.of_images_ or self._is_trained() else None
        self.head_, found = fitting.learn(
            self.support_features_, self._label(), self.classes_.tolist(), self.descriptions_,
            net=net, how=how, text_encoder=self.text_encoder, false_alarm=self.false_alarm,
        )  # fmt: skip
        self.held_out_, self.temperature_ = found.held_out, float(self.head_.temperature)
        self.threshold_, self.false_alarm_ = found.threshold, found.false_alarm
        self._remember()
        return self

    def _remember(self):
        """Where the support is: neighbours are looked for there at every call."""
        z = nearest_mean.place(self.head_.space, self.support_features_)
        self._support_unit = nearest_mean.unit(z)

    def _label(self):
        """[N] the support's labels as places in `classes_`."""
        return np.searchsorted(self.classes_, self.support_labels_)

    def add_class(self, name: Any, images: Any = None, description: str | None = None):
        """One more class, or more examples of one that is there; the others' stay.

        Args:
          images: images or feature vectors as for `fit`. description: of a class without any.
        Raises:
          InputError: neither is given, images where there are vectors, or a name of another kind
            than the others; the classifier is as it was then.
        """
        check_is_fitted(self)
        return self._become(copy.copy(self)._added(name, images, description))

    def _added(self, name, images, description):
        items = None if images is None else images_of(images, self._reading().span)
        rows = rows_of(images) if items is None else items
        number = 0 if images is None else len(rows)
        if not number and not description:
            raise InputError(f'class {name!r}: give images, a description, or both')
        if number:
            if items is not None and not self.of_images_:
                raise InputError(f'class {name!r}: this classifier knows feature vectors only')
            x, small = self._features(rows, keep=True)
            at = len(self.support_names_)
            names = [name_of(item, at + i) if items is not None else f'#{at + i}'
                     for i, item in enumerate(rows)]  # fmt: skip
            self.support_features_ = np.concatenate([self.support_features_, x])
            self.support_images_ = np.concatenate([self.support_images_, small])
            self.support_names_ = [*self.support_names_, *names]
            labels = [*self.support_labels_.tolist(), *[name] * number]
        else:
            labels = self.support_labels_.tolist()
        if description:
            check_descriptions({name: description})
            self.descriptions_ = {**self.descriptions_, name: description}
        self.classes_ = one_of_each([*self.classes_.tolist(), name], self.classes_.dtype)
        self.support_labels_ = np.array(labels, dtype=self.classes_.dtype)
        return self._learn()

    def _become(self, other):
        """Arrays are replaced and never written to, so that a copy that failed leaves no trace."""
        vars(self).update(vars(other))
        return self

    def remove_class(self, name: Any):
        """Forgets a class and its examples.

        Raises:
          InputError: there is none of that name, or it is the last.
        """
        check_is_fitted(self)
        if name not in self.classes_.tolist():
            raise InputError(f'there is no class {name!r}; there are '
                             f'{", ".join(map(str, self.classes_))}')  # fmt: skip
        if len(self.classes_) == 1:
            raise InputError(f'{name!r} is the only class: a classifier needs one')
        return self._become(copy.copy(self)._without(name))

    def _without(self, name):
        kept = self.support_labels_ != name
        self.support_features_ = self.support_features_[kept]
        self.support_images_ = self.support_images_[kept]
        self.support_names_ = [n for n, k in zip(self.support_names_, kept, strict=True) if k]
        self.support_labels_ = self.support_labels_[kept]
        self.descriptions_ = {c: t for c, t in self.descriptions_.items() if c != name}
        self.classes_ = self.classes_[self.classes_ != name]
        return self._learn()

    # Answering.

    def embed(self, X) -> Array:
        """[N, D] float32, the encoder's features of images; vectors as they are."""
        return self._features(X)[0]

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
        return self._neighbours(self._placed(X)[1], k)

    def answer(self, X, k: int = 3) -> Answers:
        """`predict_proba`, `is_unknown` and `explain` of the same items in one go."""
        x, z = self._placed(X)
        return Answers(*self._judged(x, z), self._neighbours(z, k))

    def _placed(self, X):
        """Features, and where the head's space has them."""
        x = self._features(X)[0]
        return x, nearest_mean.place(self.head_.space, x)

    def _neighbours(self, z, k):
        like = nearest_mean.unit(z) @ self._support_unit.T
        rows = np.argsort(-like, axis=1, kind='stable')[:, :k]
        return [
            [Neighbour(int(r), self.support_labels_[r], self.support_names_[r], float(of[r]))
             for r in near]
            for of, near in zip(like, rows, strict=True)
        ]  # fmt: skip

    def suspicion(self) -> Array:
        """[N] 0..1: how unlikely an example's own label is when it is held out; 0 of a lone one."""
        check_is_fitted(self)
        label = self._label()
        own = self.held_out_[np.arange(len(label)), label]
        return np.where(np.isnan(own), 0, 1 - own)

    def _judged(self, x, z) -> tuple[Array, Array]:
        """Probabilities [N, C] and whether each is unknown [N]."""
        label, net = self._label(), self._net() if self._is_trained() else None
        if isinstance(net, Trained):
            score = net.scores(self.support_features_, label, len(self.classes_), x)
        else:
            score = nearest_mean.scores(self.head_, z)
        unknown = score.max(1) < self.head_.threshold
        if self.method == 'refine' and len(x) > 1:
            return transduced(self.head_, self.support_features_, label, z), unknown
        p = nearest_mean.probabilities(score.astype(np.float64), self.temperature_)
        return p / p.sum(1, keepdims=True), unknown

    def _features(self, X, keep: bool = False) -> tuple[Array, Array]:
        """Features [N, D], and thumbnails if they are to be kept."""
        check_is_fitted(self)
        items = images_of(X, self._reading().span)
        if items is not None:
            if not self.of_images_:
                raise InputError('this classifier was fitted on feature vectors, X is images')
            net = self._net()
            if keep:
                return self._noted(net.features_and, items, thumbnails)
            return self._noted(net.features, items), _no_images()
        x = validate_data(self, rows_of(X), dtype=np.float64, reset=False).astype(np.float32)
        return x, _no_images(len(x))

    def _reading(self) -> Reading:
        return Reading(self.crop, tuple(self.range or ()), self.max_pixels).check()

    def _noted(self, read, *args):
        """read(*args, how, notes); what of the images is worth a word is warned of."""
        notes = Notes()
        found = read(*args, self._reading(), notes)
        if notes:
            warnings.warn(f'among the images: {notes}', stacklevel=4)
        return found

    def _is_trained(self) -> bool:
        return self.method not in METHODS

    def _net(self) -> Frozen | Trained:
        if self._is_trained():
            return trained(str(self.method))
        net = frozen(self.encoder)
        if getattr(self, 'encoder_digest_', '') not in ('', net.encoder.digest):
            raise InputError(
                f'this model was fitted with other weights of {self.encoder}: fit it again'
            )
        return net

    def _check(self) -> None:
        if self._is_trained() and not Path(self.method).expanduser().is_dir():
            raise InputError(
                f'method={self.method!r}: need {", ".join(METHODS)} or the folder of a trained run'
            )
        if not 0 < self.false_alarm < 1:
            raise InputError(f'false_alarm={self.false_alarm}: need a share between 0 and 1')
        if not 0 < self.shrink <= 1:
            raise InputError(f'shrink={self.shrink}: need 0 < shrink <= 1')
        self._reading()

    # Files.

    def save(self, path: str | Path) -> None:
        """Writes everything to one .safetensors file, whole or not at all."""
        check_is_fitted(self)
        model_file.write(Path(path), self)

    @classmethod
    def load(cls, path: str | Path) -> 'AnyShotClassifier':
        """What `save` wrote; runs nothing that is in the file.

        Raises:
          InputError: no such file, damaged, or no classifier; says which.
        """
        return model_file.read(Path(path), cls)


def _no_images(num: int = 0) -> Array:
    return np.zeros((num, THUMBNAIL, THUMBNAIL, 3), np.uint8)
