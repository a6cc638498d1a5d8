"""A classifier that keeps its support: classes come and go; its answers are in `answering.py`.

How a head is fitted to the support, and how queries are scored, say `AnyShotClassifier` and
`TrainedClassifier`.
"""

import abc
import copy
import os
import warnings
from collections.abc import Mapping, Sequence, Sized
from typing import Any, Self

import numpy as np

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as e:
    raise ImportError(
        "AnyShotClassifier is a scikit-learn estimator: pip install 'anyshot-jax[app]'"
    ) from e

from anyshot_jax.classify import alike, held_out, vectors
from anyshot_jax.classify.answering import Answering
from anyshot_jax.classify.fitting import Calibrated
from anyshot_jax.classify.labels import (
    check_descriptions,
    check_labels,
    check_unknown,
    known_as,
    labels_of,
    one_of_each,
)
from anyshot_jax.classify.nearest_mean import Head
from anyshot_jax.classify.picture_input import no_thumbnails, thumbnails
from anyshot_jax.data.readers.inputs import examples_of, images_of, is_folder, rows_of
from anyshot_jax.data.readers.notes import Notes
from anyshot_jax.data.readers.sources import name_of
from anyshot_jax.ops.label_noise import LabelNoise
from anyshot_jax.types import Array, InputError


