"""The local page of a classifier."""

from anyshot_jax.serve.command import cli

__all__ = ['cli']
