"""Industrial sets: class sets, items kept back, texts, and what hostile or broken files get."""

import json
import logging
import os
from collections import Counter

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from anyshot_jax.data import industrial
from anyshot_jax.encoders import describe
from anyshot_jax.types import Data, InputError

SEEN = {'f': True, 'b': True, 'a': False, 'd': True, 'e': False, 'c': True}
NUM = {'a': 3, 'b': 5, 'c': 11, 'd': 3, 'e': 4, 'f': 8}


def config_of(root, **fields):
    config = ConfigDict({'name': 'industrial', 'dir': str(root), **industrial.DEFAULTS})
    config.update({'set': 'tiny', 'size': 4, 'val': 1, **fields})
    return config


def load(root, **fields):
    return industrial.load(config_of(root, **fields)).roles


def paint(path, value, mode='L'):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (6, 6), value if mode == 'L' else (value,) * 3).save(path)


@pytest.fixture
def root(tmp_path):
    """Class number c of a..f has images of grey 20 c + i; two classes are novel."""
    root = tmp_path / 'tiny'
    classes = []
    for name, seen in SEEN.items():
        files = [f'{name}/{i:02}.png' for i in range(NUM[name])]
        for i, file in enumerate(files):
            paint(root / 'images' / file, 20 * 'abcdef'.index(name) + i)
        classes.append({'name': name, 'seen': seen, 'files': files, 'folder': f'images/{name}'})
    (root / 'classes.json').write_text(json.dumps({'name': 'tiny', 'classes': classes}))
    return root


@pytest.fixture
def change(root):
    """A function: edits classes.json; f(content, class b)."""

    def edit(f):
        content = json.loads((root / 'classes.json').read_text())
        f(content, content['classes'][1])
        (root / 'classes.json').write_text(json.dumps(content))

    return edit


def contents(dataset):
    """{class: grey values in order}."""
    return {
        name: dataset.x[dataset.label == c, 0, 0, 0].tolist()
        for c, name in enumerate(dataset.names)
    }


def roles(data):
    return {role: d.names for role, d in data.items()}


def grey(name, *numbers):
    return [20 * 'abcdef'.index(name) + i for i in numbers or range(NUM[name])]


def test_seen_flags_tell_the_novel_classes(root):
    data = load(root)
    assert roles(data)['test'] == ('a', 'e') and len(data['val'].names) == 1
    assert sorted(data['train'].names + data['val'].names) == ['b', 'c', 'd', 'f']
    for d in data.values():
        assert d.x.shape[1:] == (4, 4, 3) and d.x.dtype == np.uint8 and d.texts == ()
        assert contents(d) == {name: grey(name) for name in d.names}
        assert d.names == tuple(sorted(d.names))
    assert load(root, channels=1)['test'].x.shape == (7, 4, 4, 1)


def test_seeds_draw_validation_and_random_novel_classes(root):
    val = {load(root, val_seed=s)['val'].names for s in range(30)}
    assert val == {('b',), ('c',), ('d',), ('f',)}
    assert len(load(root, val=3)['val'].names) == 3
    assert set(load(root, val=0)) == {'train', 'test'}
    # The stated rule, by hand.
    order = np.random.default_rng(3).permutation(6)[:2]
    drawn = load(root, classes='random', split_seed=3)
    assert drawn['test'].names == tuple(sorted('abcdef'[i] for i in order))
    novel = {load(root, classes='random', split_seed=s)['test'].names for s in range(12)}
    assert len(novel) > 4 and all(len(names) == 2 for names in novel)
    names = [n for d in drawn.values() for n in d.names]
    assert sorted(names) == list('abcdef')


