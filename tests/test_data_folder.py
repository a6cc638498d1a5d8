"""Trees of images as users have them, good and bad."""

import json
import logging
import os

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from anyshot_jax.data import folder
from anyshot_jax.data.readers.descriptions import descriptions
from anyshot_jax.types import InputError


def config_of(root, **fields):
    config = ConfigDict({'name': 'folder', 'dir': str(root), **folder.DEFAULTS, 'size': 8})
    config.update(fields)
    return config


def paint(path, value, size=(10, 10), mode='RGB'):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (value,) * 3 if mode == 'RGB' else value).save(path)


@pytest.fixture
def tree(tmp_path):
    """Five classes a..e; class number c has c + 1 images of grey 10 c + i."""
    root = tmp_path / 'set'
    for c, name in enumerate('abcde'):
        for i in range(c + 1):
            paint(root / name / f'{i}.png', 10 * c + i)
    return root


def contents(data):
    """{class: grey values in order} over all roles."""
    return {
        name: [int(v) for v in s.x[s.offset[c] : s.offset[c] + s.count[c], 0, 0, 0]]
        for s in data.values()
        for c, name in enumerate(s.names)
    }


WANT = {name: [10 * c + i for i in range(c + 1)] for c, name in enumerate('abcde')}


def test_fractions(tree):
    data = folder.load(config_of(tree)).roles
    assert {r: len(s.names) for r, s in data.items()} == {'train': 3, 'val': 1, 'test': 1}
    assert contents(data) == WANT
    assert data['train'].x.shape[1:] == (8, 8, 3) and data['train'].x.dtype == np.uint8
    again = folder.load(config_of(tree)).roles
    assert {r: s.names for r, s in again.items()} == {r: s.names for r, s in data.items()}
    splits = {folder.load(config_of(tree, split_seed=s)).roles['test'].names for s in range(20)}
    assert len(splits) > 2
    for s in data.values():
        assert list(s.names) == sorted(s.names)


def test_lists_and_one_channel(tree):
    data = folder.load(
        config_of(tree, val_classes=('b',), test_classes=('e', 'a'), channels=1)
    ).roles
    assert {r: s.names for r, s in data.items()} == {
        'train': ('c', 'd'),
        'val': ('b',),
        'test': ('a', 'e'),
    }
    assert data['test'].x.shape == (6, 8, 8, 1)
    assert contents(data) == WANT


def test_role_folders_nested_images_and_turns(tmp_path):
    paint(tmp_path / 'train' / 'x' / 'deep' / 'er' / '1.png', 1)
    paint(tmp_path / 'train' / 'x' / '0.png', 2)
    paint(tmp_path / 'val' / 'y' / '0.png', 3)
    paint(tmp_path / 'test' / 'Größe 大きい' / '0.png', 4)
    data = folder.load(config_of(tmp_path, turns=4)).roles
    assert contents(data) == {'x': [2, 1], 'y': [3], 'Größe 大きい': [4]}
    assert {r: s.turns for r, s in data.items()} == {'train': 4, 'val': 1, 'test': 1}


def test_two_role_like_folders_must_be_three(tree):
    paint(tree / 'train' / 'f' / '0.png', 1)
    assert 'train' in contents(
        folder.load(config_of(tree)).roles
    )  # one may be a class (of railways)
    paint(tree / 'valid' / 'g' / '0.png', 1)
    with pytest.raises(InputError, match=r'exactly train, val and test, or class folders only'):
        folder.load(config_of(tree))


@pytest.mark.parametrize('twin', ['cat', 'Cat', ' cat', '\uff43at'])
def test_class_in_two_roles_is_refused(tmp_path, twin):
    paint(tmp_path / 'train' / 'cat' / '0.png', 1)
    paint(tmp_path / 'val' / 'dog' / '0.png', 1)
    paint(tmp_path / 'test' / twin / '0.png', 1)
    with pytest.raises(InputError, match=rf"train/'cat' and test/'{twin}'"):
        folder.load(config_of(tmp_path))


