"""Model trained in a workdir, as a scikit-learn estimator.

classifier = TrainedClassifier('runs/my_protonet').fit(paths, labels)
"""

from pathlib import Path
from typing import Any

from anyshot_jax.classify import fitting, nearest_mean
from anyshot_jax.classify.picture_input import MAX_PIXELS
from anyshot_jax.classify.support_classifier import SupportClassifier
from anyshot_jax.classify.trained import Trained, trained
from anyshot_jax.data.readers.images import Reading
from anyshot_jax.storage.folders import user_path
from anyshot_jax.types import Array, InputError


class TrainedClassifier(SupportClassifier):
    """A trained run's method that answers new classes from their images.

    X is images as for `AnyShotClassifier`, or vectors of what the run's net takes.

    Args:
      workdir: of a finished run.
      unknown: the answer to what is unlike all classes; None: the nearest class whatever it is.
      false_alarm: share of known classes' items that may be called unknown, 0 < share < 1.
      range, max_pixels: as of `AnyShotClassifier`; images are cropped as the run's were.

    Attributes: see `SupportClassifier`.
    """

    def __init__(
        self,
        workdir: str,
        *,
        unknown: Any = None,
        false_alarm: float = 0.05,
        range: tuple[float, ...] | None = None,
        max_pixels: int = MAX_PIXELS,
    ):
        self.workdir = workdir
        self.unknown = unknown
        self.false_alarm = false_alarm
        self.range = range
        self.max_pixels = max_pixels

    @property
    def reading_(self) -> Reading:
        how = Reading(span=tuple(self.range or ()), max_pixels=self.max_pixels)
        return self.encoder_.reading(how)

    @property
    def encoder_(self) -> Trained:
        """The run's best step.

        Raises:
          InputError: as `trained`.
        """
        return trained(str(self.workdir))

    def embed(self, X) -> Array:
        """[N, D] float32 of images, or of vectors of what the net takes: the net's embedding."""
        return self.encoder_.embed(self._features(X)[0])

    def check_params(self) -> None:
        super().check_params()
        if not user_path(self.workdir).is_dir():
            raise InputError(f'workdir={str(self.workdir)!r}: there is no such folder')

    def _needs_images(self) -> str:
        return f'workdir={str(self.workdir)!r} needs images of every class'

    def _fitted_head(self):
        label, num = self._label(), len(self.classes_)
        known = set(label.tolist())
        for i, c in enumerate(self.classes_.tolist()):
            if i not in known:
                raise InputError(f'a trained run needs images of every class, {c!r} has none')
        images = self.of_images_
        how = {'power': 0.5 if images else 1.0, 'normalise': images, 'shrink': nearest_mean.SHRINK}
        return fitting.fit_trained(
            self.encoder_.scores, self.support_features_, label, num, how=how,
            false_alarm=self.false_alarm,
        )  # fmt: skip

    def _scores(self, x: Array, z: Array) -> Array:
        return self.encoder_.scores(self.support_features_, self._label(), len(self.classes_), x)

    def save(self, path: str | Path) -> None:
        """Raises InputError: a run's folder is its model."""
        raise InputError(
            f'workdir={str(self.workdir)!r}: a trained run is not part of a model; keep its folder '
            'and fit again, which takes seconds'
        )
