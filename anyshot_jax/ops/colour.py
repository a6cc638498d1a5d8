"""The colours of an image, in words."""

import jax
import jax.numpy as jnp

from anyshot_jax.types import Array, InputError

# The basic colour terms of English (Berlin and Kay 1969), but cyan instead of pink, whose hues are
# red's and purple's.
COLOURS = (
    'black', 'grey', 'white', 'red', 'orange', 'yellow', 'green', 'cyan', 'blue', 'purple', 'brown',
)  # fmt: skip

_HUES = (4, 11, 19, 44, 53, 72, 93)  # hundredths of a turn: where orange, ..., purple, red begin


def colour_shares(x: Array) -> jax.Array:
    """Share of each image that has each colour of `COLOURS`.

    Regions of hue, saturation and value: black V < .2; else with S < .15 grey V < .75, white; else
    by hue in turns red from .93 and < .04, orange < .11 (brown V < .6), yellow < .19, green < .44,
    cyan < .53, blue < .72, purple < .93.

    Args:
      x: [N, H, W, C] uint8, C is 1 (grey) or 3 (RGB).
    Returns:
      [N, 11] float32, rows sum to 1.
    Raises:
      InputError: not images of 1 or 3 channels.
    Reference:
      Berlin and Kay, "Basic color terms", 1969. Van de Weijer et al., "Learning color names for
      real-world applications", 2009, learn the regions; these are set by hand.
    """
    if x.ndim != 4 or x.shape[-1] not in (1, 3) or x.dtype != jnp.uint8:
        raise InputError(
            f'colours are those of uint8 images [N, H, W, 1 or 3], got {x.dtype} {x.shape}'
        )
    # In whole numbers, so that a pixel on a border is on the same side everywhere.
    r, g, b = (x[..., i % x.shape[-1]].astype(jnp.int32) for i in range(3))
    top = jnp.maximum(jnp.maximum(r, g), b)  # 255 V
    gap = top - jnp.minimum(jnp.minimum(r, g), b)  # 255 V S
    sixths = jnp.where(
        r == top, g - b, jnp.where(g == top, 2 * gap + b - r, 4 * gap + r - g)
    )  # 6 gap times the hue
    sixths = jnp.where(sixths < 0, sixths + 6 * gap, sixths)
    passed = sum((100 * sixths >= edge * 6 * gap).astype(jnp.int32) for edge in _HUES)
    red, orange = COLOURS.index('red'), COLOURS.index('orange')
    colour = jnp.where(passed == len(_HUES), red, red + passed)
    colour = jnp.where((colour == orange) & (5 * top < 3 * 255), COLOURS.index('brown'), colour)
    colour = jnp.where(20 * gap < 3 * top, jnp.where(4 * top < 3 * 255, 1, 2), colour)
    colour = jnp.where(5 * top < 255, 0, colour)
    count = jnp.stack([(colour == c).sum((1, 2)) for c in range(len(COLOURS))], -1)
    return count.astype(jnp.float32) / (x.shape[1] * x.shape[2])
