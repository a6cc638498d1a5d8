"""Classify images from any number of examples: a scikit-learn estimator.

    classifier = AnyShotClassifier().fit(paths, labels, descriptions={'dent': 'a hollow, ...'})
    classifier.predict(more_paths)

Images pass a frozen encoder; classes are told by the nearest mean (`nearest_mean.py`). A class
may have no example, only words (`word_means.py`), one, or many.
"""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from anyshot_jax.classify import choice, fitting, joint, model_file, nearest_mean
from anyshot_jax.classify.frozen import Frozen, frozen
from anyshot_jax.classify.picture_input import MAX_PIXELS
from anyshot_jax.classify.support_classifier import SupportClassifier
from anyshot_jax.classify.trained_classifier import TrainedClassifier
from anyshot_jax.classify.transduce import transduced
from anyshot_jax.data.readers.images import Reading
from anyshot_jax.storage.folders import user_path
from anyshot_jax.types import Array, InputError

SURFACES = 'stride16'  # the map that a support may choose to join to features
METHODS = ('prototypes', 'refine')
SHARED = ('unknown', 'false_alarm', 'range', 'max_pixels')  # with a `TrainedClassifier`


class AnyShotClassifier(SupportClassifier):
    """The nearest class mean of frozen features, calibrated, with classes of words and 'unknown'.

    X is images (paths, bytes, open files, PIL images, RGB arrays; one or a list, see `inputs.py`),
    or feature vectors [N, D], such as `embed` gives.

    Args:
      encoder: as `frozen` takes it, such as 'efficientnet_lite0+stride16' for surfaces; unused for
        feature vectors.
      method: 'prototypes', every item by itself; or 'refine', all items of a call together
        (transductive, see `transduce.py`): better where most of them are of these classes.
        The workdir of a trained run makes a `TrainedClassifier` in place of this one.
      text_encoder: of names and descriptions, for `encoders.load`, or 'tfidf'. Unused where the
        encoder of images has a tower of texts in the same space (CLIP, SigLIP) and classes are
        described: words then tell all of them, mixed with their images (`joint.py`), but for
        'refine'.
      unknown: the answer to what is unlike all classes; None: the nearest class whatever it is.
      false_alarm: share of known classes' items that may be called unknown, 0 < share < 1.
      power, normalise, shrink: see `nearest_mean.fit_space`; None: 0.5 and True for images, 1 and
        False for feature vectors.
      adapt: True: of images, the support chooses by its held-out examples whether the map
        '+stride16' of a convolutional encoder counts, and which power (`choice.py`), where these
        are not given; one example a class chooses nothing.
      crop: what is seen of images that are no squares: 'whole' (sides stretched), 'centre' (the
        largest centred square), 'tiles' (three squares along the longer side, their features' mean)
        or 'auto': centre where the sides differ by a third at most, else tiles.
      range: (low, high), the values of 16-bit and float images that become black and white; None:
        each image's own, see `pixels.value_range`. max_pixels: a larger image is refused.

    Attributes: see `SupportClassifier`; joint_: what words of a joint encoder add, or None;
      choice_: what the support chose (`choice.Choice`), None where it had no choice.
    """

    joint_: joint.Joint | None = None
    choice_: choice.Choice | None = None

    def __new__(cls, encoder: str = '', method: str = 'prototypes', **fields: Any) -> Any:
        """A `TrainedClassifier` where the method is a folder."""
        if not _is_folder(method):
            return super().__new__(cls)
        shared = {k: v for k, v in fields.items() if k in SHARED}
        return TrainedClassifier(method, **shared)  # which __init__ below leaves alone

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
        adapt: bool = True,
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
        self.adapt = adapt
        self.crop = crop
        self.range = range
        self.max_pixels = max_pixels

    @property
    def reading_(self) -> Reading:
        return Reading(self.crop, tuple(self.range or ()), self.max_pixels)

    @property
    def encoder_(self) -> Frozen:
        """The loaded encoder of images.

        Raises:
          InputError: as `frozen`, or it has other weights than the model was fitted with.
        """
        net = frozen(self.encoder)
        own = net.encoder.text is None and net.encoder.parts == (net.dim,)
        if self.adapt and own and SURFACES in net.encoder.joins:
            net = frozen(f'{self.encoder}+{SURFACES}')
        if getattr(self, 'encoder_digest_', '') not in ('', net.encoder.digest):
            raise InputError(
                f'this model was fitted with other weights of {self.encoder}: fit it again'
            )
        if getattr(self, 'encoder_digest_', '') and net.dim != self.n_features_in_:
            raise InputError(
                f'this model has features of {self.n_features_in_} numbers, {self.encoder} gives '
                f'{net.dim}: fit it again'
            )
        return net

    @property
    def transductive(self) -> bool:  # type: ignore[override]
        """True where the items of a call help each other (transduction)."""
        return self.method == 'refine'

    def check_params(self) -> None:
        super().check_params()
        if _is_folder(self.method):
            raise InputError(f'{self.method} is a folder: TrainedClassifier({str(self.method)!r}) '
                             'answers by the run that was trained there')  # fmt: skip
        if self.method not in METHODS:
            raise InputError(
                f'method={self.method!r}: need {", ".join(METHODS)} or the folder of a trained run'
            )
        if not 0 < self.shrink <= 1:
            raise InputError(f'shrink={self.shrink}: need 0 < shrink <= 1')

    def _fitted_head(self):
        power = self.power if self.power is not None else 0.5 if self.of_images_ else 1.0
        normalise = self.of_images_ if self.normalise is None else self.normalise
        how = {'power': power, 'normalise': normalise, 'shrink': self.shrink}
        self.joint_ = self.choice_ = None
        texts = self.encoder_.encoder.text if self.of_images_ and self.descriptions_ else None
        if texts is not None and not self.transductive:
            said = [self.descriptions_.get(c, '') for c in self.classes_.tolist()]
            vectors = joint.class_texts(self.classes_.tolist(), said, texts)
            head, self.joint_, calibrated = joint.fit(
                self.support_features_, self._label(), vectors, texts.scale, how=how,
                false_alarm=self.false_alarm,
            )  # fmt: skip
            return head, calibrated
        x, label = self.support_features_, self._label()
        if self.of_images_ and self.adapt:
            widths = self._widths()
            powers = choice.POWERS if self.power is None else (power,)
            self.choice_ = choice.choose(
                x, label, widths, powers, normalise=normalise, shrink=self.shrink
            )
            x, how = x[:, : self.choice_.width], {**how, 'power': self.choice_.power}
        return fitting.learn(
            x, label, self.classes_.tolist(), self.descriptions_,
            net=self.encoder_ if self.of_images_ else None, how=how,
            text_encoder=self.text_encoder, false_alarm=self.false_alarm,
        )  # fmt: skip

    def _widths(self) -> tuple[int, ...]:
        """Numbers of leading features that may count, the usual one first."""
        net = self.encoder_  # another than was named: a map was joined to it
        return (net.encoder.parts[0], net.dim) if net.which != self.encoder else (net.dim,)

    def counted(self) -> str:
        """Name of the features that count: the encoder and, where it was chosen, the map."""
        widths, width = self._widths(), len(self.head_.space.shift)
        return f'{self.encoder}+{SURFACES}' if width > widths[0] else self.encoder

    def told(self) -> str:
        """A sentence on what the support chose (`choice.told`); '' where it had no choice."""
        return choice.told(self.choice_, self._widths()) if self.choice_ else ''

    def _is_linear(self) -> bool:
        return self.power in (None, 1) and not self.normalise

    def _scores(self, x: Array, z: Array) -> Array:
        score = nearest_mean.scores(self.head_, z)
        return score if self.joint_ is None else joint.scores(self.joint_, score, x)

    def _probabilities(self, x: Array, z: Array, score: Array) -> Array:
        if self.transductive and len(x) > 1:
            count = np.bincount(self._label(), minlength=len(self.classes_))
            return transduced(self.head_, count, z)
        return super()._probabilities(x, z, score)

    # Files.

    def save(self, path: str | Path) -> None:
        """Writes everything to one .safetensors file, whole or not at all."""
        check_is_fitted(self)
        model_file.write(Path(path), self)

    @classmethod
    def load(cls, path: str | Path) -> 'AnyShotClassifier':
        """Reads what `save` wrote; runs nothing that is in the file.

        Raises:
          InputError: no such file, damaged, or no classifier; says which.
        """
        return model_file.read(user_path(path), cls)


# scikit-learn reads parameters off the class, where Python would show those of __new__.
AnyShotClassifier.__signature__ = inspect.signature(AnyShotClassifier.__init__.__get__(object()))  # type: ignore[attr-defined]


def _is_folder(method: Any) -> bool:
    texts = isinstance(method, (str, Path)) and method not in METHODS
    return texts and user_path(method).is_dir()
