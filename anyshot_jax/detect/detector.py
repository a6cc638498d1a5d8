"""Find defects having seen normal images only: a scikit-learn estimator.

    detector = AnomalyDetector().fit(normal_paths)
    detector.predict(new_paths)                # 'normal' or 'defect'
    detector.heat_map(new_paths[0])            # where
    detector.add_type('scratch', some_paths)   # from one image on
    detector.predict_type(new_paths)

Patches of a frozen encoder are compared with a bounded memory of those of normal images (PatchCore:
Roth et al., CVPR 2022). The threshold comes from normal images that are held out, with the rate of
false alarms that it promises (`threshold.py`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import numpy as np
from absl import logging

try:
    from sklearn.base import BaseEstimator, OutlierMixin
    from sklearn.utils.validation import check_is_fitted
except ImportError as e:
    raise ImportError(
        "AnomalyDetector is a scikit-learn estimator: pip install 'anyshot-jax[app]'"
    ) from e

from anyshot_jax.data.readers.images import Reading
from anyshot_jax.data.readers.notes import Notes
from anyshot_jax.detect import knowledge, model_file, products, settings
from anyshot_jax.detect.heat import Explanation
from anyshot_jax.detect.inputs import MAX_PIXELS, items_of
from anyshot_jax.detect.knowledge import Knowledge
from anyshot_jax.detect.normal import Normal
from anyshot_jax.detect.notes import Strange, strange
from anyshot_jax.detect.scores import Comparison, Looks
from anyshot_jax.detect.seeing import Eye
from anyshot_jax.detect.verdicts import DEFECT, NORMAL, Verdict, margin
from anyshot_jax.storage.folders import user_path
from anyshot_jax.types import Array, printable


@dataclass(eq=False, repr=False)
class AnomalyDetector(OutlierMixin, BaseEstimator):
    """Says which images have a defect and where, from normal images alone.

    X is images of any sizes, one or a list: paths, bytes, open files, PIL images, RGB arrays; or a
    folder of them (see `data/readers/inputs.py`).

    Args:
      encoder: as `encoders.load` takes it. layers: its maps that patches are made of; (): those of
        strides 16 and 32, or a transformer's patches.
      size: pixels that both sides of an image become; with `tile` those of its shorter side, 0: as
        it is.
      tile: pixels of a side of the squares that an image is cut into; 0: it is seen as one.
      overlap: pixels of the rim of a tile that the next one judges, see `views.py`.
      false_alarm: share of new normal images that may be called a defect, 0 < share < 1.
      memory: patches that are remembered of a product, at most.
      turns: turned copies that are remembered with each normal image: 3 (by 90 degrees), 7, ...
      foreground: 'none', or how the object is found whose patches count: 'flood', 'grabcut', or
        'pca' by the patches themselves (for transformers; see `objects.py`).
      share: of an image's patches, the worst, whose mean distance is its score; 0: the worst one.
      cosine: compares patches by their angle, place by place, as AnomalyDINO does with transformers
        (with share=0.01).
      learnt: a small net adds what it has learnt of synthetic defects, made on some of the normal
        images of `fit`; the threshold comes from the others (`defect_net.py`).
      pretrain: learns from synthetic defects, made on the normal images of `fit`, by what types of
        defects differ.
      seed: of the random projection and the draws of the coreset.
      crop: 'whole', or 'centre': only the largest centred square of an image is looked at; 'auto'
        is whole. range: (low, high), the values of 16-bit and float images that become black and
        white; None: each image's own. max_pixels: a larger image is refused.

    Attributes:
      threshold_ (of the score; None: one normal image gives none), promise_ (`Promise`, what the
      threshold keeps), offset_ (-threshold_); dicts by product where there are several.
      products_: their names. types_: names of the types of defect.
    """

    encoder: str = 'efficientnet_lite0'
    _: KW_ONLY
    layers: Sequence[str] = ()
    size: int = 256
    tile: int = 0
    overlap: int = 64
    false_alarm: float = 0.01
    memory: int = 10_000
    turns: int = 0
    foreground: str = 'none'
    share: float = 0.0
    cosine: bool = False
    learnt: bool = False
    pretrain: bool = False
    seed: int = 0
    crop: str = 'auto'
    range: tuple[float, ...] | None = None
    max_pixels: int = MAX_PIXELS

    @property
    def reading_(self) -> Reading:
        """Settings for reading images."""
        return settings.reading(self)

    # Learning.

    def fit(self, X, y=None, *, groups=None, product=None):
        """Learns what normal images look like.

        Args:
          y: not looked at. groups: [N] equal for near copies, such as photographs of one part:
            they are held out together and count as one. product: [N] or one name; none: one
            product.
        Raises:
          InputError: no image, one that can't be read, all the same; says which.
        """
        settings.check(self)
        self.encoder_digest_ = ''
        items = items_of(X, 'normal images', self.reading_)
        known, spent = knowledge.with_net(
            self._knowing({}), self.learnt, items, groups, product, self.seed
        )
        known = knowledge.learn(known, items, groups, product, spent)
        if self.pretrain:
            known = knowledge.pretrained(known, items, product, self.seed)
        return self._take(known)

    def add_normal(self, images, *, groups=None, product=None):
        """More normal images: the memory stays within its bound, the threshold follows.

        Scores of the images before follow by their worst patches; they are rather too high than too
        low, and so is the threshold. What was pretrained stays. Unnamed images are numbered on.
        """
        known, items = self._known(), items_of(images, 'normal images', self.reading_)
        return self._take(knowledge.learn(known, items, groups, product))

    def remove_normal(self, name: str, product: str | None = None):
        """Forgets a normal image, such as one that `strange` names; the threshold follows.

        What its fold of the memory had left out for likeness to it doesn't come back, and held-out
        scores follow by their images' worst patches only: where many images go, fit again.

        Args:
          name: as `strange` gives it; all images of that name go. product: none: the only one.
        Raises:
          InputError: there is none, or no other is left; the detector stays.
        """
        return self._take(knowledge.without(self._known(), name, product))

    def _take(self, known: Knowledge):
        """Takes over what is known, and says what can be said against the images."""
        self.normal_, self._banks, self.net_ = known.normal, known.banks, known.eye.net
        self.limit_of_, self.promise_of_, self.types_of_ = known.limits, known.promises, known.types
        offsets = {name: None if t is None else -t for name, t in known.limits.items()}
        # Of one product the values themselves.
        alone = lambda of: next(iter(of.values())) if len(of) == 1 else of
        self.threshold_, self.promise_, self.offset_ = map(
            alone, (known.limits, known.promises, offsets)
        )
        for note in self.notes():
            logging.warning('%s', printable(note))
        return self

    @property
    def products_(self) -> list[str]:
        """The products' names; [''] where there is one that has none."""
        return list(self.normal_)

    @property
    def types_(self) -> list[str]:
        """Names of the types of defect."""
        return list(self.types_of_.names)

    def notes(self) -> list[str]:
        """Warnings for whoever relies on the detector: few images, strange ones, lost details."""
        return knowledge.notes(self._known())

    def strange(self, product: str | None = None) -> list[Strange]:
        """Normal images that the others speak against, the strangest first."""
        known = self._known().normal
        return strange(known[products.meant(known, product)])

    # Answering.

    def predict(self, X, product=None) -> Array:
        """[N] 'normal' or 'defect'.

        Raises:
          InputError: there was one normal image only, which gives no threshold.
        """
        return np.where(self.decision_function(X, product) < 0, DEFECT, NORMAL)

    def decision_function(self, X, product=None) -> Array:
        """[N] the threshold less the score: below 0 a defect."""
        return np.array([margin(v) for v in self.judge(X, product)])

    def score_samples(self, X, product=None) -> Array:
        """[N] minus the distance of the worst patch from normal ones: small is a defect."""
        return np.array([-v.score for v in self.judge(X, product)])

    def fit_predict(self, X, y=None, **fields) -> Array:
        """[N] 1 or -1: whether each is like the others, which it was held out from.

        1 of those that were not; a warning counts them.
        """
        self.fit(X, y, **fields)
        return knowledge.like_others(self._known())

    def judge(self, X, product=None) -> list[Verdict]:
        """`predict`, scores, places and types of images in one go."""
        odd = Notes()
        found = [said for _, said, _ in self.each(X, product, notes=odd)]
        if odd:
            logging.warning('among the images: %s', odd)
        return found

    def each(
        self, X, product=None, errors=None, notes=None
    ) -> Iterator[tuple[int, Verdict, Comparison]]:
        """(number, verdict, map and nearest patches) of images one at a time, for many of them.

        Args:
          errors: a dict that takes the InputError of images that can't be read, by number; none:
            the first is raised. notes: `Notes` that take what is worth a word.
        """
        return knowledge.judge(self._known(), self._items(X), product, errors, notes)

    def heat_map(self, image, product: str | None = None) -> Array:
        """[H, W] float32, at the image's own size: how far each place is from normal ones."""
        return knowledge.heat_map(self._known(), self._items([image]), product)

    def explain(self, image, product: str | None = None) -> Explanation:
        """The worst place of an image, and the normal patch that is nearest to it."""
        return knowledge.explain(self._known(), self._items([image]), product)

    def _items(self, X):
        check_is_fitted(self, 'normal_')
        return items_of(X, 'images', self.reading_)

    # Types of defects.

    def add_type(self, name: str, images, masks=None, product=None):
        """A type of defect from one or more images of it, or more images of one that is there.

        Args:
          masks: of each image, [H, W] where its defect is (above 0), a path or a PIL image, or
            None; none: the place most unlike normal ones. Other sizes are stretched, and told.
        Raises:
          InputError: no image, or one without threshold's normal images; the detector stays.
        """
        items = self._items(images)
        self.types_of_ = knowledge.with_type(self._known(), str(name), items, product, masks)
        return self

    def remove_type(self, name: str):
        """Forgets a type of defect."""
        self.types_of_ = knowledge.without_type(self._known(), str(name))
        return self

    def predict_type(self, X, product=None) -> Array:
        """[N] the type of each, taken to have a defect; 'unknown type' where it is like none."""
        return knowledge.named_types(self._known(), self._items(X), product)

    def predict_type_proba(self, X, product=None) -> Array:
        """[N, C] probabilities of `types_`, as if there were no others."""
        return knowledge.told_types(self._known(), self._items(X), product)[0]

    # Parts.

    def _looks(self) -> Looks:
        return settings.looks(self)

    def _eye(self) -> Eye:
        return settings.eye_of(self)._replace(net=getattr(self, 'net_', None))

    def _known(self) -> Knowledge:
        check_is_fitted(self, 'normal_')
        return Knowledge(
            self._eye(), self._looks(), self.false_alarm, self.normal_, self._banks,
            self.limit_of_, self.promise_of_, self.types_of_,
        )  # fmt: skip

    def _knowing(self, normal: dict[str, Normal]) -> Knowledge:
        return knowledge.of_products(self._eye(), self._looks(), self.false_alarm, normal)

    # Files.

    def save(self, path: str | Path) -> None:
        """Writes everything to one .safetensors file, whole or not at all."""
        check_is_fitted(self, 'normal_')
        model_file.write(Path(path), self)

    @classmethod
    def load(cls, path: str | Path) -> 'AnomalyDetector':
        """Reads what `save` wrote; runs nothing that is in the file.

        Raises:
          InputError: no such file, damaged, or no detector; says which.
        """
        return model_file.read(user_path(path), cls)
