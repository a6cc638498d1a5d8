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
FILL = 0.72  # the part of the image's side that the longer side of a glyph takes
ALIKE = 0.94  # cosine similarity of two drawings from which they count as the same
NEAR = 0.35  # difference of log(width / height) that the random changes can hide
SIDE = 28  # at which drawings are compared


class Fonts:
    """The DejaVu fonts, ready to draw; `fonts_of[character]` lists those that have it."""

    def __init__(self, size: int):
        folder = Path(matplotlib.get_data_path()) / 'fonts' / 'ttf'
        paths = {name: folder / f'{name}.ttf' for name in FONTS}
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
        left, top, right, bottom = (int(v) for v in self._fonts[font].getbbox(character))
        canvas = Image.new('L', (max(1, right - left + 2), max(1, bottom - top + 2)))
        ImageDraw.Draw(canvas).text((1 - left, 1 - top), character, 255, self._fonts[font])
        box = canvas.getbbox()
        return canvas.crop(box) if box else None


def place(ink: Image.Image, size: int, change: Sequence[float] = (0, 0, 0, 0, 0, 0)) -> Array:
    """[size, size] uint8: the ink fitted into the middle, then changed; antialiased.

    Args:
      change: rotation (radians), shear, log of width, log of height, shift right and down (as a
        part of the image's side).
    """
    angle, shear, width, height, right, down = change
    # From a point of the (doubled) image back to one of the ink.
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

    Two look alike when in any upright font that has both their unchanged drawings nearly agree, as
    `place` fits them or, if their proportions are near, stretched to the same square.
    """
    alike = np.zeros((len(characters), len(characters)), bool)
    inked = np.zeros(len(characters), bool)
    for font in UPRIGHT:
        fitted, stretched = np.zeros((2, len(characters), SIDE * SIDE), np.float32)
        proportion = np.zeros(len(characters))
        for i, character in enumerate(characters):
            if font in fonts.fonts_of.get(character, ()) and (ink := fonts.draw(character, font)):
                fitted[i] = place(ink, SIDE).reshape(-1)
                square = ink.resize((SIDE, SIDE), Image.Resampling.BOX)
                stretched[i] = np.asarray(square).reshape(-1)
                proportion[i] = math.log(ink.width / ink.height)
                inked[i] = True
        near = np.abs(proportion[:, None] - proportion) < NEAR
        alike |= (_cosine(fitted) > ALIKE) | (near & (_cosine(stretched) > ALIKE))
    keep: list[str] = []
    kept: list[int] = []
    for i, character in enumerate(characters):
        if inked[i] and not alike[i, kept].any():
            keep.append(character)
            kept.append(i)
    return keep


def _cosine(x: Array) -> Array:
    x = x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1)
    return x @ x.T
