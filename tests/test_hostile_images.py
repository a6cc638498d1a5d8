"""Small image files whose headers Pillow would read for minutes: refused by name, and soon."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from anyshot_jax.data.readers import bombs
from anyshot_jax.data.readers.images import open_image
from anyshot_jax.types import InputError


def saved(kind, image=None, **how):
    data = io.BytesIO()
    (image or Image.new('P' if kind == 'GIF' else 'RGB', (8, 8))).save(data, kind, **how)
    return data.getvalue()


def chunk(kind, data=b''):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def png(before=b'', after=b''):
    head = chunk(b'IHDR', struct.pack('>IIBBBBB', 8, 8, 8, 2, 0, 0, 0))
    pixels = chunk(b'IDAT', zlib.compress(b'\0' * 200))
    return b'\x89PNG\r\n\x1a\n' + head + before + pixels + after + chunk(b'IEND')


def tiff(strips, order='<', big=False):
    """A grey image of one column, each pixel in a strip of its own, and its directory behind."""
    word, kind = (order + 'Q', 16) if big else (order + 'I', 4)
    size, first = struct.calcsize(word), 16 if big else 8
    offsets, ones = np.arange(first, first + strips, dtype=word), np.ones(strips, word)
    at = first + strips
    tags = {256: 1, 257: strips, 258: 8, 259: 1, 262: 1, 278: 1}
    entries = [(tag, 1, value) for tag, value in tags.items()]
    entries += [(273, strips, at), (279, strips, at + size * strips)]
    directory = struct.pack(order + ('Q' if big else 'H'), len(entries))
    for tag, number, value in sorted(entries):
        directory += struct.pack(order + 'HH', tag, kind) + struct.pack(word, number)
        directory += struct.pack(word, value)
    head = (b'II' if order == '<' else b'MM') + struct.pack(order + 'H', 43 if big else 42)
    head += struct.pack(order + 'HH', 8, 0) if big else b''
    head += struct.pack(word, at + 2 * size * strips)
    pixels = (np.arange(strips) % 256).astype(np.uint8).tobytes()
    return head + pixels + offsets.tobytes() + ones.tobytes() + directory + b'\0' * size


GIF, JPEG, JP2 = saved('GIF'), saved('JPEG'), saved('JPEG2000')
FRAME = GIF.index(b'\x2c')
PIECES, STRIPS = 'is made of very many small pieces', 'is a TIFF of more than 200,000 strips'
BOMBS = {
    'comment.ppm': (b'P6\n#' + b'x' * 50_000 + b'\n8 8\n255\n' + b'\0' * 192, PIECES),
    'blanks.ppm': (b'P6\n' + b' ' * 50_000 + b'8 8\n255\n' + b'\0' * 192, PIECES),
    'comments.ppm': (b'P3\n8 8\n255\n' + b'#\n' * 2000 + b'0 ' * 192, 'more than 1,000 comments'),
    'long.gif': (GIF[:FRAME] + (b'\x21\xfe\xff' + b'a' * 255 + b'\0') * 9000 + GIF[FRAME:], PIECES),
    'short.gif': (GIF[:FRAME] + b'\x21\xfe\x01a\0' * 20_000 + GIF[FRAME:], PIECES),
    'after.gif': (GIF[:-1] + b'\x21\xfe\x01a\0' * 20_000 + GIF[FRAME:], PIECES),
    'comments.jpg': (JPEG[:2] + b'\xff\xfe\x00\x02' * 50_000 + JPEG[2:], PIECES),
    'markers.jpg': (JPEG[:-2] + b'\xff\xfe\x00\x02' * 200_000 + JPEG[-2:], 'very many scans'),
    'before.png': (png(before=chunk(b'abCD') * 50_000), PIECES),
    'empty.png': (png(before=chunk(b'IDAT') * 20_000), PIECES),
    'after.png': (png(after=chunk(b'tEXt', b'a\0b') * 20_000), PIECES),
    'boxes.jp2': (JP2[:12] + (struct.pack('>I', 8) + b'free') * 50_000 + JP2[12:], PIECES),
    **{
        f'strips{order}{big}.tif': (tiff(200_001, order, big), STRIPS)
        for order in '<>'
        for big in (False, True)
    },
}


@pytest.mark.parametrize('name', BOMBS)
def test_headers_that_never_end(name, tmp_path, monkeypatch):
    monkeypatch.setattr(bombs, 'PIXELS', 5000)
    content, said = BOMBS[name]
    (tmp_path / name).write_bytes(content)
    for source in (content, tmp_path / name):
        with pytest.raises(InputError, match=rf'{name} .*{said}'):
            open_image(source, 10**6, name, odd=[])


@pytest.mark.parametrize(('order', 'big'), [('<', False), ('>', False), ('<', True)])
def test_a_strip_a_row_is_read(order, big):
    image = open_image(tiff(999, order, big), 10**6, 'a.tif')
    np.testing.assert_array_equal(np.asarray(image)[:, 0], np.arange(999) % 256)


def test_a_directory_that_points_nowhere_is_pillows_to_refuse():
    for content in (b'II*\0\xff\xff\xff\xff', b'II*\0', b'MM\0+\0\x08\0\0' + b'\xff' * 8):
        assert not bombs.refusal(io.BytesIO(content))
        with pytest.raises(InputError, match=r'a\.tif'):
            open_image(content, 10**6, 'a.tif')


def test_comments_of_usual_length_are_read():
    pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    text = ' '.join(map(str, pixels.ravel())).encode()
    note = b'# made by hand\n' * 20
    for content in (
        b'P6\n' + note + b'8 8\n255\n' + pixels.tobytes(),
        b'P3\n' + note + b'8 8\n255\n' + note + text,
    ):
        np.testing.assert_array_equal(np.asarray(open_image(content, 100, 'a.ppm')), pixels)
