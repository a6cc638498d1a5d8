"""The command that classifies a folder of images, and all its work."""

from anyshot_jax.predict.command import cli

__all__ = ['cli']
