"""Synthetic defects: noise and shapes against slow oracles, changed pixels against the masks."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from anyshot_jax.data.pseudo import paint, shapes
from anyshot_jax.data.pseudo.paint import APPEARANCES
from anyshot_jax.data.pseudo.shapes import SHAPES

pytestmark = pytest.mark.slow

ALL = lambda size: jnp.ones((size, size), bool)


def many(f, num, *others):
    """f(key, *others) of `num` keys and as many of each of the others."""
    keys = jax.random.split(jax.random.key(0), num)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(f))(keys, *others))


def image(rng, size=48, channels=3):
    """A smooth image with some grain, neither black nor white."""
    rough = ndimage.gaussian_filter(rng.normal(0, 1, (size, size, channels)), (6, 6, 0))
    grain = rng.normal(0, 4, (size, size, channels))
    return np.clip(120 + 60 * rough / rough.std() / 2 + grain, 20, 235).astype(np.uint8)


def test_perlin_noise_point_by_point():
    """Each pixel by itself: four corners' gradients times the way from them, faded between."""
    size, rows, cols = 16, 1, 2
    key = jax.random.key(3)
    found = np.asarray(shapes.perlin(key, size, rows, cols))
    angle = 2 * np.pi * np.asarray(jax.random.uniform(key, (33, 33)), np.float64)
    fade = lambda t: 6 * t**5 - 15 * t**4 + 10 * t**3
    for row, col in [(0, 0), (5, 3), (8, 4), (15, 15), (7, 11)]:
        y, x = row / size * 2, col / size * 4
        total = 0.0
        for i in (int(y), int(y) + 1):
            for j in (int(x), int(x) + 1):
                dot = np.cos(angle[i, j]) * (y - i) + np.sin(angle[i, j]) * (x - j)
                total += dot * (1 - fade(abs(y - i))) * (1 - fade(abs(x - j)))
        assert found[row, col] == pytest.approx(np.sqrt(2) * total, abs=1e-5)
    assert found[0, 0] == found[8, 4] == 0  # as at every corner of a cell


def test_area_of_perlin_masks():
    """0.145 on average, 0.109 to 0.207 in nine of ten: measured of the published generator."""
    mask = many(lambda key: shapes.perlin_mask(key, ALL(256)), 120)
    area = mask.mean((1, 2))
    assert area.min() > 0.1 and area.max() < 0.4
    assert area.mean() == pytest.approx(0.145, abs=0.008)
    np.testing.assert_allclose(np.percentile(area, [5, 95]), [0.109, 0.207], atol=0.02)


SIDE = 96
OBJECT = np.zeros((SIDE, SIDE), bool)
OBJECT[30:60, 40:75] = True  # a ninth of the image


@cache
def covered(shape):
    """Masks of one shape and different looks, 20 anywhere and 20 on the object."""

    def covers(key, allowed):
        keys = jax.random.split(key)
        look = jax.random.uniform(keys[0], (shapes.LOOK,))
        return shapes.cover(keys[1], look, allowed, shape) > 0

    allowed = jnp.stack([ALL(SIDE)] * 20 + [jnp.asarray(OBJECT)] * 20)
    mask = many(covers, 40, allowed)
    return mask[:20], mask[20:]


@pytest.mark.parametrize('shape', ['noise', 'corners', *SHAPES])
def test_masks_stay_on_the_object(shape):
    if shape == 'noise':
        mask = many(lambda key: shapes.perlin_mask(key, OBJECT), 20)
    elif shape == 'corners':
        mask = many(lambda key: shapes.polygon_mask(key, OBJECT, 4), 20)
    else:
        mask = covered(shape)[1]
    assert not mask[:, ~OBJECT].any() and mask.any((1, 2)).all()
    if shape == 'edge':
        border = OBJECT & ~ndimage.binary_erosion(OBJECT)
        assert mask[:, border].any(1).all()


def test_the_search_for_a_mask_ends():
    """At the sixteenth draw, if none fits; with the first that does."""
    key, draw = jax.random.key(0), lambda key: jax.random.uniform(key)
    drawn = np.array([draw(jax.random.fold_in(key, i)) for i in range(40)])
    assert shapes.first_fitting(key, draw, lambda u: u > 2) == drawn[15]
    first = drawn[np.flatnonzero(drawn > 0.8)[0]]
    assert shapes.first_fitting(key, draw, lambda u: u > 0.8) == first