def test_other_files_are_passed_over(tree, caplog):
    for name in ('.hidden.png', '.DS_Store', 'Thumbs.db', 'notes.txt', 'table.csv'):
        (tree / 'a' / name).write_bytes(b'anything')
    (tree / '.git').mkdir()
    (tree / 'README.md').write_text('a set')
    os.mkfifo(tree / 'a' / 'pipe.png')
    with caplog.at_level(logging.INFO, 'absl'):
        assert contents(folder.load(config_of(tree)).roles) == WANT
    assert 'passed over 8 files' in caplog.text


def test_damaged_image_is_named_or_skipped(tree, caplog):
    whole = (tree / 'e' / '0.png').read_bytes()
    (tree / 'e' / '0.png').write_bytes(whole[:40])
    (tree / 'd' / 'empty.jpg').write_bytes(b'')
    with pytest.raises(InputError, match=r"d/empty.jpg.*on_error='skip'"):
        folder.load(config_of(tree))
    (tree / 'd' / 'empty.jpg').unlink()
    with pytest.raises(InputError, match=r'e/0.png'):
        folder.load(config_of(tree))
    with caplog.at_level(logging.INFO, 'absl'):
        data = folder.load(config_of(tree, on_error='skip')).roles
    assert contents(data) == {**WANT, 'e': [41, 42, 43, 44]}
    assert 'skipped 1 images' in caplog.text and 'e/0.png' in caplog.text


def test_class_left_empty_is_an_error(tree):
    (tree / 'a' / '0.png').write_bytes(b'\x89PNG')
    with pytest.raises(InputError, match=r"class 'a'.*no readable image \(1 skipped"):
        folder.load(config_of(tree, on_error='skip'))
    (tree / 'a' / '0.png').unlink()
    with pytest.raises(InputError, match=r"class 'a'.*no readable image"):
        folder.load(config_of(tree))


def test_bomb_is_named(tree):
    paint(tree / 'c' / 'large.png', 0, (300, 200))
    with pytest.raises(InputError, match=r'c/large.png has 300 x 200 pixels'):
        folder.load(config_of(tree, max_pixels=50_000))


def test_nothing_there(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r'holds no class folder'):
        folder.load(config_of(tmp_path))
    with pytest.raises(InputError, match=r'not at .*nowhere.*<class>/<image>'):
        folder.load(config_of(tmp_path / 'nowhere'))
    monkeypatch.delenv('ANYSHOT_DATA_DIR', raising=False)
    with pytest.raises(InputError, match=r'ANYSHOT_DATA_DIR.*<class>/<image>'):
        folder.load(config_of(''))
    (tmp_path / 'file').write_text('x')
    with pytest.raises(InputError, match=r'is not a directory'):
        folder.load(config_of(tmp_path / 'file'))
    paint(tmp_path / 'loose.png', 1)
    with pytest.raises(InputError, match=r'holds no class folder'):
        folder.load(config_of(tmp_path))


def test_environment_variable(tree, monkeypatch):
    tree.rename(tree.parent / 'folder')
    monkeypatch.setenv('ANYSHOT_DATA_DIR', str(tree.parent))
    assert contents(folder.load(config_of('')).roles) == WANT


def test_links_inside_and_in_circles(tree):
    store = tree / '.store'
    paint(store / '0.png', 60)
    (tree / 'f').symlink_to(store)  # a class that lies elsewhere inside
    (tree / 'a' / 'again.png').symlink_to('0.png')  # the same image: counted once
    (tree / 'a' / 'up').symlink_to(tree)
    (tree / 'a' / 'me').symlink_to(tree / 'a')
    (tree / 'all').symlink_to(tree)
    (tree / 'b' / 'circle').symlink_to('circle')
    (tree / 'b' / 'sub').mkdir()
    (tree / 'b' / 'sub' / 'back').symlink_to('..')
    assert contents(folder.load(config_of(tree)).roles) == {**WANT, 'f': [60]}