def test_the_last_of_every_fifth_is_kept_back(root):
    data = load(root, held_out=True)
    kept = data['test_seen']
    assert kept.names == data['train'].names + data['val'].names
    # 5 -> 2 runs (2, 3); 11 -> 2 runs (5, 6); 3 -> 2 runs (1, 2); 8 -> 2 runs of 4.
    want = {'b': (1, 4), 'c': (4, 10), 'd': (0, 2), 'f': (3, 7)}
    assert contents(kept) == {name: grey(name, *want[name]) for name in kept.names}
    for role in ('train', 'val'):
        for name, values in contents(data[role]).items():
            assert values == [v for v in grey(name) if v not in grey(name, *want[name])]
    assert contents(data['test']) == {'a': grey('a'), 'e': grey('e')}


def test_a_fifth_of_many():
    files = list(range(23))
    assert industrial._every_fifth(files) == [3, 8, 12, 17, 22]  # round(23 / 5) runs of 4 or 5
    assert industrial._every_fifth(list(range(50))) == list(range(4, 50, 5))


def test_class_set_a_keeps_back_the_listed_files(root, change):
    listed = ['b/04.png', 'b/00.png', 'c/03.png', 'd/01.png', 'f/06.png', 'f/07.png', 'f/05.png']
    splits = {'files_by_convention': {'test_seen': listed}}
    change(lambda content, b: content.update(splits=splits))
    data = load(root, held_out=True)
    want = {'b': (0, 4), 'c': (3,), 'd': (1,), 'f': (5, 6, 7)}
    kept = contents(data['test_seen'])
    assert kept == {name: grey(name, *want[name]) for name in kept} and len(kept) == 4
    items = [v for d in data.values() for values in contents(d).values() for v in values]
    assert Counter(items) == Counter(v for name in NUM for v in grey(name))
    random = load(root, held_out=True, classes='random', split_seed=1)
    assert random['test_seen'].count.min() >= 2


@pytest.mark.parametrize('listed, message', [
    (['a/00.png', 'b/00.png'], "keeps back 'a/00.png' for test_seen, which is no file of a seen"),
    (['b/../b/00.png'], r"keeps back 'b/\.\./b/00.png'"),
    (['/etc/passwd'], "keeps back '/etc/passwd'"),
    ([f'b/{i:02}.png' for i in range(5)], "keep back 5 of the 5 images of class 'b'"),
    (['b/00.png'], r"keep back 0 of the \d+ images of class"),
    ([['b/00.png']], 'expected a list of files'),
    ('b/00.png', 'expected a list of files'),
])  # fmt: skip
def test_files_to_keep_back_must_be_seen_ones(root, change, listed, message):
    splits = {'files_by_convention': {'test_seen': listed}}
    change(lambda content, b: content.update(splits=splits))
    with pytest.raises(InputError, match=message):
        load(root, held_out=True, val_seed=2)


def test_too_few_images_to_keep_some_back(root, change):
    change(lambda content, b: b.update(files=['b/00.png', 'b/01.png']))
    with pytest.raises(InputError, match="keep back 2 of the 2 images of class 'b'"):
        load(root, held_out=True)


def test_texts_say_what_a_class_is(root, change):
    fields = {
        'a': {'long_name': 'rolled-in scale (steel, NEU-style)', 'description': 'White, hole'},
        'b': {'long_name': 'steel, abbreviation not expanded in the source', 'description': 'Oval'},
        'c': {'long_name': None, 'description': ' Fine, wave '},
        'd': {'long_name': 'pits'},
        'e': {'description': ''},
        'f': {'long_name': '(unknown)', 'description': 'Dark'},
    }

    def edit(content, b):
        for c in content['classes']:
            c.update(fields[c['name']])

    change(edit)
    data = load(root, held_out=True)
    texts = {name: t for d in data.values() for name, t in zip(d.names, d.texts, strict=True)}
    assert texts == {
        'a': 'rolled-in scale: White, hole', 'b': 'steel: Oval', 'c': 'c: Fine, wave', 'd': 'pits',
        'e': '', 'f': 'f: Dark',
    }  # fmt: skip
    assert data['test_seen'].texts == data['train'].texts + data['val'].texts
    assert industrial._text('wall_1-without-rotations', {'description': 'x'}) == 'wall 1: x'

    # The attributes of a class are the same in every role that has it.
    pytest.importorskip('sklearn')
    described = describe.describe(Data(data), 'tfidf', ('{text}',)).roles
    seen = [described[role].extras['attribute'] for role in ('train', 'val')]
    np.testing.assert_array_equal(np.concatenate(seen), described['test_seen'].extras['attribute'])


