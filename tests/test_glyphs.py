"""The embedded data set."""

import unicodedata

import numpy as np
import pytest
from matplotlib.ft2font import FT2Font
from ml_collections import ConfigDict
from PIL import Image

from anyshot_jax.data import glyphs
from anyshot_jax.data.readers.glyph_shapes import Fonts, changes, distinct, place
from anyshot_jax.types import InputError

pytestmark = pytest.mark.slow


def config_of(**fields):
    config = ConfigDict({'name': 'glyphs', 'dir': '', **glyphs.DEFAULTS})
    config.update(fields)
    return config


@pytest.fixture(scope='module')
def data():
    return glyphs.load(config_of()).roles


@pytest.fixture(scope='module')
def fonts():
    return Fonts(28)


def test_scripts_and_sizes(data):
    scripts = {
        role: {glyphs.script_of(unicodedata.lookup(n)) for n in s.names} for role, s in data.items()
    }
    assert scripts['val'] == {'ARABIC', 'LAO', 'NKO'}
    assert scripts['test'] == {'ARMENIAN', 'GEORGIAN', 'HEBREW', 'TIFINAGH'}
    assert scripts['train'] == {'LATIN', 'GREEK', 'CYRILLIC', 'CANADIAN', 'SYMBOL'}
    num = {role: len(s.names) for role, s in data.items()}
    assert num['train'] > 1500 and num['val'] > 100 and num['test'] > 150
    for s in data.values():
        assert (s.count == glyphs.PER_CLASS).all()
        assert s.x.shape[1:] == (28, 28, 1) and s.x.dtype == np.uint8 and s.turns == 1
        assert len(set(s.names)) == len(s.names)
        assert (s.x.reshape(len(s.x), -1).max(1) > 100).all()  # no blank image
    corner = data['train'].x[:, :2, :2]
    assert corner.mean() < 2 and 20 < data['train'].x.mean() < 100  # bright ink, black around


def test_images_of_a_class_differ(data):
    s = data['test']
    for c in range(0, len(s.names), 20):
        x = s.x[s.offset[c] : s.offset[c] + s.count[c]].reshape(s.count[c], -1)
        assert len(np.unique(x, axis=0)) == s.count[c]


def test_second_load_comes_from_the_cache_and_is_equal(data, monkeypatch):
    monkeypatch.setattr(glyphs, '_draw', None)
    again = glyphs.load(config_of(turns=4, turns_eval=4)).roles
    for role, s in data.items():
        np.testing.assert_array_equal(s.x, again[role].x)
        np.testing.assert_array_equal(s.extras['attribute'], again[role].extras['attribute'])
        assert s.names == again[role].names and again[role].turns == 4


def test_drawing_is_deterministic(data, fonts):
    for name in ('LATIN SMALL LETTER G', 'CYRILLIC CAPITAL LETTER ZHE', 'CLOUD'):
        character = unicodedata.lookup(name)
        inks = [fonts.draw(character, f) for f in fonts.fonts_of[character]]
        change = changes(np.random.default_rng(ord(character)), glyphs.PER_CLASS)
        s = data['train']
        row = s.offset[s.names.index(name)]
        for j in (0, 13):
            want = place(inks[j % len(inks)], 28, change[j])
            np.testing.assert_array_equal(s.x[row + j, ..., 0], want)


def test_every_character_is_in_every_font_that_draws_it(fonts):
    from matplotlib import get_data_path

    for font in ('DejaVuSerif', 'DejaVuSansMono-Bold'):
        charmap = FT2Font(f'{get_data_path()}/fonts/ttf/{font}.ttf').get_charmap()
        for character, having in fonts.fonts_of.items():
            assert (font in having) == bool(charmap.get(ord(character)))


def test_place_fits_centres_and_keeps_the_shape():
    for width, height in ((30, 60), (60, 30), (7, 7), (200, 5)):
        x = place(Image.new('L', (width, height), 255), 40)
        ink = np.argwhere(x > 127)
        top, left = ink.min(0)
        bottom, right = ink.max(0)
        scale = 0.72 * 40 / max(width, height)
        assert abs(right + 1 - left - width * scale) <= 1.5
        assert abs(bottom + 1 - top - height * scale) <= 1.5
        assert abs(left - (39 - right)) <= 1 and abs(top - (39 - bottom)) <= 1


