"""Trees of images as users have them, good and bad."""

import json
import logging
import os

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from anyshot_jax.data import folder
from anyshot_jax.data.readers.descriptions import descriptions, warn_same
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
    with pytest.raises(
        InputError, match=r'these are roles and no classes.*exactly train, val and test'
    ):
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
    for said in ('5 hidden, system or special files', '1 .txt files not read (a/notes.txt)',
                 '1 .csv files', '1 files beside the class folders (README.md)'):  # fmt: skip
        assert said in caplog.text


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
    assert '1 images skipped, damaged or unreadable (e/0.png)' in caplog.text


def test_class_left_empty_is_an_error(tree):
    (tree / 'a' / '0.png').write_bytes(b'\x89PNG')
    with pytest.raises(InputError, match=r"class 'a'.*no readable image .*1 images skipped"):
        folder.load(config_of(tree, on_error='skip'))
    (tree / 'a' / '0.png').unlink()
    with pytest.raises(InputError, match=r"class 'a'.*no readable image"):
        folder.load(config_of(tree))


def test_bomb_is_passed_over_and_counted(tree, caplog):
    paint(tree / 'c' / 'large.png', 0, (300, 200))
    with_limit = config_of(tree, max_pixels=50_000)
    with caplog.at_level(logging.WARNING, 'absl'):
        assert contents(folder.load(with_limit).roles) == WANT
    assert '1 images larger than max_pixels (c/large.png)' in caplog.text


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
    for value, name in enumerate('ab'):
        paint(tmp_path / name / '0.png', value)
    with pytest.raises(InputError, match=r'2 classes \(a, b\)'):
        folder.load(config_of(tmp_path))
    paint(tmp_path / 'c' / '0.png', 2)
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
    told = [r.getMessage() for r in caplog.records if 'same description' in r.getMessage()]
    assert len(told) == 1 and "the same description for 'a', 'c':" in told[0]


def test_descriptions_that_differ_by_the_name_only_are_told(caplog):
    texts = {
        'hair_line': 'A hair line is thin.', 'crack': 'a crack is thin', 'dent': 'a dent is round',
        'rail': 'a trail is thin',  # the name is a part of a word here
    }  # fmt: skip
    with caplog.at_level(logging.WARNING, 'absl'):
        warn_same(texts)
    [told] = [r.getMessage() for r in caplog.records]
    assert "the same description but for the name for 'hair_line', 'crack':" in told


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


# What people really bring.


