"""Images as a pretrained net was trained on them: resized, cropped, scaled, on the device."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from anyshot_jax.types import Array, InputError


class Preprocessing(NamedTuple):
    """The shorter side becomes `size` pixels, the centre square is taken, channels are scaled."""

    size: int
    mean: tuple[float, float, float]  # of each channel in 0..1: it becomes 0
    std: tuple[float, float, float]  # and this far from it 1


def preprocess(x: Array, *, how: Preprocessing) -> Array:
    """Resized bicubically (averaging over all pixels when shrinking, as Pillow), cropped, scaled.

    Args:
      x: [N, H, W, C] uint8, C is 1 (grey, repeated) or 3.
    Returns:
      [N, size, size, 3] float32, (x / 255 - mean) / std.
    Raises:
      InputError: not images of 1 or 3 channels.
    """
    if x.ndim != 4 or x.shape[-1] not in (1, 3) or x.dtype != jnp.uint8:
        raise InputError(f'an encoder takes uint8 images [N, H, W, 1 or 3], got {x.dtype} '
                         f'{x.shape}')  # fmt: skip
    mean, std = (jnp.array(v, jnp.float32).reshape(1, 1, 1, 3) for v in (how.mean, how.std))
    x = resize(x, how.size) / 255
    return (x - mean) / std


def resize(x: Array, size: int) -> Array:
    """[N, H, W, C] uint8 -> [N, size, size, C] float32 in 0..255: the centre of the shorter side.

    Keys' cubic with a = -0.5, widened when shrinking, along the rows and then the columns, rounded
    and cut to 0..255 after each: as Pillow's BICUBIC.
    Keys, "Cubic convolution interpolation for digital image processing", 1981.
    """
    n, h, w, c = x.shape
    short = min(h, w)
    if h != w:
        top, left = (h - short) // 2, (w - short) // 2
        x = x[:, top : top + short, left : left + short]
    x = x.astype(jnp.float32)
    if short == size:
        return x
    for shape in ((n, short, size, c), (n, size, size, c)):
        x = jnp.clip(jnp.round(jax.image.resize(x, shape, 'cubic', antialias=True)), 0, 255)
    return x
