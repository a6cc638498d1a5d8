"""Shapes of synthetic defects, on the device: Perlin noise, polygons, dots, cracks, bites, bands.

A class of them has a shape and `look`, uniform numbers in 0..1 that fix what its items share (how
long, how wide, how ragged); place, direction and size vary from item to item by their keys. Sizes
are in shares of the image's side, so they hold at every resolution.
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


def perlin_mask(key: Array, allowed: Array) -> Array:
    """Perlin noise of 2^u x 2^v cells, u and v uniform in 0..5, where it is above 0.35.

    Drawn anew until it has 0.1 to 0.4 of the image and some of what is allowed, at most 16 times:
    then the last one is taken, which without limits happens once in 10^12.

    Args:
      allowed: [S, S] bool; what the noise has outside is cut off.
    Returns:
      [S, S] bool.
    Reference:
      Zavrtanik, Kristan, Skocaj, "DRAEM", 2021, section 3.3.
    """

    def draw(key):
        keys = jax.random.split(key, 3)
        cells = [jax.random.randint(k, (), 0, FINEST + 1) for k in keys[:2]]
        return perlin(keys[2], allowed.shape[0], *cells) > 0.35

    def fits(mask):
        area = mask.mean()
        return (area > 0.1) & (area < 0.4) & (mask & allowed).any()

    return first_fitting(key, draw, fits) & allowed


def first_fitting(key: Array, draw: Callable, fits: Callable) -> Array:
    """The first of at most 16 draws that fits, or the last. draw: key -> it; fits: it -> bool."""
    more = lambda carry: (carry[0] < TRIES) & ~fits(carry[1])
    again = lambda carry: (carry[0] + 1, draw(jax.random.fold_in(key, carry[0])))
    return jax.lax.while_loop(more, again, (1, draw(jax.random.fold_in(key, 0))))[1]


def polygon_mask(key: Array, allowed: Array, corners: int) -> Array:
    """[S, S] bool: a regular polygon in a circle of a fifth of the image, which is wholly in it.

    What it has outside of `allowed` [S, S] is cut off; drawn as `perlin_mask` until some is left.
    """

    def draw(key):
        keys = jax.random.split(key)
        middle = jax.random.uniform(keys[0], (2,), minval=0.1, maxval=0.9)
        angle = 2 * jnp.pi * jax.random.uniform(keys[1])
        row, col = _turned(*_offsets(middle, allowed.shape[0]), angle)
        return (_in_polygon(row, col, 0.1, corners) > 0) & allowed

    return first_fitting(key, draw, jnp.any)


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
    """Approximate distance inside the ellipse of half axes a and b."""
    return (1 - jnp.hypot(row / a, col / b)) * jnp.minimum(a, b)


def _in_polygon(row: Array, col: Array, radius: Array, corners: Array) -> Array:
    """Distance inside the regular polygon of 3 to 6 corners in a circle of that radius."""
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
    field = (perlin(keys[0], size, *cells) + 0.35) * window - 0.45
    return field * 0.5 / 2.0 ** jnp.maximum(*cells)  # noise falls by about 1 within half a cell


def _polygon(key, look, anchor, size):
    """A regular polygon of 3 to 6 corners, stretched."""
    keys = jax.random.split(key, 2)
    corners = jnp.floor(between(look[0], 3, 6.99))
    radius = log_between(look[1], 0.03, 0.2) * between(jax.random.uniform(keys[0]), 0.8, 1.25)
    row, col = _turned(*_offsets(anchor, size), 2 * jnp.pi * jax.random.uniform(keys[1]))
    return _in_polygon(row, col / between(look[2], 1, 2), radius, corners)


def _spot(key, look, anchor, size):
    """One to three dots, 0.03 to 1 % of the image in all."""
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
    """A crack or scratch through the anchor, 1 to 3 pixels wide at 256: a walk that wanders."""
    keys = jax.random.split(key, 5)
    steps = 48
    length = log_between(look[0], 0.15, 0.9) * between(jax.random.uniform(keys[0]), 0.8, 1.25)
    wander, rough = log_between(look[1], 0.01, 0.25), between(look[3], 0, 0.5)
    angle = 2 * jnp.pi * jax.random.uniform(keys[1])
    angle += jnp.cumsum(wander * jax.random.normal(keys[2], (steps,)))
    angle += rough * jax.random.normal(keys[3], (steps,))
    moves = length / steps * jnp.stack([jnp.cos(angle), jnp.sin(angle)], 1)
    path = jnp.cumsum(jnp.concatenate([jnp.zeros((1, 2)), moves]), axis=0)
    path += (anchor - path[jax.random.randint(keys[4], (), steps // 3, 2 * steps // 3)])[None]
    half = between(look[2], 0.5, 1.5) / 256 * between(look[4], 1, 1.6)
    # Some run out to a point.
    taper = jnp.sin(jnp.pi * (jnp.arange(steps) + 0.5) / steps) ** (look[5] * 0.7)

    def deeper(inside, part):
        start, step, wide = part
        row, col = _offsets(start, size)
        along = jnp.clip((row * step[0] + col * step[1]) / (step @ step), 0, 1)
        away = jnp.hypot(row - along * step[0], col - along * step[1])
        return jnp.maximum(inside, wide - away), None

    outside = jnp.full((size, size), -jnp.inf)
    return jax.lax.scan(deeper, outside, (path[:-1], moves, half * taper))[0]


def _edge(key, look, anchor, size):
    """A bite with a ragged rim; the anchor is on the border."""
    keys = jax.random.split(key, 3)
    grow = between(jax.random.uniform(keys[0]), 0.75, 1.3)
    deep, wide = (log_between(look[0], 0.03, 0.2), log_between(look[1], 0.05, 0.3))
    row, col = _turned(*_offsets(anchor, size), jnp.pi * jax.random.uniform(keys[1]))
    rough = 0.7 * look[2] * jnp.minimum(deep, wide) * perlin(keys[2], size, 4, 4)
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
SOFT = {'perlin': 0.006, 'polygon': 0.01, 'spot': 0.01, 'line': 0.006, 'edge': 0.01, 'band': 0.15}
LEAST = {'perlin': 4e-3, 'polygon': 1e-3, 'spot': 2e-4, 'line': 2e-4, 'edge': 5e-4, 'band': 0.03}


def cover(key: Array, look: Array, allowed: Array, shape: str) -> Array:
    """Coverage of each pixel by a defect of the class, 0..1; 0 outside.

    Drawn anew until it has a share of what is allowed that its shape should have, at most 16 times.

    Args:
      look: [16] in 0..1. allowed: [S, S] bool, where a defect may be.
      shape: one of SHAPES. An edge starts at the border of what is allowed.
    Returns:
      [S, S] float32.
    """
    size = allowed.shape[0]
    where = border(allowed) if shape == 'edge' else allowed
    weight = jnp.where(where.reshape(-1), 0.0, -jnp.inf)
    # A class has a harder or softer rim; one of a pixel at least, else it is jagged.
    rim = jnp.maximum(log_between(look[7], 0.003, SOFT[shape]), 1 / size)

    def draw(key):
        place, rest = jax.random.split(key)
        pixel = jax.random.categorical(place, weight)
        anchor = (jnp.stack([pixel // size, pixel % size]) + 0.5) / size
        inside = SHAPES[shape](rest, look, anchor, size)
        return jnp.clip(0.5 + inside / rim, 0, 1) * allowed

    least = LEAST[shape] * allowed.sum()
    return first_fitting(key, draw, lambda covered: (covered > 0).sum() > least)


def border(allowed: Array) -> Array:
    """[S, S] bool: the pixels of it with one beside them that isn't in it, or outside."""
    padded = jnp.pad(allowed, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return allowed & ~inner
