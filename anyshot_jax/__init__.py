"""Classify from few images of a class, find defects from normal ones, and the package's parts."""

from typing import Any

__all__ = ['AnomalyDetector', 'AnyShotClassifier']


def __getattr__(name: str) -> Any:
    """Only when asked for: they need scikit-learn, which the rest does without."""
    if name == 'AnyShotClassifier':
        from anyshot_jax.classify.classifier import AnyShotClassifier

        return AnyShotClassifier
    if name == 'AnomalyDetector':
        from anyshot_jax.detect.detector import AnomalyDetector

        return AnomalyDetector
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
