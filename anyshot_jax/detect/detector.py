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
from anyshot_jax.detect import defect_types, model_file, products, settings
from anyshot_jax.detect.defect_types import UNKNOWN
from anyshot_jax.detect.heat import Explanation, explain_worst, heat
from anyshot_jax.detect.inputs import MAX_PIXELS, items_of
from anyshot_jax.detect.normal import Bank, Normal, bank_of
from anyshot_jax.detect.notes import Strange, notes, strange
from anyshot_jax.detect.scores import Comparison, Looks
from anyshot_jax.detect.seeing import Eye
from anyshot_jax.detect.verdicts import DEFECT, NORMAL, Verdict, verdict
from anyshot_jax.storage.folders import user_path
from anyshot_jax.types import Array, InputError, nearest

TYPE_FALSE_ALARM = 0.05  # share of known types' images that may be called of an unknown type


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
      foreground: 'none', or how the object is found whose patches count: 'flood' or 'grabcut'.
      share: of an image's patches, the worst, whose mean distance is its score; 0: the worst one.
      cosine: compares patches by their angle, place by place, as AnomalyDINO does with transformers
        (with share=0.01).
      seed: of the random projection and the draws of the coreset.
      crop: 'whole', or 'centre': only the largest centred square of an image is looked at; 'auto'
        is whole. range: (low, high), the values of 16-bit and float images that become black and
        white; None: each image's own. max_pixels: a larger image is refused.

    Attributes:
      threshold_ (of the score; None: one normal image gives none), promise_ (`Promise`, what the
      threshold keeps), offset_ (-threshold_); dicts by product where there are several.
      products_: their names. types_: names of the types of defect.
    """

    def __init__(
        self,
        encoder: str = 'efficientnet_lite0',
        *,
        layers: Sequence[str] = (),
        size: int = 256,
        tile: int = 0,
        overlap: int = 64,
        false_alarm: float = 0.01,
        memory: int = 10_000,
        turns: int = 0,
        foreground: str = 'none',
        share: float = 0.0,
        cosine: bool = False,
        seed: int = 0,
        crop: str = 'auto',
        range: tuple[float, ...] | None = None,
        max_pixels: int = MAX_PIXELS,
    ):
        self.encoder = encoder
        self.layers = layers
        self.size = size
        self.tile = tile
        self.overlap = overlap
        self.false_alarm = false_alarm
        self.memory = memory
        self.turns = turns
        self.foreground = foreground
        self.share = share
        self.cosine = cosine
        self.seed = seed
        self.crop = crop
        self.range = range
        self.max_pixels = max_pixels

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
        known = self._learned({}, X, groups, product)
        self.types_of_: defect_types.Types = defect_types.NOTHING
        return self._limited(known)

    def add_normal(self, images, *, groups=None, product=None):
        """More normal images: the memory stays within its bound, the threshold follows.

        Scores of the images before follow by their worst patches; they are rather too high than too
        low, and so is the threshold.
        """
        check_is_fitted(self, 'normal_')
        return self._limited(self._learned(self.normal_, images, groups, product))

    def _learned(self, before, images, groups, product):
        looks, odd = self._looks(), Notes()
        items = items_of(images, 'normal images', looks.reading)
        known = products.learn(self._eye(), looks, before, items, groups, product, odd)
        if odd:
            logging.warning('among the normal images: %s', odd)
        return known

    def _limited(self, known: dict[str, Normal]):
        """Takes over what is known; thresholds, and what can be said against the images."""
        self.normal_ = known
        self._banks: dict[str, Bank] = {name: bank_of(n) for name, n in self.normal_.items()}
        limits, promises = products.limits(known, self.false_alarm)
        self.limit_of_, self.promise_of_ = limits, promises
        offsets = {name: None if t is None else -t for name, t in limits.items()}
        # Of one product the values themselves.
        alone = lambda by_product: (
            next(iter(by_product.values())) if len(by_product) == 1 else by_product
        )
        self.threshold_, self.promise_, self.offset_ = map(alone, (limits, promises, offsets))
        for note in self.notes():
            logging.warning('%s', note)
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
        check_is_fitted(self, 'normal_')
        said = []
        for name, known in self.normal_.items():
            of = f'{name}: ' if name else ''
            own = notes(known, self.promise_of_[name], self._looks().view)
            said += [of + note for note in own]
        return said

    def strange(self, product: str = '') -> list[Strange]:
        """Normal images that the others speak against, the strangest first."""
        return strange(self._product(product))

    # Answering.

    def predict(self, X, product=None) -> Array:
        """[N] 'normal' or 'defect'.

        Raises:
          InputError: there was one normal image only, which gives no threshold.
        """
        return np.where(self.decision_function(X, product) < 0, DEFECT, NORMAL)

    def decision_function(self, X, product=None) -> Array:
        """[N] the threshold less the score: below 0 a defect."""
        found = []
        for v in self.judge(X, product):
            if v.threshold is None:
                raise InputError(
                    'one normal image gives no threshold: fit on two or more (99 for 1 % of false '
                    'alarms), or compare score_samples among themselves'
                )
            found.append(v.threshold - v.score)
        return np.array(found)

    def score_samples(self, X, product=None) -> Array:
        """[N] minus the distance of the worst patch from normal ones: small is a defect."""
        return np.array([-v.score for v in self.judge(X, product)])

    def fit_predict(self, X, y=None, **fields) -> Array:
        """[N] 1 or -1: whether each is like the others, which it was held out from."""
        items = items_of(X, 'normal images', self.reading_)
        self.fit(items, y, **fields)
        answer = np.ones(len(items), int)
        if len(self.normal_) > 1:
            raise InputError('fit_predict takes images of one product')
        ((name, known),) = self.normal_.items()
        limit = self.limit_of_[name]
        out = [] if limit is None else known.held_out.number[known.held_out.score > limit]
        answer[out] = -1
        return answer

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
        told = self._compare(self._items(X), product, errors=errors, notes=notes)
        for number, found, name, of_none in told:
            yield number, self._said(found, name, of_none), found

    def _said(self, found: Comparison, name: str, of_none: bool) -> Verdict:
        view, cells = self._looks().view, self._eye().cells
        known, limit = self.normal_[name], self.limit_of_[name]
        return verdict(found, name, known, limit, self.types_of_, of_none, view, cells)

    def heat_map(self, image, product: str | None = None) -> Array:
        """[H, W] float32, at the image's own size: how far each place is from normal ones."""
        found, _ = self._one(image, product)
        return heat(found, self._looks().view, self._eye().cells)

    def explain(self, image, product: str | None = None) -> Explanation:
        """The worst place of an image, and the normal patch that is nearest to it."""
        found, name = self._one(image, product)
        return explain_worst(found, self.normal_[name], self._looks().view, self._eye().cells)

    def _one(self, image, product):
        check_is_fitted(self, 'normal_')
        ((_, found, name, _),) = self._compare(self._items([image]), product)
        return found, name

    def _items(self, X):
        check_is_fitted(self, 'normal_')
        return items_of(X, 'images', self.reading_)

    def _compare(self, items, product, masks=None, errors=None, notes=None):
        """See `products.compare`."""
        known = products.Known(self.normal_, self._banks)
        return products.compare(
            self._eye(), self._looks(), known, items, product, masks, errors, notes
        )

    # Types of defects.

    def add_type(self, name: str, images, masks=None, product=None):
        """A type of defect from one or more images of it, or more images of one that is there.

        Args:
          masks: of each image, [H, W] where its defect is (above 0), a path or a PIL image, or
            None; none: the place that is most unlike normal images.
        Raises:
          InputError: no image, or one without threshold's normal images; the detector stays.
        """
        items = self._items(images)
        if not str(name).strip() or name in (UNKNOWN, NORMAL):
            raise InputError(f'{name!r} can be no type of defect: give another name')
        if masks is not None and len(masks) != len(items):
            raise InputError(f'type {name!r}: {len(items)} images, but {len(masks)} masks')
        z = self._vectors(items, product, masks)
        self.types_of_ = defect_types.add(self.types_of_, str(name), z, TYPE_FALSE_ALARM)
        return self

    def remove_type(self, name: str):
        """Forgets a type of defect."""
        check_is_fitted(self, 'normal_')
        if name not in self.types_of_.names:
            raise InputError(f'there is no type {name!r}{nearest(str(name), self.types_)}')
        self.types_of_ = defect_types.without(self.types_of_, name, TYPE_FALSE_ALARM)
        return self

    def predict_type(self, X, product=None) -> Array:
        """[N] the type of each, taken to have a defect; 'unknown type' where it is like none."""
        p, unknown = self._told(X, product)
        return np.where(unknown, UNKNOWN, np.array(self.types_)[p.argmax(1)])

    def predict_type_proba(self, X, product=None) -> Array:
        """[N, C] probabilities of `types_`, as if there were no others."""
        return self._told(X, product)[0]

    def _told(self, X, product):
        items = self._items(X)
        if not self.types_of_.names:
            raise InputError('no type of defect is known: add_type(name, images) first')
        return defect_types.classify(self.types_of_, self._vectors(items, product, None))

    def _vectors(self, items, product, masks):
        if any(not known.mean for known in self.normal_.values()):
            raise InputError('types of defects need two normal images or more')
        every = self._compare(items, product, masks)
        return np.concatenate([defect_types.vectors(self.normal_[n], [f]) for _, f, n, _ in every])

    # Parts.

    def _product(self, name: str) -> Normal:
        check_is_fitted(self, 'normal_')
        return products.of_name(self.normal_, name)

    def _looks(self) -> Looks:
        return settings.looks(self)

    def _eye(self) -> Eye:
        return settings.eye_of(self)

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