def test_one_description_for_two_classes_is_told(root, change, caplog):
    change(lambda content, b: [c.update(description='x') for c in content['classes'][:2]])
    change(lambda content, b: b.update(long_name='another name'))
    with caplog.at_level(logging.WARNING, 'absl'):
        load(root)
    assert "the same description for 'b', 'f'" in caplog.text


def test_the_directory_or_its_parent_or_the_environment(root, monkeypatch):
    want = roles(load(root))
    assert roles(load(root.parent)) == want
    (root.parent / 'data').mkdir()
    (root.parent / 'data' / 'industrial').mkdir()
    root.rename(root.parent / 'data' / 'industrial' / 'tiny')
    monkeypatch.setenv('ANYSHOT_DATA_DIR', str(root.parent / 'data'))
    assert roles(load('')) == want
    monkeypatch.delenv('ANYSHOT_DATA_DIR')
    with pytest.raises(InputError, match=r"ANYSHOT_DATA_DIR to the parent of 'industrial/tiny'"):
        load('')
    with pytest.raises(InputError, match=r'not at .*gone.*classes.json and images/<class>'):
        load(root / 'gone')
    with pytest.raises(InputError, match=r'no classes.json, and no tiny/classes.json either'):
        load(root.parent)


def test_the_set_is_the_one_that_is_named(root, change):
    with pytest.raises(InputError, match=r"'MSD', but .* holds the set 'tiny'"):
        load(root, set='MSD')
    change(lambda content, b: content.update(name='other'))
    assert roles(load(root)) == roles(load(root, set='other'))
    change(lambda content, b: content.pop('name'))
    assert roles(load(root))
    with pytest.raises(InputError, match="holds the set 'tiny'"):
        load(root, set='other')


@pytest.mark.parametrize('fields, message', [
    ({'set': '../tiny'}, 'config.data.set'),
    ({'set': ''}, 'config.data.set'),
    ({'set': '..'}, 'config.data.set'),
    ({'classes': 'B'}, "'B' is a set of the 20 classes of MSD"),
    ({'classes': 'E'}, "config.data.classes='E' is unknown; there are A, B, C, D, random"),
    ({'classes': 'randon'}, "did you mean 'random'"),
    ({'val': 4}, 'config.data.val = 4: of 4 seen classes'),
    ({'val': -1}, 'config.data.val = -1: of 4 seen classes'),
    ({'val_seed': -1}, 'val_seed = -1'),
    ({'split_seed': -1}, 'split_seed = -1'),
    ({'size': 0}, 'size'),
    ({'channels': 2}, 'channels'),
    ({'on_error': 'pass'}, 'on_error'),
])  # fmt: skip
def test_bad_fields(root, fields, message):
    with pytest.raises(InputError, match=message):
        load(root, **fields)


