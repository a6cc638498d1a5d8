"""Encoded images in one npz: what comes out, and every refusal."""

import io

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from anyshot_jax.data import packed
from anyshot_jax.types import InputError

NAMES = np.array(['apple', 'pear', 'fig', 'kiwi'])
LABEL = np.array([3, 0, 1, 0, 2, 1, 2], np.uint8)


def png(value, side=6):
    buffer = io.BytesIO()
    Image.new('RGB', (side, side), (value, 2 * value, 0)).save(buffer, 'PNG')
    return buffer.getvalue()


def pack(files, **arrays):
    offset = np.cumsum([0, *map(len, files)])
    return {'jpeg': np.frombuffer(b''.join(files), np.uint8), 'offset': offset, **arrays}


def load(path, arrays, **fields):
    np.savez(path / 'some.npz', **arrays)
    config = ConfigDict({'name': 'packed', 'dir': str(path), **packed.DEFAULTS})
    config.update({'size': 4, 'val_classes': ('fig',), 'test_classes': ('kiwi',), **fields})
    return packed.load(config).roles


FILES = [png(10 * (i + 1)) for i in range(len(LABEL))]


def test_images_come_out_by_class(tmp_path):
    description = np.array(['red', 'green', 'blue', 'brown'])
    data = load(tmp_path, pack(FILES, label=LABEL, name=NAMES, description=description))
    assert {role: d.names for role, d in data.items()} == {
        'train': ('apple', 'pear'), 'val': ('fig',), 'test': ('kiwi',)
    }  # fmt: skip
    assert data['train'].texts == ('red', 'green') and data['test'].texts == ('brown',)
    assert data['train'].x.shape == (4, 4, 4, 3) and data['train'].x.dtype == np.uint8
    assert data['train'].x[:, 0, 0].tolist() == [
        [20, 40, 0],
        [40, 80, 0],
        [30, 60, 0],
        [60, 120, 0],
    ]
    assert data['val'].x[:, 0, 0, 0].tolist() == [50, 70]


def test_classes_are_numbers_where_there_are_no_names(tmp_path):
    fields = {'val_classes': ('1',), 'test_classes': ('3',)}
    data = load(tmp_path, pack(FILES, label=LABEL), **fields)
    assert data['train'].names == ('0', '2') and data['train'].texts == ()


def test_a_damaged_image_is_named_or_skipped(tmp_path):
    arrays = pack([*FILES[:3], FILES[3][:40], *FILES[4:]], label=LABEL, name=NAMES)
    with pytest.raises(InputError, match=r'some\.npz, image 3'):
        load(tmp_path, arrays)
    data = load(tmp_path, arrays, on_error='skip')
    assert data['train'].count.tolist() == [1, 2]
    only = pack([b'x' * 9, *FILES[1:]], label=LABEL, name=NAMES)
    with pytest.raises(InputError, match="'kiwi' has no image"):
        load(tmp_path, only, on_error='skip')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'offset': np.array([0, 5])}, 'expected whole numbers'),
        ({'offset': np.arange(8) * 10_000_000}, 'does not rise'),
        ({'offset': np.array([0, 9, 5, 20, 30, 40, 50, 60])}, 'does not rise'),
        ({'offset': np.array([5, 9, 15, 20, 30, 40, 50, 60], np.float32)}, 'whole numbers'),
        ({'label': LABEL.astype(np.int8) - 2}, 'negative'),
        ({'label': LABEL.astype(float)}, 'whole numbers'),
        ({'label': LABEL + 1}, 'labels run up to 4'),
        ({'name': np.arange(4)}, 'expected strings'),
        ({'name': NAMES[[0, 0, 2, 3]]}, 'twice'),
        ({'description': NAMES[:2]}, '2 descriptions'),
        ({'jpeg': np.zeros((3, 3))}, r'expected uint8 \[bytes\]'),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        load(tmp_path, {**pack(FILES, label=LABEL, name=NAMES), **change})


def test_a_file_without_the_arrays_is_refused(tmp_path):
    with pytest.raises(InputError, match='no array jpeg and none called offset'):
        load(tmp_path, {'label': LABEL})
    with pytest.raises(InputError, match='holds 2'):
        np.savez(tmp_path / 'other.npz', x=LABEL)
        load(tmp_path, pack(FILES, label=LABEL))


def test_real_groceries(data_dir):
    path = data_dir / 'grocery' / 'grocery112.npz'
    if not path.is_file():
        pytest.skip(f'no {path}')
    config = ConfigDict({'name': 'packed', 'dir': str(path), **packed.DEFAULTS, 'size': 8})
    data = packed.load(config).roles
    assert sum(len(d.x) for d in data.values()) == 5421
    assert sum(len(d.names) for d in data.values()) == 81
    assert all(text for d in data.values() for text in d.texts)


STYLE = {
    'style': np.array([0, 1, 2, 3, 1, 0, 3]),
    'style_name': np.array(['pen', 'ink', 'oil', 'wax']),
}


def test_groups_stay_with_their_images_and_merge(tmp_path):
    arrays = pack(FILES, label=LABEL, name=NAMES, **STYLE)
    assert load(tmp_path, arrays)['train'].group is None
    data = load(tmp_path, arrays, group='style')
    # Images 1, 3 (apple) and 2, 5 (pear); 4, 6 (fig); 0 (kiwi).
    assert data['train'].group.tolist() == [1, 3, 2, 0] and data['val'].group.tolist() == [1, 3]
    merged = load(tmp_path, arrays, group='style', merge=(('ink', 'wax'), ('oil', 'pen')))
    assert merged['train'].group.tolist() == [1, 1, 2, 2]
    assert merged['test'].group.tolist() == [2]
    broken = pack([FILES[0], b'no', *FILES[2:]], label=LABEL, name=NAMES, **STYLE)
    kept = load(tmp_path, broken, group='style', on_error='skip')
    assert kept['train'].group.tolist() == [3, 2, 0]


@pytest.mark.parametrize('arrays, fields, message', [
    ({}, {'group': 'style'}, 'has no array style, which config.data.group names'),
    ({'style': np.arange(3)}, {'group': 'style'}, r'style is int64 \(3,\), expected 7 whole'),
    ({'style': np.full(7, -1)}, {'group': 'style'}, 'whole numbers >= 0'),
    ({'style': np.ones(7)}, {'group': 'style'}, 'style is float64'),
    (STYLE | {'style': np.full(7, 4)}, {'group': 'style'}, 'style runs up to 4, but has 4 names'),
    (STYLE, {'group': 'style', 'merge': (('ink', 'wex'),)}, "no style 'wex'; did you mean 'wax'"),
])  # fmt: skip
def test_bad_groups_are_named(tmp_path, arrays, fields, message):
    with pytest.raises(InputError, match=message):
        load(tmp_path, pack(FILES, label=LABEL, name=NAMES, **arrays), **fields)
