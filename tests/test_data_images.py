"""Images of every kind, made here with known pixels, against what read_image makes of them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from anyshot_jax.data.readers.images import NotAnImage, open_image, read_image
from anyshot_jax.types import InputError

LIMIT = 1_000_000


def encoded(image, file_format='PNG', **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def plain(mode, colour, size=(4, 4)):
    return Image.new(mode, size, colour)


@pytest.mark.parametrize(
    ('image', 'file_format', 'want'),
    [
        (plain('L', 100), 'PNG', (100, 100, 100)),
        (plain('1', 1), 'PNG', (255, 255, 255)),
        (plain('RGB', (10, 20, 30)), 'BMP', (10, 20, 30)),
        (plain('RGB', (10, 20, 30)), 'TIFF', (10, 20, 30)),
        (plain('RGB', (10, 20, 30)).quantize(4), 'GIF', (10, 20, 30)),
        (plain('RGBA', (10, 20, 30, 0)), 'PNG', (255, 255, 255)),
        (plain('RGBA', (0, 0, 0, 51)), 'PNG', (204, 204, 204)),  # a fifth of black over white
        (plain('LA', (0, 51)), 'PNG', (204, 204, 204)),
        (plain('I;16', 257 * 77), 'PNG', (77, 77, 77)),
        (plain('I;16', 65535), 'TIFF', (255, 255, 255)),
        (plain('CMYK', (0, 255, 255, 0)), 'TIFF', (255, 0, 0)),
        (plain('YCbCr', (81, 90, 240)), 'TIFF', (255, 0, 0)),  # ITU-R BT.601 red, near enough
    ],
)
def test_mode_becomes_eight_bit_colour(image, file_format, want):
    x = read_image(encoded(image, file_format), 3, 3, LIMIT)
    assert x.shape == (3, 3, 3) and x.dtype == np.uint8
    if image.mode == 'YCbCr':
        r, g, b = (int(v) for v in x[0, 0])
        assert r > 230 and g < 60 and b < 60
    else:
        np.testing.assert_allclose(x.reshape(-1, 3), np.tile(want, (9, 1)), atol=1)


def test_transparent_colour_of_grey_and_palette_images_is_white():
    grey = encoded(plain('L', 7), transparency=7)
    assert (read_image(grey, 2, 1, LIMIT) == 255).all()
    palette = encoded(plain('RGB', (9, 9, 9)).quantize(2), transparency=0)
    assert (read_image(palette, 2, 3, LIMIT) == 255).all()


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation(orientation):
    upright = np.zeros((8, 12), np.uint8)
    upright[:4, :6] = 200  # the upper left quarter
    undo = {  # how a camera that is held so stores the upright image
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: np.transpose,
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).T,
        8: lambda a: np.rot90(a, -1),
    }
    stored = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    got = np.asarray(open_image(encoded(stored, exif=exif), LIMIT))
    np.testing.assert_array_equal(got, upright)


def test_crop_is_centred_and_resize_averages():
    x = np.zeros((40, 100), np.uint8)
    x[:, 30:70] = np.tile([[0, 255]], (40, 20))  # stripes one pixel wide inside the centre square
    x[:, :30] = 255  # cropped away
    got = read_image(encoded(Image.fromarray(x)), 10, 1, LIMIT)[..., 0]
    assert got.shape == (10, 10)
    assert (np.abs(got[:, 1:-1].astype(int) - 127.5) < 12).all()  # grey, not a moire of 0 and 255
    square = Image.fromarray(x[:, 30:70])
    want = np.asarray(square.resize((10, 10), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(got[:, 2:-2], want[:, 2:-2])  # at the edges the rest shines in


def test_extreme_shape_and_one_pixel():
    assert read_image(encoded(plain('L', 5, (1000, 1))), 8, 1, LIMIT).shape == (8, 8, 1)
    assert (read_image(encoded(plain('L', 5, (1, 1))), 8, 3, LIMIT) == 5).all()


def test_format_is_told_from_the_content(tmp_path):
    path = tmp_path / 'really_a_png.jpg'
    path.write_bytes(encoded(plain('L', 3)))
    assert (read_image(path, 2, 1, LIMIT) == 3).all()


def chunk(kind, content):
    checksum = zlib.crc32(kind + content)
    return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', checksum)


def test_bomb_is_refused_before_decoding():
    header = struct.pack('>IIBBBBB', 100_000, 100_000, 8, 0, 0, 0, 0)
    bomb = b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(b''))
    with pytest.raises(InputError, match=r'x.png is too large'):
        read_image(bomb, 8, 3, 50_000_000, 'x.png')
    with pytest.raises(InputError, match=r'x.png has 20 x 10 pixels.*max_pixels = 199'):
        read_image(encoded(plain('L', 0, (20, 10))), 8, 3, 199, 'x.png')


@pytest.mark.parametrize('file_format', ['PNG', 'JPEG', 'GIF', 'BMP', 'TIFF', 'WEBP'])
def test_truncated_is_named(file_format):
    noise = np.random.default_rng(0).integers(0, 256, (50, 50, 3)).astype(np.uint8)
    whole = encoded(Image.fromarray(noise), file_format)
    with pytest.raises(InputError, match=r'cut.bin'):
        read_image(whole[: len(whole) // 2], 8, 3, LIMIT, 'cut.bin')


def test_flipped_bytes_never_raise_anything_else():
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype(np.uint8)
    rng = np.random.default_rng(1)
    for file_format in ('PNG', 'JPEG', 'TIFF', 'GIF', 'WEBP'):
        whole = bytearray(encoded(Image.fromarray(noise), file_format))
        for _ in range(40):
            broken = whole.copy()
            for at in rng.integers(0, len(whole), 4):
                broken[at] = rng.integers(256)
            try:
                x = read_image(bytes(broken), 8, 3, LIMIT, 'x')
            except InputError as e:
                assert 'x' in str(e)
            else:
                assert x.shape == (8, 8, 3)


def test_not_a_image_empty_float_and_missing(tmp_path):
    for content in (b'', b'hello', b'<svg></svg>', b'%!PS-Adobe-3.0 EPSF-3.0\n'):
        with pytest.raises(NotAnImage, match=r'notes is not an image'):
            read_image(content, 8, 3, LIMIT, 'notes')
    with pytest.raises(InputError, match=r'floating-point'):
        read_image(encoded(plain('F', 0.5), 'TIFF'), 8, 3, LIMIT)
    with pytest.raises(InputError, match=r'beyond 0..65535'):
        read_image(encoded(plain('I', 70_000), 'TIFF'), 8, 3, LIMIT)
    with pytest.raises(InputError, match=r'gone.png is damaged or unreadable: FileNotFoundError'):
        read_image(tmp_path / 'gone.png', 8, 3, LIMIT)
