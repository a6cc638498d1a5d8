"""Unicode characters drawn from matplotlib's DejaVu fonts, and slight changes of them."""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from anyshot_jax.types import Array

FONTS = tuple(
    f'DejaVu{family}{style}'
    for style in ('', '-Bold', '-Oblique', '-BoldOblique', '-Italic', '-BoldItalic')
    for family in ('Sans', 'Serif', 'SansMono')
)  # upright ones first; those that don't exist are passed over
UPRIGHT = FONTS[:3]
FILL = 0.72  # the part of the picture's side that the longer side of a glyph takes
ALIKE = 0.94  # cosine similarity of two drawings from which they count as the same


class Fonts:
    """The DejaVu fonts, ready to draw; `fonts_of[character]` lists those that have it."""

    def __init__(self, size: int):
        folder = Path(matplotlib.get_data_path()) / 'fonts' / 'ttf'
        paths = {name: folder / f'{name}.ttf' for name in FONTS}
        self.size = size
        self.fonts_of: dict[str, list[str]] = {}
        self._fonts = {}
        for name, path in paths.items():
            if not path.exists():
                continue
            self._fonts[name] = ImageFont.truetype(
                path, max(16, 2 * size), layout_engine=ImageFont.Layout.BASIC
            )
            for code, glyph in FT2Font(str(path)).get_charmap().items():
                if glyph:  # 0 is the box for missing characters
                    self.fonts_of.setdefault(chr(code), []).append(name)

    def draw(self, character: str, font: str) -> Image.Image | None:
        """The ink of a character, cut to its edges, 255 on 0; None when there is none."""
        side = 8 * self.size
        canvas = Image.new('L', (side, side))
        ImageDraw.Draw(canvas).text(
            (side // 2, side // 2), character, 255, self._fonts[font], anchor='mm'
        )
        box = canvas.getbbox()
        return canvas.crop(box) if box else None


def place(ink: Image.Image, size: int, change: Sequence[float] = (0, 0, 0, 0, 0, 0)) -> Array:
    """[size, size] uint8: the ink fitted into the middle, then changed; antialiased.

    Args:
      change: rotation (radians), shear, log of width, log of height, shift right and down (as a
        part of the picture's side).
    """
    angle, shear, width, height, right, down = change
    # From a point of the (doubled) picture back to one of the ink.
    scale = max(ink.size) / (FILL * 2 * size)
    cos, sin = math.cos(angle), math.sin(angle)
    a, b = scale * math.exp(-width), scale * math.exp(-height)
    xx, xy = a * (cos + shear * sin), a * (sin - shear * cos)
    yx, yy = -b * sin, b * cos
    u, v = size * (1 + 2 * right), size * (1 + 2 * down)
    coefficients = (
        xx, xy, ink.width / 2 - xx * u - xy * v,
        yx, yy, ink.height / 2 - yx * u - yy * v,
    )  # fmt: skip
    doubled = ink.transform(
        (2 * size, 2 * size), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
    )
    return np.asarray(doubled.reduce(2))


def changes(rng: np.random.Generator, num: int) -> Array:
    """[num, 6] random arguments for `place`."""
    return rng.normal(size=(num, 6)).clip(-2, 2) * (0.09, 0.09, 0.07, 0.07, 0.025, 0.025)


def distinct(characters: Sequence[str], fonts: Fonts) -> list[str]:
    """The characters without those that look like an earlier one, or like nothing.

    Two look alike when their unchanged drawings nearly agree in any upright font that has both.
    """
    size = 28
    drawn = np.zeros((len(UPRIGHT), len(characters), size * size), np.float32)
    for f, font in enumerate(UPRIGHT):
        for i, character in enumerate(characters):
            if font in fonts.fonts_of.get(character, ()) and (ink := fonts.draw(character, font)):
                drawn[f, i] = place(ink, size).reshape(-1)
    norm = np.linalg.norm(drawn, axis=-1, keepdims=True)
    drawn /= np.maximum(norm, 1)
    keep: list[str] = []
    kept: list[int] = []
    alike = np.zeros((len(characters), len(characters)), bool)
    for vectors in drawn:
        alike |= vectors @ vectors.T > ALIKE
    inked = (norm[..., 0] > 0).any(0)
    for i, character in enumerate(characters):
        if inked[i] and not alike[i, kept].any():
            keep.append(character)
            kept.append(i)
    return keep
