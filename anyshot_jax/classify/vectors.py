"""Feature vectors as float32 that keeps what tells them apart, whatever their offset and scale."""

from typing import NamedTuple

import numpy as np

from anyshot_jax.types import Array

OFFSET = 1e3  # a mean that is so many times the spread leaves float32 few digits of it
SMALL, LARGE = 1e-6, 1e6  # spreads beyond make squares too small or too large for float32
FARTHEST = 1e15  # its square is a float32


class Frame(NamedTuple):
    """Origin and scale that vectors are centred by."""

    centre: Array  # [D] float64
    scale: float

    @property
    def as_they_are(self) -> bool:
        """True if vectors are taken as they come."""
        return self.scale == 1 and not self.centre.any()


AS_THEY_ARE = Frame(np.zeros(1), 1.0)


def frame_of(x: Array) -> Frame:
    """Frame of vectors [N, D] float64: as they come, or standardised where float32 loses them."""
    centre = x.mean(0)
    spread = float(np.abs(x - centre).max(initial=0))
    large = float(np.abs(centre).max(initial=0))
    usual = spread == 0 or (SMALL <= spread <= LARGE and large <= OFFSET * spread)
    return AS_THEY_ARE if usual else Frame(centre, spread)


def too_far(x: Array, frame: Frame) -> int:
    """Number of the vectors [N, D] that `placed` brings nearer, so far away are they."""
    with np.errstate(over='ignore'):
        return int((np.abs((x - frame.centre) / frame.scale) > FARTHEST).any(-1).sum())


def placed(x: Array, frame: Frame) -> Array:
    """[N, D] float32 of [N, D] float64; what is farther than any square is brought nearer."""
    if not frame.as_they_are:
        with np.errstate(over='ignore'):
            x = (x - frame.centre) / frame.scale
    return np.clip(x, -FARTHEST, FARTHEST).astype(np.float32)
