"""A detector's arguments: checked, and what follows from them."""

from typing import Any

from anyshot_jax.data.readers.images import Reading
from anyshot_jax.detect import memory, objects, views
from anyshot_jax.detect.scores import Looks
from anyshot_jax.detect.seeing import Eye, eye
from anyshot_jax.detect.views import View
from anyshot_jax.types import InputError

MAX_SEED = 2**32 - 1  # larger ones draw what smaller ones do


def check(detector: Any) -> None:
    """Refuses (InputError) arguments that can't be; names them."""
    reading(detector).check()
    views.check(looks(detector).view)
    if not 0 < detector.false_alarm < 1:
        raise InputError(f'false_alarm={detector.false_alarm}: need a share between 0 and 1')
    if detector.memory < memory.FOLDS:
        raise InputError(f'memory={detector.memory}: need {memory.FOLDS} patches or more')
    if not 0 <= detector.turns <= 35:
        raise InputError(f'turns={detector.turns}: need 0 to 35')
    if not 0 <= detector.share <= 1:
        raise InputError(f'share={detector.share}: need 0 to 1')
    if not 0 <= detector.seed <= MAX_SEED:
        raise InputError(f'seed={detector.seed}: need 0 to {MAX_SEED}')
    objects.check(detector.foreground, detector.tile)


def looks(detector: Any) -> Looks:
    """The detector's way to look at images."""
    view = View(detector.size, detector.tile, detector.overlap, detector.crop)
    return Looks(
        reading(detector), view, detector.turns, detector.foreground, detector.memory,
        detector.share, detector.seed,
    )  # fmt: skip


def reading(detector: Any) -> Reading:
    """Settings for reading its images; `views.py` crops them."""
    return Reading(detector.crop, tuple(detector.range or ()), detector.max_pixels)


def eye_of(detector: Any) -> Eye:
    """Its encoder.

    Raises:
      InputError: tiles that its cells don't fit, too few of them for a foreground, other weights
        than it was fitted with, or as `seeing.eye`.
    """
    view = looks(detector).view
    layers, learnt = tuple(detector.layers), bool(detector.learnt)
    found = eye(detector.encoder, layers, view.side, bool(detector.cosine), learnt)
    objects.check_grid(detector.foreground, found.cells // found.times)
    cell = view.tile // found.cells
    if view.tile and (cell * found.cells != view.tile or views.STEP % cell):
        raise InputError(
            f'tile={view.tile}: tiles need an encoder whose cells divide {views.STEP} pixels, '
            f'those of {detector.encoder} have {view.tile / found.cells:.3g}'
        )
    if getattr(detector, 'encoder_digest_', '') not in ('', found.patcher.digest):
        raise InputError(
            f'this detector was fitted with other weights of {detector.encoder}: fit it again'
        )
    return found
