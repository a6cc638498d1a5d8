"""Classify from few images of a class, find defects from normal ones: estimators, and the parts."""

from pathlib import Path
from typing import Any

__version__ = '0.2.0'
__all__ = ['AnomalyDetector', 'AnyShotClassifier', 'TrainedClassifier', '__version__', 'load']


def load(workdir: str | Path) -> Any:
    """Reads a run back as a `training.trained_run.TrainedRun`: config, params, embed, predict, ...

    The data are loaded again. A run with a method, net or loader of your own: import those first.

    Raises:
      InputError: there is no run in that folder, or its config names code that is not imported.
    """
    from anyshot_jax.storage.folders import user_path
    from anyshot_jax.training.trained_run import TrainedRun
    from anyshot_jax.training.workdir import read_config

    run = TrainedRun(user_path(str(workdir)) if '://' not in str(workdir) else workdir)
    read_config(run.workdir)
    return run


def __getattr__(name: str) -> Any:
    """Only when asked for: they need scikit-learn, which the rest does without."""
    if name == 'AnyShotClassifier':
        from anyshot_jax.classify.classifier import AnyShotClassifier

        return AnyShotClassifier
    if name == 'AnomalyDetector':
        from anyshot_jax.detect.detector import AnomalyDetector

        return AnomalyDetector
    if name == 'TrainedClassifier':
        from anyshot_jax.classify.trained_classifier import TrainedClassifier

        return TrainedClassifier
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
