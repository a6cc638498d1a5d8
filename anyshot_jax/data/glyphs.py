"""The embedded data set: Unicode characters drawn from matplotlib's DejaVu fonts.

A class is a character, with 20 images: up to 12 fonts (sans, serif, mono; bold, oblique, italic),
each time slightly turned, sheared, stretched and shifted. Ink is 255 on 0, fitted to the image,
so size and position say nothing about the class. Characters that look like one with a smaller code
(Greek Alpha and Latin A, x and X, faint differences of accents) are left out, as are blank ones.

Whole scripts are held out: train has Latin, Greek, Cyrillic, Canadian syllabics and symbols; val
has Arabic, Lao and N'Ko; test has Armenian, Georgian, Hebrew and Tifinagh.

Classes bear their Unicode name; extras['attribute'] [C, A] float32 says with 0 and 1 what it says:
script, case, words of the base letter, letters they are spelt with, marks. Symmetric characters
make some rotated classes equal, so turns = 1 here.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
from ml_collections import ConfigDict
from PIL import features

from anyshot_jax.data.splits import split_items
from anyshot_jax.runtime.bars import bar
from anyshot_jax.storage.cache import cached
from anyshot_jax.types import Array, Data, InputError

DEFAULTS = {
    'size': 28,  # height and width of the images
    'turns': 1,
    'turns_eval': 1,
}

VERSION = 3  # of the drawing below: count up when the images change
PER_CLASS = 20
ROLE = {
    'LATIN': 'train',
    'GREEK': 'train',
    'CYRILLIC': 'train',
    'CANADIAN': 'train',
    'SYMBOL': 'train',
    'ARABIC': 'val',
    'LAO': 'val',
    'NKO': 'val',
    'ARMENIAN': 'test',
    'GEORGIAN': 'test',
    'HEBREW': 'test',
    'TIFINAGH': 'test',
}  # by script, which is the first word of the Unicode name
SYMBOLS = ((0x2190, 0x22FF), (0x25A0, 0x27BF))  # arrows, operators, geometric, images, dingbats
FIRST_LIGATURE = 0xA800  # beyond are forms of letters that are there already
FILLERS = frozenset(('LETTER', 'SYLLABICS', 'SIGN', 'SYMBOL', 'CAPITAL', 'SMALL'))


def load(config: ConfigDict) -> Data:
    """Data of uint8 [N, size, size, 1]; drawn once per size and kept in the cache directory."""
    z = _drawn(config.size)
    names = [str(n) for n in z['names']]
    label = np.repeat(np.arange(len(names)), PER_CLASS)
    roles = [ROLE[script_of(str(c))] for c in z['characters']]
    turns = (config.turns, config.turns_eval)
    return split_items(
        z['x'], label, names, roles, extras={'attribute': z['attribute']}, turns=turns
    )


def attribute_columns(config: ConfigDict) -> tuple[str, ...]:
    """Meanings of the A columns of extras['attribute'], such as 'case:SMALL' or 'mark:ACUTE'."""
    return tuple(str(c) for c in _drawn(config.size)['columns'])


def _drawn(size: int) -> dict[str, Array]:
    if not 8 <= size <= 256:
        raise InputError(f'config.data.size = {size}: glyphs are drawn at 8 to 256 pixels')
    libraries = [version('matplotlib'), version('pillow'), features.version('freetype2')]
    return cached('glyphs', [VERSION, PER_CLASS, size, libraries], lambda: _draw(size))


def _draw(size: int) -> dict[str, Array]:
    # Imported here: with a cache there is nothing to draw.
    from anyshot_jax.data.readers.glyph_shapes import SIDE, Fonts, changes, distinct, place

    fonts = Fonts(size)
    # Compared at one size, so that the classes don't depend on `size`.
    characters = distinct([c for c in sorted(fonts.fonts_of) if script_of(c)], Fonts(SIDE))
    x = np.empty((len(characters), PER_CLASS, size, size, 1), np.uint8)
    for i, character in enumerate(bar(characters, 'draw glyphs')):
        inks = [ink for f in fonts.fonts_of[character] if (ink := fonts.draw(character, f))]
        rng = np.random.default_rng(ord(character))
        for j, change in enumerate(changes(rng, PER_CLASS)):
            x[i, j, ..., 0] = place(inks[j % len(inks)], size, change)
    names = [unicodedata.name(c) for c in characters]
    columns, matrix = attributes(characters)
    return {
        'x': x.reshape(-1, size, size, 1),
        'names': np.array(names),
        'characters': np.array(characters),
        'columns': np.array(columns),
        'attribute': matrix,
    }


def script_of(character: str) -> str:
    """The script in `ROLE` that a character belongs to; '' when it is not used here."""
    code, category = ord(character), unicodedata.category(character)
    script = unicodedata.name(character, '').split(' ')[0]
    if category in ('Sm', 'So') and any(low <= code <= high for low, high in SYMBOLS):
        return 'SYMBOL'
    letter = category in ('Lu', 'Ll', 'Lt', 'Lo') and code < FIRST_LIGATURE
    return script if letter and script in ROLE else ''


def attributes(characters: Sequence[str]) -> tuple[list[str], Array]:
    """Column names and [C, A] float32 0/1, taken from the Unicode names.

    'ά' GREEK SMALL LETTER ALPHA WITH TONOS has script:GREEK, case:SMALL, base:ALPHA, mark:TONOS
    and spelt:A, :H, :L, :P. Words of the base and marks that only one character has are left out.
    """
    found = [_attributes(c) for c in characters]
    times = Counter(a for per_character in found for a in per_character)
    columns = sorted(a for a, n in times.items() if n > 1 or not a.startswith(('base:', 'mark:')))
    index = {column: i for i, column in enumerate(columns)}
    matrix = np.zeros((len(characters), len(columns)), np.float32)
    for c, per_character in enumerate(found):
        matrix[c, [index[a] for a in per_character if a in index]] = 1
    return columns, matrix


def _attributes(character: str) -> set[str]:
    script, (base, _, marks) = script_of(character), unicodedata.name(character).partition(' WITH ')
    words = base.split(' ')
    words = words if script == 'SYMBOL' else words[1:]
    case = {'Lu': 'CAPITAL', 'Ll': 'SMALL', 'Lt': 'TITLE'}.get(unicodedata.category(character))
    base_words = [w for w in words if w not in FILLERS]
    spelt = {letter for w in base_words for letter in w if 'A' <= letter <= 'Z'}
    return {
        f'script:{script}',
        *([f'case:{case}'] if case else []),
        *(f'base:{w}' for w in base_words),
        *(f'spelt:{letter}' for letter in spelt),
        *(f'mark:{m}' for m in marks.split(' AND ') if m),
    }