@pytest.mark.parametrize('corners', [3, 4, 5, 6])
def test_regular_polygons(corners):
    """n / 2 r^2 sin(2 pi / n) large with r = 0.1, more than 1 %, and wholly in the image."""
    mask = many(lambda key: shapes.polygon_mask(key, ALL(128), corners), 20)
    want = corners / 2 * 0.01 * np.sin(2 * np.pi / corners)
    np.testing.assert_allclose(mask.mean((1, 2)), want, rtol=0.05)
    assert want > 0.01
    rows, cols = np.any(mask, 2), np.any(mask, 1)
    assert rows.sum(1).max() <= 27 and cols.sum(1).max() <= 27  # a fifth of 128, and a rim
    # As many corners: of the distances from the middle by angle, the period is a turn's n-th part.
    one = mask[0]
    row, col = np.nonzero(one)
    row, col = row - row.mean(), col - col.mean()
    far = np.abs(np.mean((row + 1j * col) ** corners / np.hypot(row, col).max() ** corners))
    others = [n for n in (3, 4, 5, 6) if n != corners and n % corners and corners % n]
    for n in others:
        less = np.abs(np.mean((row + 1j * col) ** n / np.hypot(row, col).max() ** n))
        assert far > 2 * less


SIZES = {  # least and largest area, in shares of the image
    'perlin': (4e-3, 0.6),
    'polygon': (1e-3, 0.3),
    'spot': (2e-4, 0.025),
    'line': (2e-4, 0.04),
    'edge': (5e-4, 0.2),
    'band': (0.03, 0.9),
}


@pytest.mark.parametrize('shape', SHAPES)
def test_shapes(shape):
    mask = covered(shape)[0]
    area = mask.mean((1, 2))
    low, high = SIZES[shape]
    assert area.min() > low and area.max() < high, area
    assert len({m.tobytes() for m in mask}) == 20
    pieces = np.array([ndimage.label(m, np.ones((3, 3)))[1] for m in mask])
    rim = np.ones((SIDE, SIDE), bool)
    rim[1:-1, 1:-1] = False
    if shape == 'edge':
        assert (mask & rim).any((1, 2)).all()
    if shape == 'spot':
        assert set(pieces) <= {1, 2, 3} and len(set(pieces)) > 1
    if shape in ('line', 'polygon'):
        assert (pieces == 1).mean() >= 0.9  # but for what runs out of the image and in again
    if shape == 'line':  # thin: nowhere is a pixel further inside than 3
        assert max(ndimage.distance_transform_edt(m).max() for m in mask) <= 3


def test_a_class_keeps_its_look_and_varies_its_place():
    look = jnp.linspace(0.2, 0.8, shapes.LOOK)
    mask = many(lambda key: shapes.cover(key, look, ALL(SIDE), 'spot') > 0, 20)
    rim = np.ones((SIDE, SIDE), bool)
    rim[1:-1, 1:-1] = False
    whole = [m for m in mask if not m[rim].any()]
    spread = lambda masks: np.std(np.log([m.mean() for m in masks]))
    assert spread(whole) < 0.6 * spread(covered('spot')[0])
    middles = np.array([ndimage.center_of_mass(m) for m in mask])
    assert (middles.std(0) > 0.15 * SIDE).all()


def test_number_of_dots():
    """One, or three of the same area in all; the others lie within six radii of the first."""
    look = jnp.stack([jnp.full(shapes.LOOK, 0.5).at[0].set(u) for u in (0.01, 0.99)])
    draw = lambda key: jax.vmap(lambda look: shapes.cover(key, look, ALL(SIDE), 'spot') > 0.5)(look)
    one, three = np.moveaxis(many(draw, 20), 1, 0)
    pieces = lambda masks: np.array([ndimage.label(m, np.ones((3, 3)))[1] for m in masks])
    assert (pieces(one) == 1).all() and pieces(three).mean() > 1.8 and pieces(three).max() == 3
    # Geometric mean of 0.0003 and 0.01.
    assert np.median(one.mean((1, 2))) == pytest.approx(np.sqrt(3e-6), rel=0.25)


def test_none_is_too_small():
    """Of the smallest blotches, some of which would have next to no pixel."""
    look = jnp.full(shapes.LOOK, 0.01)
    mask = many(lambda key: shapes.cover(key, look, ALL(64), 'perlin') > 0, 30)
    assert mask.mean((1, 2)).min() > 4e-3


def test_border_of_what_is_allowed():
    rng = np.random.default_rng(1)
    allowed = ndimage.binary_opening(rng.uniform(size=(40, 40)) < 0.8, np.ones((3, 3)))
    want = allowed & ~ndimage.binary_erosion(allowed)
    np.testing.assert_array_equal(shapes.border(jnp.asarray(allowed)), want)
    edges = np.asarray(shapes.border(ALL(5)))
    assert edges.sum() == 16 and not edges[1:-1, 1:-1].any()


