"""Comparison of encoders, heads and numbers of images on the user's own images."""

from typing import Any

from anyshot_jax.compare.command import cli

__all__ = ['Comparison', 'cli', 'compare']


def __getattr__(name: str) -> Any:
    """Only when asked for: JAX starts after the command's flags are known to be right."""
    if name in ('Comparison', 'compare'):
        from anyshot_jax.compare import comparison

        return getattr(comparison, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
