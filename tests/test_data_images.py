"""Images of every kind, made here with known pixels, against what read_image makes of them."""

import base64
import io
import struct
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from anyshot_jax.data.readers.images import (
    FEW_LEVELS,
    ONE_COLOUR,
    PAGES,
    NotAnImage,
    NotRead,
    open_image,
    read_image,
)
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
    with pytest.raises(NotRead, match=r'x.png has 100000 x 100000 .* max_pixels=10000000000'):
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
    with pytest.raises(InputError, match=r'x has pixels that are not finite'):
        read_image(encoded(plain('F', float('nan')), 'TIFF'), 8, 3, LIMIT, 'x')
    with pytest.raises(InputError, match=r'gone.png is damaged or unreadable: FileNotFoundError'):
        read_image(tmp_path / 'gone.png', 8, 3, LIMIT)


@pytest.mark.parametrize(
    ('name', 'content', 'says'),
    [
        ('a.svg', b'<svg></svg>', 'a drawing without pixels'),
        ('scan', bytes(128) + b'DICM', 'DICOM'),
        ('a.dcm', b'', 'DICOM'),
        ('IMG.CR3', b'\0\0\0\x18ftypcrx ', "camera's raw file"),
        ('a.psd', b'8BPS', 'export it as PNG'),
        ('b.tga', b'\0\0\2', 'convert it to PNG'),
    ],
)
def test_known_kinds_that_are_not_read_say_what_to_do(name, content, says):
    with pytest.raises(NotRead, match=f'{name} is .*{says}'):
        read_image(content, 8, 3, LIMIT, name)


def steps(low, high, dtype=np.uint16, size=(32, 32)):
    """Values that rise evenly from low to high over the columns."""
    return np.broadcast_to(np.linspace(low, high, size[1]), size).astype(dtype)


@pytest.mark.parametrize(
    ('values', 'want'),
    [
        (steps(0, 65535), np.linspace(0, 255, 32)),  # the range of 16 bits is used
        (steps(0, 20000), np.linspace(0, 255 * 20000 / 65535, 32)),  # a quarter of it is, dark
        (steps(7200, 7300), np.linspace(0, 255, 32)),  # a thermal camera's counts
        (steps(40000, 40100), np.linspace(0, 255, 32)),
        (steps(0, 4095), np.linspace(0, 255, 32)),  # 12 bits
        (steps(0, 1, np.float32), np.linspace(0, 255, 32)),
        (steps(0.2, 0.4, np.float32), np.linspace(51, 102, 32)),
        (steps(0, 200, np.float32), np.linspace(0, 200, 32)),
        (steps(-1000, 3000, np.int32), np.linspace(0, 255, 32)),  # Hounsfield units
        (steps(-3, 5, np.float32), np.linspace(0, 255, 32)),
    ],
)
def test_sixteen_bits_and_floats_keep_what_they_span(values, want):
    odd = []
    x = open_image(encoded(Image.fromarray(values), 'TIFF'), LIMIT, odd=odd)
    np.testing.assert_allclose(np.asarray(x)[0], want, atol=4)  # whole counts are coarse
    assert not odd
    fixed = open_image(encoded(Image.fromarray(values), 'TIFF'), LIMIT, span=(-1000, 5000))
    share = (values[0].astype(float) + 1000) / 6000
    np.testing.assert_allclose(np.asarray(fixed)[0], np.clip(share, 0, 1) * 255, atol=1)


def test_one_colour_few_levels_and_pages_are_noted():
    def odd_of(content, **how):
        odd = []
        open_image(content, LIMIT, odd=odd, **how)
        return odd

    assert odd_of(encoded(plain('RGB', (9, 8, 7)))) == [ONE_COLOUR]
    assert odd_of(encoded(Image.fromarray(steps(0, 100)), 'TIFF'), span=(0, 65535)) == [ONE_COLOUR]
    ids = np.repeat(np.arange(4, dtype=np.uint16), 8)[None].repeat(8, 0)
    assert odd_of(encoded(Image.fromarray(ids))) == [FEW_LEVELS]
    two = Image.fromarray(steps(0, 255, np.uint8))
    for kind in ('TIFF', 'GIF', 'WEBP', 'PNG'):
        many = encoded(two, kind, save_all=True, append_images=[plain('L', 3, (32, 32))])
        assert odd_of(many) == [PAGES], kind
        assert np.asarray(open_image(many, LIMIT).convert('L')).std() > 50  # the first
    assert odd_of(encoded(two, 'JPEG')) == []