@pytest.mark.parametrize(
    ('change', 'spot'),
    [
        ((0, 0, 0, 0, 0.1, 0), (20, 28)),  # 10 % of 80 to the right of (20, 20) quarter
        ((0, 0, 0, 0, 0, 0.1), (28, 20)),
        ((np.pi / 2, 0, 0, 0, 0, 0), (20, 60)),
        ((np.pi, 0, 0, 0, 0, 0), (60, 60)),
        ((0, 0.25, 0, 0, 0, 0), (20, 15)),  # 20 rows above the middle: 5 columns left
        ((0, 0, np.log(0.5), 0, 0, 0), (20, 30)),
        ((0, 0, 0, np.log(0.5), 0, 0), (30, 20)),
    ],
)
def test_place_applies_the_change(change, spot):
    # A square ink that is dark but for a spot; where the spot goes tells the map.
    ink = np.zeros((144, 144), np.uint8)
    at = round(72 + (20 - 40) / (0.72 * 80) * 144)  # drawn at pixel 20 of 80 without a change
    ink[at - 5 : at + 5, at - 5 : at + 5] = 255
    x = place(Image.fromarray(ink), 80, change).astype(float)
    rows, columns = np.mgrid[:80, :80] + 0.5
    centre = (x * rows).sum() / x.sum(), (x * columns).sum() / x.sum()
    np.testing.assert_allclose(centre, spot, atol=0.5)


def test_characters_that_look_alike_are_dropped(fonts, data):
    found = distinct(['A', '\u0391', '\u0410', 'X', 'x', '\u00a0', 'Ж', 'Ö', '\ue000'], fonts)
    assert found == ['A', 'X', 'Ж', 'Ö']
    names = {n for s in data.values() for n in s.names}
    assert 'LATIN CAPITAL LETTER A' in names and 'GREEK SMALL LETTER OMEGA' in names
    assert not names & {'GREEK CAPITAL LETTER ALPHA', 'CYRILLIC CAPITAL LETTER A'}


def test_attributes(data):
    columns = glyphs.attribute_columns(config_of())
    assert len(set(columns)) == len(columns)

    def of(name):
        for s in data.values():
            if name in s.names:
                row = s.extras['attribute'][s.names.index(name)]
                assert row.dtype == np.float32 and set(row) <= {0, 1}
                return {columns[i] for i in np.flatnonzero(row)}
        raise KeyError(name)

    assert of('LATIN SMALL LETTER E WITH CIRCUMFLEX AND ACUTE') == {
        'script:LATIN',
        'case:SMALL',
        'base:E',
        'spelt:E',
        'mark:CIRCUMFLEX',
        'mark:ACUTE',
    }
    assert {'script:ARMENIAN', 'case:CAPITAL', 'spelt:B'} <= of('ARMENIAN CAPITAL LETTER BEN')
    assert of('RIGHTWARDS ARROW') >= {'script:SYMBOL', 'base:RIGHTWARDS', 'base:ARROW'}
    assert not {a for a in of('HEBREW LETTER ALEF') if a.startswith('case:')}
    for s in data.values():
        assert s.extras['attribute'].shape == (len(s.names), len(columns))


def test_a_nearest_class_mean_beats_chance_by_far(data):
    s = data['test']
    x = s.x.reshape(len(s.x), -1).astype(np.float32)
    first = np.arange(len(x)) % glyphs.PER_CLASS < 5
    mean = np.stack([x[first & (s.label == c)].mean(0) for c in range(len(s.names))])
    query = x[~first][::7]
    dist = (query**2).sum(1)[:, None] - 2 * query @ mean.T + (mean**2).sum(1)
    right = (dist.argmin(1) == s.label[~first][::7]).mean()
    assert right > 0.4  # chance is below 0.005


def test_bad_size():
    for size in (7, 257):
        with pytest.raises(InputError, match=f'size = {size}'):
            glyphs.load(config_of(size=size))
