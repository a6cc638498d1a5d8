"""Vectors from npz files: every accepted form, every refusal."""

import zipfile

import numpy as np
import pytest
from ml_collections import ConfigDict

from anyshot_jax.data import features
from anyshot_jax.types import InputError

X = np.arange(24, dtype=np.float64).reshape(8, 3)
Y = np.array([30, 10, 20, 10, 30, 20, 20, 40])  # ragged: 2, 3, 2, 1


def config_of(path, **fields):
    config = ConfigDict({'name': 'features', 'dir': str(path), **features.DEFAULTS})
    config.update(fields)
    return config


def load(tmp_path, fields=None, **arrays):
    np.savez(tmp_path / 'some.npz', **arrays)
    return features.load(config_of(tmp_path, **(fields or {}))).roles


def rows(data):
    """{class: first components of its items in order} over all roles."""
    return {
        name: s.x[s.offset[c] : s.offset[c] + s.count[c], 0].tolist()
        for s in data.values()
        for c, name in enumerate(s.names)
    }


WANT = {'10': [3, 9], '20': [6, 15, 18], '30': [0, 12], '40': [21]}
ROLES = np.array(['test', 'train', 'val', 'train', 'test', 'val', 'val', 'train'])


def test_split_by_config(tmp_path):
    data = load(tmp_path, x=X, y=Y)
    assert rows(data) == WANT
    assert sorted(len(s.names) for s in data.values()) == [1, 1, 2]
    assert data['train'].x.dtype == np.float32
    lists = {'val_classes': ('20',), 'test_classes': ('40',)}
    data = load(tmp_path, lists, features=X, labels=Y.astype(np.uint8))
    assert {r: s.names for r, s in data.items()} == {
        'train': ('10', '30'),
        'val': ('20',),
        'test': ('40',),
    }


@pytest.mark.parametrize('key', ['role', 'split'])
def test_role_of_every_row(tmp_path, key):
    data = load(tmp_path, x=X, y=Y, **{key: ROLES})
    assert rows(data) == WANT
    assert {r: s.names for r, s in data.items()} == {
        'train': ('10', '40'),
        'val': ('20',),
        'test': ('30',),
    }


def test_class_split_and_attribute_follow_the_sorted_classes(tmp_path):
    table = np.array([[1.0], [2], [3], [4]])
    split = np.array(['val', 'train', 'test', 'train'])
    data = load(tmp_path, x=X, y=Y, class_split=split, attribute=table)
    assert data['train'].names == ('20', '40')
    assert data['train'].extras['attribute'].tolist() == [[2], [4]]
    assert data['test'].extras['attribute'].tolist() == [[3]]
    text = np.array(['c', 'a', 'b', 'a', 'c', 'b', 'b', 'd'])
    data = load(tmp_path, x=X, y=text, class_split=split, attribute=table)
    assert rows(data) == dict(zip('abcd', WANT.values(), strict=True))
    assert data['val'].names == ('a',) and data['val'].extras['attribute'].tolist() == [[1]]


def test_names_of_numbers_and_classes_without_items(tmp_path):
    names = np.array([f'n{c}' for c in range(5)])
    y = Y // 10
    data = load(tmp_path, x=X, y=y, names=names, semantic=np.arange(5.0)[:, None])
    assert rows(data) == {f'n{k[0]}': v for k, v in WANT.items()}
    for s in data.values():
        assert [f'n{int(a)}' for a in s.extras['attribute'][:, 0]] == list(s.names)


def test_file_is_found(tmp_path):
    np.savez(tmp_path / 'a.npz', x=X, y=Y)
    assert rows(features.load(config_of(tmp_path / 'a.npz')).roles) == WANT
    np.savez_compressed(tmp_path / 'features.npz', x=X + 100, y=Y)
    assert rows(features.load(config_of(tmp_path)).roles)['40'] == [121]
    (tmp_path / 'features.npz').rename(tmp_path / 'b.npz')
    with pytest.raises(InputError, match=r'holds 2 .npz files'):
        features.load(config_of(tmp_path))