def test_links_that_lead_nowhere_or_outside_or_to_another_class(tree, tmp_path):
    link = tree / 'a' / 'gone.png'
    link.symlink_to('nothing.png')
    with pytest.raises(InputError, match=r'gone.png is damaged or unreadable'):
        folder.load(config_of(tree))
    link.unlink()
    link.symlink_to('../b/0.png')
    with pytest.raises(InputError, match=r'b/0.png is also in .*a|gone.png is also in'):
        folder.load(config_of(tree))
    link.unlink()
    paint(tmp_path / 'secret.png', 1)
    link.symlink_to(tmp_path / 'secret.png')
    with pytest.raises(InputError, match=r'gone.png is a link out of the directory'):
        folder.load(config_of(tree))
    link.unlink()
    (tree / 'g').symlink_to(tmp_path)
    with pytest.raises(InputError, match=r'/g is a link out of the directory'):
        folder.load(config_of(tree))


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'on_error': 'ignore'}, 'on_error'),
        ({'channels': 4}, 'channels'),
        ({'size': 0}, 'size'),
        ({'turns': 3}, 'turns'),
        ({'split': (0.5, 0.5, 0.0)}, 'three positive fractions'),
        ({'split': (0.5, 0.4, 0.3)}, 'sum to 1'),
        ({'val_classes': ('a',)}, 'together'),
        ({'val_classes': ('a',), 'test_classes': ('bb',)}, "no class 'bb'"),
        ({'val_classes': ('a',), 'test_classes': ('a',)}, 'in both'),
        ({'val_classes': ('a', 'b'), 'test_classes': ('c', 'd', 'e')}, 'no class for training'),
    ],
)
def test_bad_fields(tree, fields, message):
    with pytest.raises(InputError, match=message):
        folder.load(config_of(tree, **fields))


def test_too_few_classes(tmp_path):
    for name in 'ab':
        paint(tmp_path / name / '0.png', 1)
    with pytest.raises(InputError, match=r'2 classes \(a, b\)'):
        folder.load(config_of(tmp_path))
    paint(tmp_path / 'c' / '0.png', 1)
    data = folder.load(config_of(tmp_path, split=(0.98, 0.01, 0.01))).roles
    assert [len(s.names) for s in data.values()] == [1, 1, 1]
    data = folder.load(config_of(tmp_path, split=(0.02, 0.49, 0.49))).roles
    assert [len(s.names) for s in data.values()] == [1, 1, 1]


def test_descriptions(tree):
    path = tree / 'classes.json'
    path.write_text(json.dumps({'a': 'first', 'b': 'größer'}))
    assert descriptions(tree) == {'a': 'first', 'b': 'größer'}
    assert contents(folder.load(config_of(tree)).roles) == WANT
    items = [{'name': 'c', 'description': 'third', 'seen': True}]
    for content in (items, {'name': 'MSD', 'classes': items}, {'classes': {'c': 'third'}}):
        path.write_text(json.dumps(content))
        assert descriptions(tree) == {'c': 'third'}
    path.unlink()
    assert descriptions(tree) == {}


def test_one_description_for_two_classes_is_told(tree, caplog):
    texts = {'a': 'dark  spots', 'b': '', 'c': 'Dark spots', 'd': '', 'e': 'scratches'}
    (tree / 'classes.json').write_text(json.dumps(texts))
    with caplog.at_level(logging.WARNING, 'absl'):
        folder.load(config_of(tree))
    [record] = caplog.records
    assert "the same description for 'a', 'c':" in record.getMessage()


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"a": "x", "aa": "y"}', r"1 unknown classes: 'aa'.*mean 'a'"),
        ('{"a": ', 'not readable JSON'),
        ('{"a": 3}', r"class 'a': expected"),
        ('"a"', 'expected'),
        ('[{"name": "a"}]', r"class 'a': expected"),
        ('[{"name": "a", "description": ""}, {"name": "a", "description": ""}]', 'twice'),
        ('[' * 100_000, 'not readable JSON'),
        ('1' * 5000, 'not readable JSON'),
    ],
)
def test_bad_descriptions(tree, text, message):
    (tree / 'classes.json').write_text(text)
    with pytest.raises(InputError, match=message):
        folder.load(config_of(tree))


def test_real_defect_images(data_dir):
    root = data_dir / 'industrial' / 'MSD' / 'images'
    if not root.is_dir():
        pytest.skip(f'no industrial/MSD/images in {data_dir}')
    data = folder.load(config_of(root, size=32)).roles
    assert sum(len(s.x) for s in data.values()) == 872
    assert sum(len(s.names) for s in data.values()) == 20
    assert set(descriptions(root.parent)) == {n for s in data.values() for n in s.names}
