"""Classify from few images of a class, find defects from normal ones: estimators, and the parts."""

from typing import Any

__version__ = '0.2.0'
__all__ = ['AnomalyDetector', 'AnyShotClassifier', 'TrainedClassifier', '__version__']


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