def test_what_is_drawn_on_transparency_can_be_seen():
    shape = np.zeros((8, 8), np.uint8)
    shape[2:6, 2:6] = 255

    def drawn(colour):
        rgba = np.dstack([np.broadcast_to(colour, (8, 8, 3)), shape]).astype(np.uint8)
        return read_image(encoded(Image.fromarray(rgba)), 8, 3, LIMIT)

    # White on nothing and black on nothing are the same drawing; red keeps its colour on white.
    np.testing.assert_array_equal(drawn((255, 255, 255))[..., 0], 255 - shape)
    np.testing.assert_array_equal(drawn((0, 0, 0))[..., 0], 255 - shape)
    assert drawn((200, 0, 0))[3, 3].tolist() == [200, 0, 0] and (drawn((200, 0, 0))[0] == 255).all()
    # Shades near to white lie on black.
    pale = np.linspace(235, 255, 8)[None, :, None]
    assert (drawn(pale)[0] == 0).all() and drawn(pale)[3, 3, 0] > 230


def test_colour_profile_is_applied():
    """Display P3's reddest red is beyond sRGB's, its half red is a stronger one in sRGB."""
    from PIL import ImageCms

    image = plain('RGB', (200, 100, 100))
    same = encoded(
        image, icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
    )
    assert read_image(same, 1, 3, LIMIT)[0, 0].tolist() == [200, 100, 100]
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile('XYZ')).tobytes()
    for unusable in (lab, b'no profile'):  # of another space, or none: as if there were none
        content = encoded(image, icc_profile=unusable)
        assert read_image(content, 1, 3, LIMIT).shape == (1, 1, 3)
    swapped = encoded(image, icc_profile=channels_swapped())
    assert read_image(swapped, 1, 3, LIMIT)[0, 0].tolist() == pytest.approx([100, 200, 100], abs=2)


def channels_swapped():
    """The profile sRGB with the tags of red and green exchanged."""
    from PIL import ImageCms

    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes())
    for i in range(struct.unpack('>I', profile[128:132])[0]):
        at = 132 + 12 * i
        name = bytes(profile[at : at + 4])
        profile[at : at + 4] = {b'rXYZ': b'gXYZ', b'gXYZ': b'rXYZ'}.get(name, name)
    return bytes(profile).replace(b's\0R\0G\0B', b's\0X\0Y\0Z').replace(b'sRGB', b'swap')


# 32 x 16 pixels of (200, 100, 50), as pillow-heif 1.8 wrote them with quality=60.
HEIC = base64.b64decode(
    'AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAXxtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAA'
    'AAAAAAAAACJpbG9jAAAAAERAAAEAAQAAAAABoAABAAAAAAAAADQAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABo'
    'dmMxAAAAAA5waXRtAAAAAAABAAAA/GlwcnAAAADcaXBjbwAAAHVodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEA'
    'GEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQApQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbqrprm4CGgwIAAAAyAAAAD'
    'AIRiAAEABkQBwXPBiQAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAAAChjbGFwAAAAIAAAAAEA'
    'AAAQAAAAAf///+AAAAAC////0AAAAAIAAAAQcGl4aQAAAAADCAgIAAAAGGlwbWEAAAAAAAAAAQABBYECAwWEAAAAPG1k'
    'YXQAAAAwKAGvCchZmNA5I1d//haf/9pSaH6RhbVn8Tr+gOxlOspDn0Sxk847vgyAh4O4Xstw'
)


def test_heic_is_read_where_the_extra_is():
    pytest.importorskip('pi_heif', reason='needs the extra heic')
    x = read_image(HEIC, 4, 3, LIMIT)
    assert x[0, 0].tolist() == pytest.approx([200, 100, 50], abs=6)


def test_heic_without_the_extra_says_how_to_have_it(monkeypatch):
    from anyshot_jax.data.readers import images

    monkeypatch.setattr(images, 'FORMATS', ('PNG', 'JPEG'))
    with pytest.raises(NotRead, match=r"IMG_1 is a HEIC image: pip install 'anyshot-jax\[heic\]'"):
        read_image(HEIC, 4, 3, LIMIT, 'IMG_1')


def test_decoding_shares_a_bounded_memory(monkeypatch):
    """Whatever the number of threads, images that decode at a time are within the limit."""
    from concurrent.futures import ThreadPoolExecutor

    from anyshot_jax.data.readers import images, pixels

    monkeypatch.setattr(images, 'MEMORY', 2 * 100 * images.PER_PIXEL)
    monkeypatch.setattr(images, '_free', [images.MEMORY])
    lock, now, most = threading.Lock(), [0], [0]

    def slow(image, span):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        return whole(image, span)

    whole = pixels.eight_bits
    monkeypatch.setattr(pixels, 'eight_bits', slow)
    content = encoded(plain('L', 3, (10, 10)))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: open_image(content, LIMIT), range(8)))
        list(pool.map(lambda _: open_image(encoded(plain('L', 3, (100, 10))), LIMIT), range(2)))
    assert most[0] == 2