def noise(path, seed, size=(40, 30), **save):
    """A picture of its own, large enough to be compared when small."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cells = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC).save(path, **save)


@pytest.mark.parametrize('names', [('Training', 'valid', 'Testing'), ('TRAIN', 'Dev', 'test')])
def test_roles_have_many_names(tmp_path, names):
    for i, role in enumerate(names):
        paint(tmp_path / role / f'c{i}' / '0.png', 10 + i)
    data = folder.load(config_of(tmp_path)).roles
    assert {r: s.names for r, s in data.items()} == {'train': ('c0',), 'val': ('c1',),
                                                     'test': ('c2',)}  # fmt: skip


def test_one_folder_too_many_is_refused_with_the_path_to_give(tree, tmp_path):
    outer = tmp_path / 'download'
    (outer / 'unzipped').mkdir(parents=True)
    tree.rename(outer / 'unzipped' / 'set')
    with pytest.raises(InputError, match=r"one folder, 'unzipped', .*give .*download/unzipped/set"):
        folder.load(config_of(outer))


def test_names_are_in_one_unicode_form(tmp_path):
    nfd = 'cafe\u0301'
    paint(tmp_path / nfd / '0.png', 1)
    paint(tmp_path / 'caf\u00e9' / '1.png', 2)
    for i, name in enumerate('ab'):
        paint(tmp_path / name / '0.png', 10 + i)
    found = contents(folder.load(config_of(tmp_path)).roles)
    assert sorted(found) == ['a', 'b', 'caf\u00e9'] and sorted(found['caf\u00e9']) == [1, 2]


def test_system_folders_are_no_classes(tree, caplog):
    for name in ('@eaDir', '$RECYCLE.BIN', 'lost+found'):
        (tree / name).mkdir()
        paint(tree / 'a' / name / 'thumb.png', 3)
    with caplog.at_level(logging.WARNING, 'absl'):
        assert contents(folder.load(config_of(tree)).roles) == WANT
    assert '6 system folders ($RECYCLE.BIN, @eaDir, a/$RECYCLE.BIN, ...)' in caplog.text


def test_copies_leak_and_near_copies_are_told(tree, caplog):
    noise(tree / 'a' / 'n.png', 1)
    (tree / 'b' / 'copy.png').write_bytes((tree / 'a' / 'n.png').read_bytes())
    with pytest.raises(InputError, match=r'(copy|n).png has the same bytes as .*would leak'):
        folder.load(config_of(tree))
    (tree / 'b' / 'copy.png').unlink()
    (tree / 'a' / 'twice.png').write_bytes((tree / 'a' / 'n.png').read_bytes())
    for c, name in enumerate('abcde'):
        noise(tree / name / 'other.png', 100 + c)
        noise(tree / name / 'again.jpg', 1, (80, 60), quality=50 + c)  # another size and file
    with caplog.at_level(logging.WARNING, 'absl'):
        folder.load(config_of(tree, size=32))
    assert '1 copies within a class (a/twice.png)' in caplog.text
    # In train stand 3 classes with 3 + 2 = 5 or 3 of the pictures alike (a has three), in val and
    # test one each.
    assert 'images nearly alike in different roles' in caplog.text
    assert 'other.png' not in caplog.text


def test_images_of_other_kinds_are_counted_with_what_to_do(tree, caplog):
    for i in range(3):
        (tree / 'a' / f'{i}.dcm').write_bytes(bytes(128) + b'DICM')
    (tree / 'a' / 'x.svg').write_text('<svg></svg>')
    with caplog.at_level(logging.WARNING, 'absl'):
        assert contents(folder.load(config_of(tree)).roles) == WANT
    assert '3 .dcm files not read, DICOM: export it as PNG' in caplog.text
    assert '1 .svg files not read, a drawing without pixels' in caplog.text


def test_the_whole_of_an_image_or_its_centre(tree, caplog):
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, :5] = 255
    Image.fromarray(wide).save(tree / 'a' / '0.png')
    with caplog.at_level(logging.WARNING, 'absl'):
        assert contents(folder.load(config_of(tree)).roles)['a'] == [0]
    cut = '1 images of which the centred square is all that is seen'
    assert f"{cut}, unless config.data.crop='auto' (a/0.png)" in caplog.text
    for crop in ('whole', 'auto'):
        assert contents(folder.load(config_of(tree, crop=crop)).roles)['a'] == [255]
    with pytest.raises(InputError, match=r"crop='tiles': .* AnyShotClassifier see tiles"):
        folder.load(config_of(tree, crop='tiles'))
    with pytest.raises(InputError, match=r"crop='left': need centre, whole, auto$"):
        folder.load(config_of(tree, crop='left'))


def test_links_are_read_once_a_folder_and_not_too_deep(tree):
    """Links two a level: 2^40 ways to the last folder."""
    for i in range(40):
        (tree / 'a' / f'd{i}').mkdir()
    for i in range(39):
        for name in 'xy':
            (tree / 'a' / f'd{i}' / name).symlink_to(f'../d{i + 1}')
    paint(tree / 'a' / 'd39' / 'z.png', 99)
    assert contents(folder.load(config_of(tree)).roles)['a'] == [0, 99]
    deep = tree / 'b'
    for _ in range(70):
        deep = deep / 'd'
    deep.mkdir(parents=True)
    with pytest.raises(InputError, match=r'lies more than 64 folders deep'):
        folder.load(config_of(tree))


def test_links_out_of_the_directory_are_followed_when_asked(tree, tmp_path):
    paint(tmp_path / 'store' / '0.png', 77)
    (tree / 'f').symlink_to(tmp_path / 'store')
    with pytest.raises(InputError, match=r'out of the directory.*set follow_links'):
        folder.load(config_of(tree))
    assert contents(folder.load(config_of(tree, follow_links=True)).roles) == {**WANT, 'f': [77]}