@pytest.mark.parametrize('edit, message', [
    (lambda c, b: c.pop('classes'), r'classes.json: expected \{"classes"'),
    (lambda c, b: c.update(classes={}), 'expected'),
    (lambda c, b: c.update(classes=[]), 'expected'),
    (lambda c, b: c['classes'].append('g'), 'class number 6: expected an object'),
    (lambda c, b: b.pop('name'), 'class number 1: name is None, expected text'),
    (lambda c, b: b.update(name='x' * 10**6, folder=None), r"class 'x{76}\.\.\., .*no such folder"),
    (lambda c, b: b.update(name='f', folder=None), r"1 \('f'\): that name was there before"),
    (lambda c, b: b.update(name='g', folder='images/g'), "class 'g', but there is no such folder"),
    (lambda c, b: b.update(name='../x', folder=None), r"class '\.\./x', but there is no such"),
    (lambda c, b: b.update(name='\0', folder=None), 'there is no such folder'),
    (lambda c, b: b.pop('seen'), r"class number 1 \('b'\): seen is None, expected true or false"),
    (lambda c, b: b.update(seen=1), 'seen is 1, expected true or false'),
    (lambda c, b: b.update(description=['x']), r"description is \['x'\], expected text"),
    (lambda c, b: b.update(long_name=3), 'long_name is 3'),
    (lambda c, b: b.update(files='b/00.png'), 'files is .*expected a list'),
    (lambda c, b: b.update(folder='images/a'), "folder is 'images/a'"),
    (lambda c, b: b.update(folder='../tiny/images/b'), 'folder is'),
    (lambda c, b: b['files'].append('b/99.png'), "lists 'b/99.png' for class 'b'"),
    (lambda c, b: b['files'].append('a/00.png'), "lists 'a/00.png' for class 'b'"),
    (lambda c, b: b['files'].append('b/../a/00.png'), 'which is no image in'),
    (lambda c, b: b['files'].append('/etc/passwd'), 'which is no image in'),
    (lambda c, b: b['files'].append({'b': 1}), r"lists \{'b': 1\}"),
    (lambda c, b: b['files'].append('b/00.png'), "a file of class 'b' twice"),
    (lambda c, b: b.update(files=[]), "class 'b' has no image in .*or lists none"),
    (lambda c, b: [x.update(seen=True) for x in c['classes']], 'no class with seen = false'),
    (lambda c, b: [x.update(seen=False) for x in c['classes']], 'of 0 seen classes'),
])  # fmt: skip
def test_a_strange_classes_json_is_refused(root, change, edit, message):
    change(edit)
    with pytest.raises(InputError, match=message):
        load(root)


@pytest.mark.parametrize('text', ['', '{"classes": ', '[' * 10**5, '1' * 5000, '\udc80'])
def test_what_is_no_json_is_refused(root, text):
    (root / 'classes.json').write_bytes(text.encode(errors='surrogateescape'))
    with pytest.raises(InputError, match=r'classes\.json is not readable JSON'):
        load(root)


def test_a_huge_classes_json_is_refused(root):
    os.truncate(root / 'classes.json', 10**9)  # a hole, which takes no space
    with pytest.raises(InputError, match='larger than'):
        load(root)


def test_folders_that_lack_something(root, change, tmp_path):
    images = root / 'images'
    for file in (images / 'b').iterdir():
        file.unlink()
    (images / 'b' / 'notes.txt').write_text('x')
    with pytest.raises(InputError, match=r"class 'b' has no image in .*images/b"):
        load(root)
    (images / 'b' / 'notes.txt').unlink()
    (images / 'b').rmdir()
    with pytest.raises(InputError, match="has class 'b', but there is no such folder"):
        load(root)
    images.rename(tmp_path / 'elsewhere')
    with pytest.raises(InputError, match='no folder images'):
        load(root)
    images.symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(InputError, match='images is a link out of the directory'):
        load(root)


def test_links_out_of_the_directory_are_refused(root, tmp_path):
    paint(tmp_path / 'secret.png', 9)
    (root / 'images' / 'b' / '00.png').unlink()
    (root / 'images' / 'b' / '00.png').symlink_to(tmp_path / 'secret.png')
    with pytest.raises(InputError, match=r'b/00.png is a link out of the directory'):
        load(root)


def test_damaged_images_are_named_or_skipped(root, caplog):
    (root / 'images' / 'b' / '01.png').write_bytes(b'\x89PNG')
    (root / 'images' / 'e' / '03.png').write_text('no image')
    with pytest.raises(InputError, match=r"images/\w/0\d.png .*on_error='skip'"):
        load(root)
    with caplog.at_level(logging.INFO, 'absl'):
        data = load(root, on_error='skip', held_out=True)
    assert (
        contents(data['test'])['e'] == grey('e')[:3]
        and '2 images skipped, damaged or unreadable' in caplog.text
    )
    assert contents(data['test_seen'])['b'] == grey('b', 4)
    (root / 'images' / 'b' / '04.png').write_bytes(b'')
    with pytest.raises(InputError, match=r"'test_seen/b' in .* has no readable image"):
        load(root, on_error='skip', held_out=True)


