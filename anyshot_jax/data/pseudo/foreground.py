"""Foreground masks of objects, so that synthetic defects lie on them and not beside them.

The settings are those of the published code of "An anomaly multi-classification method", 2024.
"""

from collections.abc import Callable

import numpy as np
from absl import logging

from anyshot_jax.types import Array, InputError

LEAST = 0.01  # of the image: a smaller object was probably not found


def check(how: str) -> None:
    """Refuses (InputError) a way that isn't known, or OpenCV that isn't there."""
    if how not in ('none', *WAYS):
        raise InputError(f'config.data.pseudo.foreground = {how!r}: need none, {" or ".join(WAYS)}')
    if how != 'none':
        _opencv()


def find(images: Array, how: str) -> Array:
    """[N, S, S] bool of images [N, S, S, 1 or 3] uint8; all of an image where how is 'none'.

    Where less than 1 % is found all of the image is taken, and the log says how often.

    Raises:
      InputError: OpenCV is not installed.
    """
    found = np.ones(images.shape[:3], bool)
    if how == 'none':
        return found
    cv2 = _opencv()
    for i, image in enumerate(images):
        # Rows of one memory order, and three channels, are what OpenCV takes.
        colour = np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))
        found[i] = WAYS[how](cv2, colour)
    lost = found.mean((1, 2)) < LEAST
    if lost.any():
        logging.warning(
            'config.data.pseudo.foreground=%r found nothing in %d of %d images: all of them is '
            'taken',
            how, lost.sum(), len(lost),
        )  # fmt: skip
    found[lost] = True
    return found


def _grabcut(cv2, image: Array) -> Array:
    """GrabCut's probable foreground, beginning with all but the outermost pixels."""
    height, width = image.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # its first clusters are drawn
    cv2.grabCut(image, mask, (1, 1, width - 2, height - 2), *models, 10, cv2.GC_INIT_WITH_RECT)
    return mask == cv2.GC_PR_FGD


def _flood(cv2, image: Array) -> Array:
    """Pixels that aren't reached from the upper left and lower right corner by similar ones."""
    height, width = image.shape[:2]
    reached = np.zeros((height, width), bool)
    for corner in ((0, 0), (width - 1, height - 1)):
        mask = np.zeros((height + 2, width + 2), np.uint8)  # with a rim, as it wants it
        flags = 4 | (1 << 8) | cv2.FLOODFILL_FIXED_RANGE | cv2.FLOODFILL_MASK_ONLY
        cv2.floodFill(image.copy(), mask, corner, 0, (80,) * 3, (50,) * 3, flags)
        reached |= mask[1:-1, 1:-1] > 0
    return ~reached


WAYS: dict[str, Callable] = {'grabcut': _grabcut, 'flood': _flood}


def _opencv():
    try:
        import cv2
    except ImportError as e:
        raise InputError(
            "config.data.pseudo.foreground needs OpenCV: pip install 'anyshot-jax[anomaly]', or "
            "take 'none'"
        ) from e
    return cv2
