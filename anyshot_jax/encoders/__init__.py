"""Frozen, pretrained encoders: `load(name)`, and what it needs."""

from anyshot_jax.encoders.pretrained import (
    NAMES,
    ImageEncoder,
    TextEncoder,
    load,
    texts_to_vectors,
)

__all__ = ['NAMES', 'ImageEncoder', 'TextEncoder', 'load', 'texts_to_vectors']