def test_images_and_folders_that_are_not_listed(root, change, caplog):
    paint(root / 'images' / 'g' / '0.png', 1)
    change(lambda content, b: b['files'].pop())
    with caplog.at_level(logging.WARNING, 'absl'):
        data = load(root, val_seed=2)
    assert "classes.json has no class 'g'" in caplog.text
    assert '1 images that classes.json does not list' in caplog.text
    both = {**contents(data['train']), **contents(data['val'])}
    assert both['b'] == grey('b')[:-1] and 'g' not in both
    change(lambda content, b: [c.pop('files') and c.pop('folder') for c in content['classes']])
    both = {**contents((data := load(root))['train']), **contents(data['val'])}
    assert both['b'] == grey('b')


def test_nearly_the_same_name_in_two_roles_is_refused(root, change):
    (root / 'images' / 'e').rename(root / 'images' / 'B')
    fields = {'name': 'B', 'folder': 'images/B', 'files': None}
    change(lambda content, b: content['classes'][4].update(fields))
    with pytest.raises(InputError, match="'b' and test/'B'"):
        load(root)


@pytest.fixture(scope='module')
def real(data_dir):
    if not (data_dir / 'industrial' / 'MSD' / 'classes.json').is_file():
        pytest.skip(f'no industrial/MSD in {data_dir}')
    return data_dir / 'industrial'


SETS = {
    'A': ({'Rs', 'Sca', 'dirty_spot', 'jet_flow', 'rub_mark'}, 212),
    'B': ({'dirty_spot', 'indentation', 'jet_flow', 'orange_peel', 'rub_mark'}, 205),
    'C': ({'Ld', 'Rs', 'bump', 'dirty_spot', 'rub_mark'}, 50 + 50 + 28 + 45 + 25),
    'D': ({'bump', 'convexity', 'dirty_spot', 'jet_flow', 'rub_mark'}, 185),
}


@pytest.mark.parametrize('classes', SETS)
def test_class_sets_of_msd(real, classes):
    data = load(real, set='MSD', classes=classes, size=2, val=5, held_out=classes in 'AB')
    novel, num = SETS[classes]
    assert set(data['test'].names) == novel and len(data['test'].x) == num
    assert [len(data[role].names) for role in ('train', 'val', 'test')] == [10, 5, 5]
    assert len({n for role in ('train', 'val', 'test') for n in data[role].names}) == 20
    assert sum(len(d.x) for d in data.values()) == 872
    assert all(text for d in data.values() for text in d.texts)
    if classes == 'A':
        assert len(data['test_seen'].x) == 115
        counts = dict(zip(data['test_seen'].names, data['test_seen'].count.tolist(), strict=True))
        assert counts['blister'] == 2 and counts['indentation'] == 8 and counts['Ps'] == 10
    if classes == 'B':
        assert data['test_seen'].names == data['train'].names + data['val'].names
        assert 0.18 * 667 < len(data['test_seen'].x) < 0.22 * 667


def test_real_textures(real):
    data = load(real / 'KTD', set='KTD', size=2, val=5, held_out=True)
    assert {r: len(d.x) for r, d in data.items()} == {
        'train': 170, 'val': 85, 'test': 100, 'test_seen': 45,
    }  # fmt: skip
    assert data['test'].names[0] == 'seat1-without-rotations'
    assert data['test'].texts[0].startswith('seat1: Soft, breathable')
    with pytest.raises(InputError, match=r"20 classes of MSD, and 'KTD' has others"):
        load(real, set='KTD', classes='C', val=5)
