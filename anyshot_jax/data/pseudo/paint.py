"""Synthetic defects on images, on the device: what they look like.

`pasted` is the way of the literature: a texture in Perlin noise or a polygon. `paint` gives a class
a shape (`pseudo_shapes.py`) and an appearance, with a look of its own: numbers in 0..1 that fix
what its items share, such as how dark or coarse they are.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from anyshot_jax.data.pseudo.shapes import between, log_between, perlin_mask, polygon_mask
from anyshot_jax.types import Array

LEAST_SEEN = 0.04  # a defect's root mean square change, of white; weaker ones are made stronger


def pasted(
    key: Array, image: Array, texture: Array, allowed: Array, beta: Array, corners: int
) -> tuple[Array, Array]:
    """The image with a texture in Perlin noise, or in a polygon if it has corners.

    Inside it is (1 - b) texture + b image, b uniform in 0..beta.

    Args:
      image, texture: [S, S, C] uint8. allowed: [S, S] bool, where a defect may be: what the
        noise has outside is cut off.
    Returns:
      uint8 [S, S, C], bool [S, S]; the image is unchanged outside.
    Reference:
      Zavrtanik, Kristan, Skocaj, "DRAEM", 2021, equation 1.
    """
    keys = jax.random.split(key)
    mask = polygon_mask(keys[0], allowed, corners) if corners else perlin_mask(keys[0], allowed)
    b = jax.random.uniform(keys[1], maxval=beta)
    x, other = (jnp.asarray(a, jnp.float32) / 255 for a in (image, texture))
    return to_bytes((1 - b) * other + b * x, image, mask)


# Appearances: (key, look [16], image [S, S, C], texture [S, S, C]) -> [S, S, C], in 0..1: what
# the image would be if all of it were defect.


def _tone(u: Array) -> Array:
    """A factor of brightness that is seen: 0.6..0.85 or 1.15..1.5."""
    return jnp.where(u < 0.6, between(u / 0.6, 0.6, 0.85), between((u - 0.6) / 0.4, 1.15, 1.5))


def _moved(x: Array, by: Array) -> Array:
    """[S, S, C] moved by rows and columns; what comes in is mirrored, so there is no seam."""
    size = x.shape[0]
    at = [(jnp.arange(size) + b) % (2 * size) for b in by]
    row, col = (jnp.minimum(a, 2 * size - 1 - a) for a in at)
    return x[row][:, col]


def _texture(key, look, image, texture):
    """Pasted, or as a relief that takes the brightness around it."""
    moved = _moved(texture, jax.random.randint(key, (2,), 0, 2 * image.shape[0]))
    b = between(look[8], 0, 0.5)
    pasted = (1 - b) * moved + b * image
    relief = (moved - moved.mean()) / (moved.std() + 1e-3) * between(look[10], 0.15, 0.5)
    relief = smooth(image, 0.02, 0.02) * (1 + relief) * _tone(look[11])
    return jnp.where(look[9] < 0.5, pasted, relief)


def _shade(key, look, image, texture):
    """Darker or brighter, with a tint where the image has colours."""
    strength = between(look[8], 0.25, 0.85) * between(jax.random.uniform(key), 0.85, 1.15)
    grey = image.mean(-1, keepdims=True)
    coloured = jnp.clip(20 * jnp.abs(image - grey).mean(), 0, 1)
    tint = 1 + coloured * (look[10:13][: image.shape[-1]] - 0.5)
    strength = jnp.clip(strength * tint, 0, 0.95)[None, None]
    return jnp.where(look[9] < 0.6, image * (1 - strength), image + (1 - image) * strength)


def _blur(key, look, image, texture):
    """Out of focus, and darker or brighter."""
    sigma = log_between(look[8], 2.0, 8.0) / 256
    return smooth(image, sigma, sigma) * _tone(look[9])


def _streak(key, look, image, texture):
    """Drawn out along rows or columns, and darker or brighter."""
    long, thin = log_between(look[8], 6.0, 25.0) / 256, 0.3 / 256
    across = smooth(image, thin, long), smooth(image, long, thin)
    return jnp.where(look[9] < 0.5, *across) * _tone(look[10])


def _noise(key, look, image, texture):
    """Grain, coarse or fine, dark, bright or neither."""
    grain = log_between(look[8], 0.3, 3.0) / 256
    noise = smooth(jax.random.normal(key, (*image.shape[:2], 1)), grain, grain)
    noise = noise / (noise.std() + 1e-6)
    return image + between(look[9], 0.06, 0.25) * noise + between(look[10], -0.2, 0.2)


def _copy(key, look, image, texture):
    """Another part of the same image, turned (CutPaste: Li, Sohn, Yoon, Pfister, 2021)."""
    size = image.shape[0]
    turned = jnp.stack([jnp.rot90(image, k) for k in range(4)])
    turned = turned[jnp.floor(between(look[8], 0, 3.99)).astype(jnp.int32)]
    by = jax.random.randint(key, (2,), size // 4, size - size // 4)
    return _moved(turned, by) * between(look[9], 0.7, 1.3)


APPEARANCES: dict[str, Callable] = {
    'texture': _texture,
    'shade': _shade,
    'blur': _blur,
    'streak': _streak,
    'noise': _noise,
    'copy': _copy,
}


def smooth(x: Array, down: Array, across: Array) -> Array:
    """Gaussian blur of [S, S, C]; the deviations are shares of the side, may be traced."""
    place = (jnp.arange(x.shape[0]) + 0.5) / x.shape[0]
    apart = jnp.square(place[:, None] - place[None, :])

    def weights(sigma):
        w = jnp.exp(-0.5 * apart / jnp.square(jnp.maximum(sigma, 1e-4)))
        return w / w.sum(1, keepdims=True)

    x = jnp.einsum('ij,jkc->ikc', weights(down), x)
    return jnp.einsum('lk,ikc->ilc', weights(across), x)


def paint(key, look, image, texture, covered, appearance: str) -> tuple[Array, Array]:
    """The image with the defect, and where it may have changed.

    Args:
      image: [S, S, C] uint8. texture: the same. covered: [S, S] in 0..1.
    Returns:
      uint8 [S, S, C], bool [S, S]; the image is unchanged outside.
    """
    x, other = (jnp.asarray(a, jnp.float32) / 255 for a in (image, texture))
    change = jnp.clip(APPEARANCES[appearance](key, look, x, other), 0, 1) - x
    change = covered[..., None] * change
    # What can't be seen can't be told apart, such as a blur of what is smooth already.
    weight = x.shape[-1] * jnp.square(covered).sum() + 1e-6
    seen = jnp.sqrt(jnp.square(change).sum() / weight)
    change = change * jnp.clip(LEAST_SEEN / (seen + 1e-6), 1, 5)
    return to_bytes(x + change, image, covered > 0)


def to_bytes(changed: Array, image: Array, mask: Array) -> tuple[Array, Array]:
    """`changed` [S, S, C] in 0..1 as uint8 inside the mask, `image` outside; and the mask."""
    rounded = jnp.round(jnp.clip(changed, 0, 1) * 255).astype(jnp.uint8)
    return jnp.where(mask[..., None], rounded, image), mask