def test_pasted_textures():
    """Outside the image itself, inside one blend of both, at most beta of it the image."""
    rng = np.random.default_rng(0)
    size = 32
    x, texture = (rng.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in range(2))
    make = lambda beta, corners: many(
        lambda key: paint.pasted(key, x, texture, ALL(size), beta, corners), 12
    )
    y, mask = make(0.0, 5)
    np.testing.assert_array_equal(y, np.where(mask[..., None], texture, x))
    y, mask = make(0.5, 0)
    shares = []
    for of_one, m in zip(y, mask, strict=True):
        np.testing.assert_array_equal(of_one[~m], x[~m])
        apart = x[m].astype(float) - texture[m]
        shares.append(np.sum(apart * (of_one[m].astype(float) - texture[m])) / np.sum(apart**2))
        np.testing.assert_allclose(of_one[m], texture[m] + shares[-1] * apart, atol=0.6)
    assert min(shares) > -1e-3 and max(shares) < 0.5 and np.std(shares) > 0.08


@cache
def bands():
    """16 looks, and what bands of them cover."""

    def one(key):
        keys = jax.random.split(key)
        look = jax.random.uniform(keys[0], (shapes.LOOK,))
        return look, shapes.cover(keys[1], look, ALL(48), 'band')

    return many(one, 16)


@cache
def painted(appearance):
    """Images before and after, masks, covers and looks, all different; the last 4 are grey."""
    rng = np.random.default_rng(0)
    x, texture = image(rng), rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
    grey = lambda a: np.repeat(a[..., :1], 3, -1)
    x, texture = (np.stack([a] * 12 + [grey(a)] * 4) for a in (x, texture))
    look, covered = bands()
    painted = lambda *given: paint.paint(*given, appearance)
    y, mask = many(painted, 16, look, x, texture, covered)
    return x, y, mask, covered, look


@pytest.mark.parametrize('appearance', APPEARANCES)
def test_only_what_the_mask_shows_is_changed(appearance):
    x, y, mask, covered, _ = painted(appearance)
    assert y.dtype == np.uint8 and mask.dtype == bool
    np.testing.assert_array_equal(mask, covered > 0)
    np.testing.assert_array_equal(y[~mask], x[~mask])
    for before, after, c in zip(x, y, covered, strict=True):
        assert (before != after).any(-1)[c > 0.5].mean() > 0.8
        # The root mean square change is at least 0.04 of white, but for the rounding.
        change = (after.astype(float) - before) / 255
        assert np.sqrt(np.square(change).sum() / np.square(c).sum() / 3) > 0.036
    assert np.ptp(y[12:].astype(int), axis=-1).max() <= 1  # grey images stay so
    assert len({a.tobytes() for a in y}) == 16


def test_shade_by_hand():
    x, y, _, covered, look = painted('shade')
    darker = look[:, 9] < 0.6
    assert darker[:12].any() and not darker[:12].all()
    for before, after, c, dark in zip(x, y, covered, darker, strict=True):
        before, after = before[c == 1].astype(float), after[c == 1].astype(float)
        if not dark:  # the way to white is
            before, after = 255 - before, 255 - after
        ratio = after.sum(0) / np.maximum(before.sum(0), 1)  # multiplied by one number a channel
        assert (ratio < 0.95).all()
        np.testing.assert_allclose(after, before * ratio, atol=1)


def test_what_can_not_be_seen_is_made_stronger():
    """On even grey of 20, 0.85 of it would be 17; the least change is 0.04 of white, 10.2."""
    x = np.full((16, 16, 1), 20, np.uint8)
    look = jnp.full(shapes.LOOK, 0.5999)  # of 'blur': brightness times 0.85
    brightness = lambda x: np.unique(
        paint.paint(jax.random.key(0), look, x, x, jnp.ones((16, 16)), 'blur')[0]
    ).tolist()
    assert brightness(x) == [10]
    assert brightness(8 * x) == [136]  # enough already
    assert brightness(x // 5) == [1]  # no more than five times: 4 - 5 * 0.6


def test_smooth():
    """scipy's Gaussian where the border is far; what is even stays so up to the border."""
    x = np.random.default_rng(0).normal(size=(64, 64, 2)).astype(np.float32)
    found = np.asarray(paint.smooth(x, 2 / 64, 4 / 64))
    want = ndimage.gaussian_filter(x.astype(np.float64), (2, 4, 0), truncate=8)
    np.testing.assert_allclose(found[20:44, 28:36], want[20:44, 28:36], atol=1e-5)
    flat = paint.smooth(jnp.full((16, 16, 1), 0.3), 0.1, 0.1)
    np.testing.assert_allclose(flat, 0.3, rtol=1e-5)
    np.testing.assert_allclose(paint.smooth(x, 1e-9, 1e-9), x, atol=1e-6)


def test_moved_images_have_no_seam():
    x = jnp.arange(4.0)[:, None, None] * 10 + jnp.arange(4.0)[None, :, None]
    rows = [2, 3, 3, 2]  # mirrored at the end
    want = [[10 * r + c for c in (1, 2, 3, 3)] for r in rows]
    np.testing.assert_array_equal(paint._moved(x, jnp.array([2, 1]))[..., 0], want)
    np.testing.assert_array_equal(paint._moved(x, jnp.array([8, 0])), x)