class SupportClassifier(Answering, ClassifierMixin, BaseEstimator):
    """Learning from a support, and changing it: what the two estimators share.

    Attributes:
      classes_: [C]. head_: `nearest_mean.Head`. temperature_, threshold_ (None: no class has two
        examples, so nothing tells), false_alarm_ (share of known classes' items that it is expected
        to call unknown), unseen_detected_ (share of items of classes without any example that it is
        expected to call unknown, each class left out in turn; None: one class only).
      support_features_ [N, D], support_labels_ [N], support_names_, support_images_
        [N, 64, 64, 3] uint8 (black for feature vectors), descriptions_, of_images_.
      frame_: from where feature vectors are seen, see `vectors.py`.
      held_out_: [N, C] probabilities of support items while they were held out, else NaN.
    """

    false_alarm: float

    # What an estimator adds.

    def check_params(self) -> None:
        """Raises InputError for a parameter that can't be; says which."""
        if not 0 < self.false_alarm < 1:
            raise InputError(f'false_alarm={self.false_alarm}: need a share between 0 and 1')
        self.reading_.check()

    def told(self) -> str:
        """A sentence on what the support chose for itself; '' where it chooses nothing."""
        return ''

    def _is_linear(self) -> bool:
        """True if feature vectors mean the same from any point and on any scale."""
        return False

    def _needs_images(self) -> str:
        """Why no class can be known by words only; '' if it can."""
        return ''

    @abc.abstractmethod
    def _fitted_head(self) -> tuple[Head, Calibrated]:
        """The head of the support that is kept, with what its held-out examples say."""

    # Learning.

    def fit(
        self,
        X,
        y=None,
        descriptions: Mapping[Any, str] | None = None,
        features: Array | None = None,
    ) -> Self:
        """Learns classes from examples X, y and from descriptions; either may be empty.

        Args:
          X: examples; or, without y, a folder <class>/<image> (and classes.json, if it is there).
          features: [N, D], what `embed` gives for images X, where that is known already.
        Raises:
          InputError: an image that can't be read, a field that can't be; says which.
          ValueError: feature vectors or labels that scikit-learn refuses.
        """
        self.check_params()
        self.frame_ = vectors.AS_THEY_ARE
        self.encoder_digest_ = ''  # of a loaded model: the weights that it was fitted with
        check_descriptions({} if descriptions is None else descriptions)
        descriptions = dict(descriptions or {})
        if y is None and X is not None and is_folder(X):
            X, y, described, notes = examples_of(X)
            if notes:
                warnings.warn(f'passed over: {notes}', stacklevel=2)
            descriptions = {**described, **descriptions}
        if descriptions and isinstance(X, Sized) and len(X) == 0:
            X = None
        if X is None:
            if not descriptions:
                raise ValueError('nothing to learn from: give X and y, or descriptions')
            if reason := self._needs_images():
                raise InputError(reason)
            self.of_images_, y = True, np.array([], dtype=str)
            x, names, images = np.zeros((0, self.encoder_.dim), np.float32), [], no_thumbnails()
            self.n_features_in_ = x.shape[1]
        else:
            if y is None and isinstance(X, (str, os.PathLike)):
                raise InputError(f'{os.fspath(X)}: there is no such folder of <class>/<image>')
            if y is None:
                raise ValueError('requires y to be passed, but the target y is None')
            items, y = images_of(X, self.reading_.span), labels_of(y)
            self.of_images_ = items is not None
            X = rows_of(X) if items is None else items
            x, y, names, images = self._examples(X, y, features)
        self.support_features_, self.support_names_ = x, names
        self.support_images_ = images
        labels = np.unique(y).tolist()
        self.descriptions_ = {known_as(c, labels): text for c, text in descriptions.items()}
        self.classes_ = one_of_each([*labels, *self.descriptions_], y.dtype)
        self.support_labels_ = np.asarray(y, dtype=self.classes_.dtype)
        check_unknown(self.unknown, self.classes_.tolist())
        return self._learn()._warned()

    def _warned(self) -> Self:
        """Itself; warns of classes and examples that are nearly the same."""
        notes = self.alike(Notes())
        if notes:
            warnings.warn(f'among the images and classes: {notes}', stacklevel=4)
        return self

    def alike(self, notes: Notes, names: Sequence[str] = (), keys: Sequence[bytes] = ()) -> Notes:
        """`notes` with the classes and examples that are nearly the same; see `alike.py`.

        Args:
          names: what the examples are called, instead of `support_names_`.
        """
        alike.note_names(self.classes_.tolist(), notes)
        if self.of_images_:
            small = alike.smalls(self.support_images_)
            alike.note_examples(small, self._label(), names or self.support_names_, notes, keys)
        return notes

    def _examples(self, X, y, features=None):
        if not self.of_images_:
            x, y = validate_data(self, X, y, dtype=np.float64)
            check_labels(y)
            self.frame_ = vectors.frame_of(x) if self._is_linear() else vectors.AS_THEY_ARE
            x = vectors.placed(x, self.frame_)
            return x, y, [f'#{i}' for i in range(len(x))], no_thumbnails(len(x))
        y = np.asarray(y)
        y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
        if y.shape != (len(X),):
            raise ValueError(f'{len(X)} images, but labels of shape {y.shape}')
        check_labels(y)
        net = self.encoder_
        if features is None:
            features, small = self._noted(net.features_and, X, thumbnails)
        else:
            features = np.asarray(features, np.float32)
            small = net.of_all(X, thumbnails, self.reading_)
            if features.shape != (len(X), net.dim):
                raise ValueError(f'{len(X)} images, but features {features.shape}')
        self.n_features_in_ = net.dim
        return features, y, [name_of(item, i) for i, item in enumerate(X)], small

    def _learn(self) -> Self:
        """The head, of what is kept of the support and said of the classes."""
        self.head_, calibrated = self._fitted_head()
        self.held_out_, self.temperature_ = calibrated.held_out, float(self.head_.temperature)
        limits = calibrated.rejection
        self.threshold_ = None if limits is None else limits.threshold
        self.false_alarm_ = None if limits is None else limits.false_alarm
        self.unseen_detected_ = None if limits is None else limits.detected
        self.index_support()
        return self

    def add_class(self, name: Any, images: Any = None, description: str | None = None) -> Self:
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
        name = known_as(name, self.classes_.tolist())
        items = None if images is None else images_of(images, self.reading_.span)
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
        return self._learn()._warned()

    def _become(self, other) -> Self:
        """Arrays are replaced and never written to, so that a copy that failed leaves no trace."""
        self.__dict__.update(other.__dict__)
        return self

    def remove_class(self, name: Any) -> Self:
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

    # What held-out examples say.

    def suspicion(self) -> Array:
        """[N] 0..1: how unlikely an example's own label is when it is held out; 0 of a lone one."""
        check_is_fitted(self)
        return held_out.suspicion(self.held_out_, self._label())

    def label_errors(self) -> LabelNoise:
        """The examples that are likely to have a wrong label, see `ops.label_noise`.

        Its share is 0 where nothing speaks for any wrong label; examples that are merely hard
        have a high `suspicion` and are none of these.
        """
        check_is_fitted(self)
        return held_out.label_errors(self.held_out_, self._label())

    def held_out_confusion(self) -> Array:
        """[C, C] how many held-out examples of each class (row) were called what (column)."""
        check_is_fitted(self)
        return held_out.confusion(self.held_out_, self._label())
