"""Frozen, pretrained encoders: `load(name)`, and what it needs."""

from anyshot_jax.encoders.pretrained import (
    NAMES,
    PictureEncoder,
    TextEncoder,
    load,
    texts_to_vectors,
)

__all__ = ['NAMES', 'PictureEncoder', 'TextEncoder', 'load', 'texts_to_vectors']
