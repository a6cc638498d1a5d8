"""Made-up defects on pictures, on the device: where they are (shapes) and what they look like.

A class of them has a shape, an appearance and `look`, uniform numbers in 0..1 that fix what its
items share (how long, how dark, how coarse); place, direction and size vary from item to item by
their keys. Sizes are in shares of the picture's side, so they hold at every resolution.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from anyshot_jax.types import Array

LOOK = 16  # numbers that fix a class's look: 0-7 its shape, 8-15 its appearance
FINEST = 5  # Perlin noise has up to 2^5 cells an axis
TRIES = 16  # masks drawn at most, until one has the area that is asked for


def between(u: Array, low: float, high: float) -> Array:
    """The uniform number u in 0..1, moved to low..high."""
    return low + (high - low) * u


def log_between(u: Array, low: float, high: float) -> Array:
    """The same, uniform in the logarithm."""
    return low * (high / low) ** u


def perlin(key: Array, size: int, rows: Array, cols: Array) -> Array:
    """Perlin noise with 2^rows x 2^cols cells, quintic fade, times the square root of 2.

    Args:
      size: pixels a side. rows, cols: [] integers 0..5, may be traced.
    Returns:
      [size, size] float32, about -1..1 and 0 on average.
    Reference:
      Perlin, "Improving noise", 2002.
    """
    most = 2**FINEST + 1
    angle = 2 * jnp.pi * jax.random.uniform(key, (most, most))
    gradient = jnp.stack([jnp.cos(angle), jnp.sin(angle)])
    place = jnp.arange(size) / size
    at = [place * 2.0**n for n in (rows, cols)]
    low = [jnp.floor(a).astype(jnp.int32) for a in at]
    part = [a - i for a, i in zip(at, low, strict=True)]
    fade = [t * t * t * (t * (6 * t - 15) + 10) for t in part]

    def corner(down, right):
        g = gradient[:, low[0] + down][:, :, low[1] + right]
        return g[0] * (part[0] - down)[:, None] + g[1] * (part[1] - right)[None, :]

    mix = lambda a, b, t: a + t * (b - a)
    top = mix(corner(0, 0), corner(0, 1), fade[1][None, :])
    bottom = mix(corner(1, 0), corner(1, 1), fade[1][None, :])
    return jnp.sqrt(2.0) * mix(top, bottom, fade[0][:, None])


def perlin_mask(key: Array, size: int, *, threshold: float = 0.35, area=(0.1, 0.4)) -> Array:
    """Perlin noise of 2^u x 2^v cells, u and v uniform in 0..5, above a threshold.

    Drawn anew until its area is within `area`, at most 16 times (then the last one is taken, which
    happens to one of 10^12).

    Returns:
      [size, size] bool.
    Reference:
      Zavrtanik, Kristan, Skocaj, "DRAEM", 2021, section 3.3.
    """

    def draw(key):
        keys = jax.random.split(key, 3)
        cells = [jax.random.randint(k, (), 0, FINEST + 1) for k in keys[:2]]
        return perlin(keys[2], size, *cells) > threshold

    return first_fitting(key, draw, lambda mask: mask.mean(), area)


def first_fitting(key: Array, draw: Callable, measure: Callable, limits) -> Array:
    """The first of at most 16 draws whose measure is strictly within the limits, or the last."""

    def more(carry):
        i, drawn = carry
        found = measure(drawn)
        return (i < TRIES) & ~((found > limits[0]) & (found < limits[1]))

    again = lambda carry: (carry[0] + 1, draw(jax.random.fold_in(key, carry[0])))
    return jax.lax.while_loop(more, again, (1, draw(jax.random.fold_in(key, 0))))[1]


def polygon_mask(key: Array, size: int, corners: int) -> Array:
    """[size, size] bool: a regular polygon in a circle of a fifth of the picture, wholly in it."""
    keys = jax.random.split(key)
    middle = jax.random.uniform(keys[0], (2,), minval=0.1, maxval=0.9)
    row, col = _turned(*_offsets(middle, size), 2 * jnp.pi * jax.random.uniform(keys[1]))
    return _in_polygon(row, col, 0.1, jnp.float32(corners)) > 0


def pasted(
    key: Array, picture: Array, texture: Array, allowed: Array, beta: Array, corners: int
) -> tuple[Array, Array]:
    """The picture with a texture in Perlin noise, or in a polygon if it has corners.

    Inside it is (1 - b) texture + b picture, b uniform in 0..beta.

    Args:
      picture, texture: [S, S, C] uint8. allowed: [S, S] bool, where a defect may be: what the
        noise has outside is cut off.
    Returns:
      uint8 [S, S, C], bool [S, S]; the picture is unchanged outside.
    Reference:
      Zavrtanik, Kristan, Skocaj, "DRAEM", 2021, equation 1.
    """
    keys = jax.random.split(key)
    size = picture.shape[0]
    if corners:
        draw = lambda key: polygon_mask(key, size, corners) & allowed
        mask = first_fitting(keys[0], draw, lambda mask: mask.mean(), (0.0, 1.1))
    else:
        mask = perlin_mask(keys[0], size) & allowed
    b = jax.random.uniform(keys[1], maxval=beta)
    x, other = (a.astype(jnp.float32) / 255 for a in (picture, texture))
    return to_bytes((1 - b) * other + b * x, picture, mask)


# Shapes: (key, look [16], anchor [2], size) -> [S, S], how far inside, in shares of the side, less
# than 0 outside. anchor is (row, column) in 0..1, a place in the defect.


def _offsets(anchor: Array, size: int) -> tuple[Array, Array]:
    place = (jnp.arange(size) + 0.5) / size
    shape = (size, size)
    return (
        jnp.broadcast_to((place - anchor[0])[:, None], shape),
        jnp.broadcast_to((place - anchor[1])[None, :], shape),
    )


def _turned(row: Array, col: Array, angle: Array) -> tuple[Array, Array]:
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return cos * row + sin * col, cos * col - sin * row


def _ellipse(row: Array, col: Array, a: Array, b: Array) -> Array:
    """How far inside the ellipse of half axes a and b, about."""
    return (1 - jnp.hypot(row / a, col / b)) * jnp.minimum(a, b)


def _in_polygon(row: Array, col: Array, radius: Array, corners: Array) -> Array:
    """How far inside the regular polygon of 3 to 6 corners in a circle of that radius."""
    sides = jnp.arange(6)
    angle = (2 * jnp.pi * sides / corners)[:, None, None]
    out = jnp.cos(angle) * row[None] + jnp.sin(angle) * col[None]
    out = jnp.where((sides < corners)[:, None, None], out, -jnp.inf).max(0)
    return radius * jnp.cos(jnp.pi / corners) - out


def _perlin(key, look, anchor, size):
    """Blotches: noise near the anchor."""
    keys = jax.random.split(key, 2)
    cells = [jnp.floor(between(u, 2, FINEST + 0.99)).astype(jnp.int32) for u in look[:2]]
    row, col = _offsets(anchor, size)
    reach = log_between(look[2], 0.08, 0.5) * between(jax.random.uniform(keys[1]), 0.8, 1.25)
    window = jnp.exp(-0.5 * (row**2 + col**2) / reach**2)
    limits = (0.1 * reach**2, 1.0)

    def draw(key):
        return (perlin(key, size, *cells) + 0.35) * window - 0.45

    # A field of noise falls by about one within half a cell.
    inside = first_fitting(keys[0], draw, lambda field: (field > 0).mean(), limits)
    return inside * 0.5 / 2.0 ** jnp.maximum(*cells)


def _polygon(key, look, anchor, size):
    """A regular polygon of 3 to 6 corners, stretched."""
    keys = jax.random.split(key, 2)
    corners = jnp.floor(between(look[0], 3, 6.99))
    radius = log_between(look[1], 0.03, 0.2) * between(jax.random.uniform(keys[0]), 0.8, 1.25)
    row, col = _turned(*_offsets(anchor, size), 2 * jnp.pi * jax.random.uniform(keys[1]))
    return _in_polygon(row, col / between(look[2], 1, 2), radius, corners)


def _spot(key, look, anchor, size):
    """One to three dots, 0.03 to 1 % of the picture in all."""
    keys = jax.random.split(key, 4)
    num = jnp.floor(between(look[0], 1, 3.99))
    area = log_between(look[1], 3e-4, 1e-2) * between(jax.random.uniform(keys[0]), 0.7, 1.4)
    radius = jnp.sqrt(area / num / jnp.pi)
    stretch = jnp.sqrt(between(look[2], 1, 2.5))
    away = jax.random.uniform(keys[1], (3, 2), minval=-1, maxval=1) * radius * 6
    angle = jnp.pi * jax.random.uniform(keys[2], (3,))
    inside = -jnp.inf
    for i in range(3):
        row, col = _turned(*_offsets(anchor + away[i] * (i > 0), size), angle[i])
        dot = _ellipse(row, col, radius * stretch, radius / stretch)
        inside = jnp.maximum(inside, jnp.where(i < num, dot, -jnp.inf))
    return inside


def _line(key, look, anchor, size):
    """A crack or scratch, 1 to 3 pixels wide at 256, through the anchor: a walk that wanders."""
    keys = jax.random.split(key, 4)
    steps = 48
    length = log_between(look[0], 0.15, 0.9) * between(jax.random.uniform(keys[0]), 0.8, 1.25)
    wander = log_between(look[1], 0.02, 0.7)
    half = between(look[2], 0.5, 1.5) / 256
    angle = 2 * jnp.pi * jax.random.uniform(keys[1])
    angle += jnp.cumsum(wander * jax.random.normal(keys[2], (steps,)))
    moves = length / steps * jnp.stack([jnp.cos(angle), jnp.sin(angle)], 1)
    path = jnp.cumsum(jnp.concatenate([jnp.zeros((1, 2)), moves]), 0)
    path += (anchor - path[jax.random.randint(keys[3], (), steps // 3, 2 * steps // 3)])[None]

    def nearer(near, ends):
        (row, col), step = _offsets(ends[0], size), ends[1] - ends[0]
        along = (row * step[0] + col * step[1]) / (step @ step)
        along = jnp.clip(along, 0, 1)
        away = jnp.hypot(row - along * step[0], col - along * step[1])
        return jnp.minimum(near, away), None

    near = jnp.full((size, size), jnp.inf)
    near, _ = jax.lax.scan(nearer, near, jnp.stack([path[:-1], path[1:]], 1))
    return half - near


def _edge(key, look, anchor, size):
    """A bite with a ragged rim; the anchor is on the border."""
    keys = jax.random.split(key, 3)
    grow = between(jax.random.uniform(keys[0]), 0.75, 1.3)
    deep, wide = (log_between(look[0], 0.03, 0.2), log_between(look[1], 0.05, 0.3))
    row, col = _turned(*_offsets(anchor, size), jnp.pi * jax.random.uniform(keys[1]))
    rough = 0.5 * look[2] * deep * perlin(keys[2], size, 4, 4)
    return _ellipse(row, col, deep * grow, wide * grow) + rough


def _band(key, look, anchor, size):
    """A large part: all beyond a bent front through the anchor, or a big ellipse around it."""
    keys = jax.random.split(key, 3)
    row, col = _turned(*_offsets(anchor, size), 2 * jnp.pi * jax.random.uniform(keys[0]))
    bent = between(look[1], 0.02, 0.12) * perlin(keys[1], size, 2, 2)
    grow = between(jax.random.uniform(keys[2]), 0.8, 1.25)
    a, b = (between(u, 0.15, 0.4) * grow for u in look[2:4])
    front = jnp.minimum(row + 0.02, 0.7 * grow * between(look[2], 0.3, 1) - row)
    return jnp.where(look[0] < 0.5, front, _ellipse(row, col, a, b)) + bent


SHAPES: dict[str, Callable] = {
    'perlin': _perlin,
    'polygon': _polygon,
    'spot': _spot,
    'line': _line,
    'edge': _edge,
    'band': _band,
}
SOFT = {'perlin': 0.01, 'polygon': 0.006, 'spot': 0.006, 'line': 0.005, 'edge': 0.006, 'band': 0.1}


def cover(key: Array, look: Array, allowed: Array, shape: str) -> Array:
    """How much of each pixel a defect of the class covers, 0..1; 0 outside.

    Args:
      look: [16] in 0..1. allowed: [S, S] bool, where a defect may be.
      shape: one of SHAPES. An edge starts at the border of what is allowed.
    Returns:
      [S, S] float32.
    """
    size = allowed.shape[0]
    place, draw = jax.random.split(key)
    where = border(allowed) if shape == 'edge' else allowed
    weight = jnp.where(where.reshape(-1), 0.0, -jnp.inf)
    pixel = jax.random.categorical(place, weight)
    anchor = (jnp.stack([pixel // size, pixel % size]) + 0.5) / size
    inside = SHAPES[shape](draw, look, anchor, size)
    # The rim is half a pixel at least, else it is jagged; a class has a harder or softer one.
    rim = jnp.maximum(SOFT[shape] * between(look[7], 0.2, 1.5), 0.5 / size)
    return jnp.clip(0.5 + inside / rim, 0, 1) * allowed


def border(allowed: Array) -> Array:
    """[S, S] bool: the pixels of it with one beside them that isn't in it, or outside."""
    padded = jnp.pad(allowed, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return allowed & ~inner


# Appearances: (key, look [16], picture [S, S, C], texture [S, S, C]) -> [S, S, C], in 0..1: what the
# picture would be if all of it were defect.


def _texture(key, look, picture, texture):
    keys = jax.random.split(key)
    b = between(look[8], 0, 0.5)
    moved = jnp.roll(texture, jax.random.randint(keys[0], (2,), 0, picture.shape[0]), (0, 1))
    moved = jnp.where(jax.random.bernoulli(keys[1]), moved, moved[:, ::-1])
    return (1 - b) * moved + b * picture


def _shade(key, look, picture, texture):
    """Darker or brighter, with a tint where the picture has colours."""
    strength = between(look[8], 0.3, 0.85) * between(jax.random.uniform(key), 0.85, 1.15)
    gray = picture.mean(-1, keepdims=True)
    coloured = jnp.clip(20 * jnp.abs(picture - gray).mean(), 0, 1)
    tint = 1 + coloured * (look[10:13][: picture.shape[-1]] - 0.5)
    strength = jnp.clip(strength * tint, 0, 0.95)[None, None]
    return jnp.where(look[9] < 0.6, picture * (1 - strength), picture + (1 - picture) * strength)


def _blur(key, look, picture, texture):
    """Out of focus, and a little darker or brighter."""
    sigma = log_between(look[8], 2.0, 8.0) / 256
    return smooth(picture, sigma, sigma) * between(look[9], 0.75, 1.2)


def _streak(key, look, picture, texture):
    """Drawn out along rows or columns."""
    long, thin = log_between(look[8], 6.0, 25.0) / 256, 0.3 / 256
    across = smooth(picture, thin, long), smooth(picture, long, thin)
    drawn = jnp.where(look[9] < 0.5, *across)
    return drawn * between(look[10], 0.75, 1.25)


def _noise(key, look, picture, texture):
    """Grain, coarse or fine, dark, bright or neither."""
    grain = log_between(look[8], 0.3, 3.0) / 256
    noise = jax.random.normal(key, (*picture.shape[:2], 1))
    noise = smooth(noise, grain, grain)
    noise = noise / (noise.std() + 1e-6)
    return picture + between(look[9], 0.08, 0.3) * noise + between(look[10], -0.2, 0.2)


def _copy(key, look, picture, texture):
    """Another part of the same picture, turned (CutPaste: Li, Sohn, Yoon, Pfister, 2021)."""
    size = picture.shape[0]
    turned = jnp.stack([jnp.rot90(picture, k) for k in range(4)])
    turned = turned[jnp.floor(between(look[8], 0, 3.99)).astype(jnp.int32)]
    by = jax.random.randint(key, (2,), size // 4, size - size // 4)
    return jnp.roll(turned, by, (0, 1)) * between(look[9], 0.7, 1.3)


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


def paint(key, look, picture, texture, covered, appearance: str) -> tuple[Array, Array]:
    """The picture with the defect, and where it may have changed.

    Args:
      picture: [S, S, C] uint8. texture: the same. covered: [S, S] in 0..1.
    Returns:
      uint8 [S, S, C], bool [S, S]; the picture is unchanged outside.
    """
    x, other = (a.astype(jnp.float32) / 255 for a in (picture, texture))
    changed = APPEARANCES[appearance](key, look, x, other)
    mixed = x + covered[..., None] * (jnp.clip(changed, 0, 1) - x)
    return to_bytes(mixed, picture, covered > 0)


def to_bytes(changed: Array, picture: Array, mask: Array) -> tuple[Array, Array]:
    """`changed` [S, S, C] in 0..1 as uint8 inside the mask, `picture` outside; and the mask."""
    rounded = jnp.round(jnp.clip(changed, 0, 1) * 255).astype(jnp.uint8)
    return jnp.where(mask[..., None], rounded, picture), mask