@pytest.mark.parametrize(
    ('arrays', 'message'),
    [
        ({'x': X}, r'no array y or labels'),
        ({'y': Y}, r'no array x or features'),
        ({'x': X, 'y': Y[:7]}, r'y is int64 \(7,\), expected 8'),
        ({'x': X, 'y': Y * 1.0}, r'y is float64'),
        ({'x': X[0], 'y': Y}, r'x is float64 \(3,\), expected numbers \[N, D\]'),
        ({'x': X[:0], 'y': Y[:0]}, r'x is float64 \(0, 3\)'),
        ({'x': X.astype(str), 'y': Y}, r'x is <U\d+'),
        ({'x': np.where(X == 12, np.nan, X), 'y': Y}, 'first is row 4'),
        ({'x': np.where(X == 9, -np.inf, X), 'y': Y}, 'first is row 3'),
        ({'x': np.where(X == 23, 1e300, X), 'y': Y}, 'first is row 7'),
        ({'x': X.astype(object), 'y': Y}, r"'x' holds Python objects"),
        ({'x': X, 'y': Y.astype(object)}, r"'y' holds Python objects"),
        ({'x': X, 'y': Y, 'role': ROLES[::-1]}, "class '10' has items in test and val"),
        ({'x': X, 'y': Y, 'role': ROLES[:3]}, 'role must be 8 strings'),
        ({'x': X, 'y': Y, 'role': np.char.replace(ROLES, 'val', 'dev')}, "'dev' is none of"),
        ({'x': X, 'y': Y, 'role': np.char.replace(ROLES, 'val', 'test')}, "no class for 'val'"),
        ({'x': X, 'y': Y, 'class_split': ROLES}, 'class_split must have 4'),
        ({'x': X, 'y': Y, 'names': np.array(['a'] * 4)}, r'y runs 10\.\.40, but there are 4 names'),
        ({'x': X, 'y': Y // 10, 'names': np.array(['a'] * 5)}, 'same class name twice'),
        ({'x': X, 'y': Y, 'attribute': np.zeros((3, 2))}, 'attribute has 3 rows'),
        ({'x': X, 'y': Y, 'attribute': np.full((4, 2), np.nan)}, 'attribute: 4 rows have NaN'),
        ({'x': X[:5], 'y': np.zeros(5, int)}, 'train, val and test need at least one each'),
    ],
)
def test_refused(tmp_path, arrays, message):
    with pytest.raises(InputError, match=message):
        load(tmp_path, **arrays)


def test_damaged_and_too_large_files(tmp_path):
    path = tmp_path / 'some.npz'
    np.savez_compressed(path, x=np.zeros((1000, 1000)), y=np.zeros(1000, int))
    with pytest.raises(InputError, match=r'unpacks to 8,\d+,\d+ bytes, more than the 1,000,000'):
        features.load(config_of(path, max_bytes=1_000_000))
    np.savez(path, x=X, y=Y)
    whole = path.read_bytes()
    path.write_bytes(whole[:300])
    with pytest.raises(InputError, match=r'some.npz is not a whole npz file'):
        features.load(config_of(path))
    at = whole.index(X.tobytes()) + 50
    path.write_bytes(whole[:at] + b'\xff' + whole[at + 1 :])
    with pytest.raises(InputError, match=r"some.npz, array 'x' is not a whole"):
        features.load(config_of(path))
    with zipfile.ZipFile(path, 'w') as z:
        z.writestr('x.npy', b'not an array')
        z.writestr('y.npy', b'')
    with pytest.raises(InputError, match=r"some.npz, array 'x' is not a whole"):
        features.load(config_of(path))
    with open(path, 'wb') as f:  # one array, not an archive
        np.save(f, X)
    with pytest.raises(InputError, match=r'not a whole npz file'):
        features.load(config_of(path))


def test_real_features(data_dir):
    path = data_dir / 'industrial' / 'KTD'
    if not (path / 'features.npz').is_file():
        pytest.skip(f'no industrial/KTD/features.npz in {data_dir}')
    data = features.load(config_of(path)).roles
    assert sum(len(s.x) for s in data.values()) == 400
    with np.load(path / 'features.npz') as z:
        first = str(z['class_names'][z['labels'][0]])
        role = next(r for r in data if first in data[r].names)
        row = data[role].offset[data[role].names.index(first)]
        np.testing.assert_array_equal(data[role].x[row], z['features'][0].astype(np.float32))
