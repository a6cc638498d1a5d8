"""Weak-shot data: made wrong on purpose, from folders, and in the layouts of published sets."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from anyshot_jax import config as configs
from anyshot_jax.data import noisy, weak
from anyshot_jax.data.noise import corrupt
from anyshot_jax.data.readers import weak as layouts
from anyshot_jax.data.readers import webvision as webvision_reader
from anyshot_jax.types import InputError


def test_half_of_the_wrong_labels_are_in_vocabulary():
    label = np.repeat(np.arange(5), 20)
    got = corrupt(np.random.default_rng(0), label, 0.4, num_outside=30)
    assert (~got.clean).sum() == 40  # 8 of every 20
    assert got.stranger.sum() == 20 and (got.label != label).sum() == 20
    assert not (got.stranger & (got.label != label)).any()
    np.testing.assert_array_equal(got.clean, ~(got.stranger | (got.label != label)))
    rows = got.row[got.stranger]
    assert len(set(rows.tolist())) == 20 and rows.max() < 30
    np.testing.assert_array_equal(got.row[~got.stranger], np.flatnonzero(~got.stranger))
    for c in range(5):  # of each class as many are taken
        assert (~got.clean[label == c]).sum() == 8


def test_a_half_of_an_odd_number_is_drawn_by_lot():
    label = np.repeat(np.arange(200), 5)  # one wrong of five
    got = corrupt(np.random.default_rng(1), label, 0.2, num_outside=200)
    assert 70 < got.stranger.sum() < 130 and (~got.clean).sum() == 200


def test_no_noise_changes_nothing():
    label = np.repeat(np.arange(3), 4)
    got = corrupt(np.random.default_rng(0), label, 0.0, num_outside=0)
    assert got.clean.all() and not got.stranger.any()
    np.testing.assert_array_equal(got.label, label)


def test_names_of_wrong_labels_are_uniform():
    label = np.repeat(np.arange(3), 1000)
    got = corrupt(np.random.default_rng(2), label, 0.9, num_outside=1400)
    moved = got.label != label
    given = [(got.label[moved & (label == 0)] == c).sum() for c in (1, 2)]
    assert sum(given) == 450 and min(given) > 180


@pytest.mark.parametrize(
    ('share', 'outside', 'label', 'message'),
    [
        (1.0, 9, [0, 1], r'config\.data\.noise=1\.0'),
        (0.5, 9, [0, 0], 'two classes'),
        (0.9, 1, [0] * 10 + [1] * 10, r'are kept for that: raise config\.data\.outside'),
    ],
)
def test_noise_that_can_not_be_made(share, outside, label, message):
    with pytest.raises(InputError, match=message):
        corrupt(np.random.default_rng(0), np.array(label), share, outside)


def config_of(**fields):
    config = configs.defaults('simnet', 'noisy').data
    config.source = 'synthetic'
    config.source_fields = (
        ('kind', 'features'), ('num_classes', (6, 3, 4)), ('per_class', (20, 20)),
    )  # fmt: skip
    config.update(fields)
    return config


def test_roles_of_a_noisy_set():
    data = noisy.load(config_of()).roles
    assert {r: len(d.count) for r, d in data.items()} == {
        'base': 9, 'web': 4, 'test': 4, 'test_base': 9,
    }  # fmt: skip
    assert data['web'].names == data['test'].names
    assert data['base'].names == data['test_base'].names
    sizes = {r: len(d.label) for r, d in data.items()}
    assert sizes == {'base': 9 * 16, 'test_base': 9 * 2, 'web': 40, 'test': 40}
    assert (~data['web'].clean).sum() == 16 and data['test'].clean is None
    # No item is in two roles.
    items = [row.tobytes() for d in data.values() for row in np.asarray(d.x)]
    assert len(set(items)) == len(items)


def test_truth_is_the_truth():
    """`clean` says what the source's own classes say."""
    config = config_of(noise=0.6)
    source = configs.find('data', 'synthetic').load(noisy.source_config(config))
    known = {row.tobytes(): n for d in source.roles.values()
             for row, n in zip(d.x, np.array(d.names)[d.label], strict=True)}  # fmt: skip
    web = noisy.load(config).roles['web']
    true = [known[row.tobytes()] for row in web.x]
    np.testing.assert_array_equal(web.clean, np.array(true) == np.array(web.names)[web.label])


def test_same_seed_same_data_other_seed_other_noise():
    first, again, other = (noisy.load(config_of(noise_seed=s)).roles['web'] for s in (0, 0, 1))
    np.testing.assert_array_equal(first.x, again.x)
    np.testing.assert_array_equal(first.clean, again.clean)
    assert (first.clean != other.clean).any()


def test_choosing_never_sees_the_novel_classes():
    source = noisy.load(config_of()).roles
    chosen = noisy.load(config_of(validation='novel')).roles
    assert len(chosen['web'].count) == 3 and len(chosen['base'].count) == 6
    assert not set(chosen['web'].names) & set(source['web'].names)


def test_a_noisy_hold_out():
    data = noisy.load(config_of(hold_out=0.2)).roles
    assert len(data['val'].label) + len(data['web'].label) == 40
    assert data['val'].clean is not None and data['val'].names == data['web'].names


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'web': 1.0}, r'config\.data\.web must lie between'),
        ({'outside': -0.1}, r'config\.data\.outside'),
        ({'validation': 'novell'}, "did you mean 'novel'"),
        (
            {'source_fields': (('kinds', 'features'),)},
            "source_fields: 'kinds'; did you mean 'kind'",
        ),
        ({'source_fields': (('turns', 4),)}, 'rotated classes'),
        (
            {'source_fields': (('per_class', (1, 1)),)},
            r"class 'train class 0' has 1 items, too few",
        ),
        ({'source': 'sinthetic'}, "did you mean 'synthetic'"),
    ],
)
def test_fields_that_can_not_be_used(fields, message):
    with pytest.raises(InputError, match=message):
        noisy.load(config_of(**fields))


# From folders.


def write(path, value, size=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(value)
    Image.fromarray(rng.integers(0, 255, (size, size, 3), dtype=np.uint8)).save(path)


def tree(root):
    number = 0
    for role, classes in {'base': 'ab', 'web': 'xy', 'test': 'abxy'}.items():
        for c in classes:
            for i in range(4):
                number += 1
                write(root / role / c / f'{i}.png', number)
    return root


def load(root, **fields):
    config = configs.defaults('simnet', 'weak').data
    config.update({'dir': str(root), 'size': 8, **fields})
    return weak.load(config).roles


def test_folders(tmp_path):
    data = load(tree(tmp_path))
    assert {r: d.names for r, d in data.items()} == {
        'base': ('a', 'b'), 'test': ('x', 'y'), 'test_base': ('a', 'b'), 'web': ('x', 'y'),
    }  # fmt: skip
    want = np.asarray(Image.open(tmp_path / 'test' / 'y' / '2.png'))
    np.testing.assert_array_equal(data['test'].x[6], want)
    assert data['web'].clean is None and 'val' not in data


def test_hold_out_of_folders(tmp_path):
    data = load(tree(tmp_path), hold_out=0.5)
    np.testing.assert_array_equal(data['val'].count, [2, 2])
    both = {x.tobytes() for x in data['val'].x} | {x.tobytes() for x in data['web'].x}
    assert len(both) == 8


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda r: (r / 'web').rename(r / 'net'), "has no folder 'web'"),
        (lambda r: (r / 'web' / 'x').rename(r / 'web' / 'a'), "'a' stands in base and in web"),
        (lambda r: (r / 'test' / 'y').rename(r / 'aside'), "web class 'y' has no folder in test"),
        (lambda r: (r / 'web' / 'x').rename(r / 'web' / 'A '), "'A ' is base class 'a' in another"),
        (
            lambda r: [
                (r / 'web' / 'x' / f'{i}.png').write_bytes(
                    (r / 'base' / 'b' / f'{i}.png').read_bytes()
                )
                for i in (1, 2)
            ],
            "2 of 4 images of web class 'x' are images of base classes, most of them of 'b'",
        ),
        (lambda r: (r / 'web' / 'y').rename(r / 'aside'), "test class 'y' stands neither in base"),
        (
            lambda r: (r / 'test' / 'b').rename(r / 'aside'),
            '1 base classes have test images, of 2',
        ),
        (lambda r: (r / 'web' / 'x' / '1.png').write_bytes(b'no'), '1.png'),
    ],
)
def test_folders_that_do_not_fit(tmp_path, change, message):
    change(tree(tmp_path))
    with pytest.raises(InputError, match=message):
        load(tmp_path)


def test_names_of_one_class_in_two_spellings(tmp_path):
    files = lambda base, web: {('base', base): [], ('web', web): [], ('test', web): []}
    for base, web in (('Red Fox', 'red_fox'), ("baker's rack", 'BAKERS-RACK'), ('\ufb01g', 'fig')):
        with pytest.raises(InputError, match='in another spelling'):
            layouts.check(files(base, web), tmp_path)
    for base, web in (('C', 'C++'), ('C', 'C#'), ('fox', 'foxes')):
        layouts.check(files(base, web), tmp_path)


def test_a_web_image_that_is_a_test_image_is_refused(tmp_path):
    tree(tmp_path)
    (tmp_path / 'web' / 'x' / 'copy.png').symlink_to(tmp_path / 'test' / 'x' / '0.png')
    with pytest.raises(InputError, match='is also in'):
        load(tmp_path)


def test_far_from_the_test():
    web, test = np.array([[0.0], [3.0], [10.0], [0.5]]), np.array([[1.0], [8.0], [0.0]])
    label, test_label = np.array([0, 0, 0, 1]), np.array([0, 0, 1])
    # Nearest test items of their own class: 1, 2, 2 and 0.5 away.
    far = weak.far_from_test(web, label, test, test_label, distance=1.5)
    np.testing.assert_array_equal(far, [False, True, True, False])
    kept = weak.far_from_test(web, label, test, test_label, distance=0, keep=1)
    np.testing.assert_array_equal(kept, [False, True, False, True])


# The official lists, on synthetic files in their formats.


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(rows) + '\n')


def test_cub(tmp_path):
    lines(tmp_path / 'classes.txt', [f'{c} {c:03d}.Bird' for c in (1, 4)])
    images = [(1, '001.Bird/a.png', 1, 1), (2, '001.Bird/b.png', 1, 0),
                (3, '004.Bird/c.png', 4, 1), (4, '004.Bird/d.png', 4, 0)]  # fmt: skip
    lines(tmp_path / 'images.txt', [f'{i} {p}' for i, p, _, _ in images])
    lines(tmp_path / 'image_class_labels.txt', [f'{i} {c}' for i, _, c, _ in images])
    lines(tmp_path / 'train_test_split.txt', [f'{i} {t}' for i, _, _, t in images])
    for i, p, _, _ in images:
        write(tmp_path / 'images' / p, i)
    write(tmp_path / 'web' / '004.Bird' / 'w.png', 9)
    files, _ = layouts.find(tmp_path, 'cub')
    assert {k: [p.name for p in v] for k, v in files.items()} == {
        ('base', '001.Bird'): ['a.png'], ('test', '001.Bird'): ['b.png'],
        ('test', '004.Bird'): ['d.png'], ('web', '004.Bird'): ['w.png'],
    }  # fmt: skip
    data = load(tmp_path, layout='cub')
    assert data['web'].names == ('004.Bird',) and len(data['base'].label) == 1
    assert len(layouts.CUB_NOVEL) == 50 and len(layouts.AIRCRAFT_NOVEL) == 25


def test_car(tmp_path):
    """Of sorted models every fourth is novel, the first among them."""
    for part in ('train', 'test'):
        rows = [f'9/{m}/2012/{part}.png' for m in (30, 11, 12, 13)]
        lines(tmp_path / 'train_test_split' / 'classification' / f'{part}.txt', rows)
        for i, row in enumerate(rows):
            write(tmp_path / 'image' / row, i)
    write(tmp_path / 'web' / '11' / 'w.png', 9)
    data = load(tmp_path, layout='car')
    assert data['base'].names == ('12', '13', '30') and data['test'].names == ('11',)


def test_aircraft(tmp_path):
    lines(tmp_path / 'images_variant_trainval.txt', ['001 F-16A/B', '002 DC-3', '003 DC-3'])
    lines(tmp_path / 'images_variant_test.txt', ['004 F-16A/B', '005 DC-3'])
    for i in range(1, 6):
        write(tmp_path / 'images' / f'{i:03d}.jpg', i)
    novel = sorted(layouts.AIRCRAFT_NOVEL)
    slashed = [n for n in novel if '/' in n]
    assert slashed  # a folder is called by _ instead
    files, _ = layouts._aircraft(tmp_path)
    assert ('002.jpg', 'DC-3', True) in [(p.name, n, t) for p, n, t in files]


@pytest.mark.parametrize('layout', ['cub', 'car', 'aircraft'])
def test_lists_that_are_not_there(tmp_path, layout):
    with pytest.raises(InputError, match=r'\.txt cannot be read'):
        layouts.find(tmp_path, layout)


# WebVision beside ImageNet: a tree in their formats.


def mat(path, synsets):
    """meta.mat as MATLAB writes it: an array of structures [n, 1]."""
    fields = [('ILSVRC2012_ID', object), ('WNID', object), ('words', object)]
    rows = np.empty((len(synsets), 1), fields)
    for i, (number, wnid) in enumerate(synsets):
        rows[i, 0] = (np.array([[number]], np.float64), wnid, 'some words')
    savemat(path, {'synsets': rows}, do_compression=True)


def webvision(root, short=True):
    wnids = ['n01', 'n02', 'n03', 'n04']
    clean, web = root / 'ImageNet', root / 'WebVision'
    names = [f'train/{w}/{w}_{i}.png' for w in wnids for i in range(3)]
    lines(clean / 'train_files.txt', [f'{n},{n.split("/")[1]}' for n in names])
    for i, name in enumerate(names):
        write(clean / name, i)
    # Numbers of classes are in another order than their names.
    mat(clean / 'meta.mat', [(2, 'n01'), (1, 'n02'), (4, 'n03'), (3, 'n04')])
    lines(clean / 'ILSVRC2012_validation_ground_truth.txt', list('21432'))
    for i in range(1, 6):
        write(clean / 'val' / f'ILSVRC2012_val_{i:08d}.png', 50 + i)
    lines(web / 'info' / 'synsets.txt', [f'{w} what it is, another' for w in wnids])
    lines(web / 'info' / 'queries_synsets_map.txt', ['1 1', '2 1', '3 2', '4 3', '5 4'])
    listed = [('google/q0001/a.png', 0), ('flickr/q0002/b.png', 0), ('google/q0003/c.png', 1),
              ('google/q0004/d.png', 2), ('google/q0003/e.png', 1)]  # fmt: skip
    for i, (name, _) in enumerate(listed):
        write((web / 'subset118' if short else web) / name, 80 + i)
    if short:
        lines(web / 'train_files_118.txt', [f'{n} {s}' for n, s in listed])
    for source in () if short else ('google', 'flickr'):
        own = [f'{n} {s}' for n, s in listed if n.startswith(source)]
        lines(web / 'info' / f'train_filelist_{source}.txt', own)
    lines(root / 'novel.txt', ['n01', 'n02'])
    return root


@pytest.mark.parametrize('short', [True, False])
def test_webvision(tmp_path, short):
    files, _ = layouts.find(webvision(tmp_path, short), 'webvision')
    assert {k: sorted(p.name for p in v) for k, v in files.items()} == {
        ('base', 'n03'): ['n03_0.png', 'n03_1.png', 'n03_2.png'],
        ('base', 'n04'): ['n04_0.png', 'n04_1.png', 'n04_2.png'],
        ('web', 'n01'): ['a.png', 'b.png'],
        ('web', 'n02'): ['c.png', 'e.png'],
        ('test', 'n01'): ['ILSVRC2012_val_00000001.png', 'ILSVRC2012_val_00000005.png'],
        ('test', 'n02'): ['ILSVRC2012_val_00000002.png'],
        ('test', 'n03'): ['ILSVRC2012_val_00000003.png'],
        ('test', 'n04'): ['ILSVRC2012_val_00000004.png'],
    }
    data = load(tmp_path, layout='webvision', per_class=1)
    assert data['web'].names == ('n01', 'n02') and data['base'].count.tolist() == [1, 1]
    assert data['test'].count.tolist() == [2, 1]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda r: (r / 'ImageNet' / 'meta.mat').write_bytes(b'no'), r'meta\.mat cannot be read'),
        (lambda r: mat(r / 'ImageNet' / 'meta.mat', [(9, 'n01')]), r'not in meta\.mat|no wnid of'),
        (lambda r: lines(r / 'novel.txt', ['n99']), r"novel\.txt: 'n99' is no wnid"),
        (lambda r: lines(r / 'base.txt', ['n01']), 'n01 stands in base.txt and in novel.txt'),
        (
            lambda r: lines(r / 'WebVision' / 'train_files_118.txt', ['google/q0001/a.png 3']),
            'of another synset',
        ),
        (
            lambda r: lines(r / 'ImageNet' / 'train_files.txt', ['../../x.png,n03']),
            r"'\.\./\.\./x\.png' lies outside",
        ),
        (
            lambda r: lines(r / 'ImageNet' / 'ILSVRC2012_validation_ground_truth.txt', ['2']),
            'the number of one of 1 lines',
        ),
        (lambda r: (r / 'WebVision' / 'info' / 'synsets.txt').unlink(), r'synsets\.txt cannot'),
        (
            lambda r: lines(r / 'WebVision' / 'info' / 'synsets.txt', ['n01 a', '', 'n02 b']),
            r'synsets\.txt:2 is blank, which moves the lines after it',
        ),
        (
            lambda r: lines(
                r / 'WebVision' / 'train_files_118.txt', [f'google/q1/a.png {"9" * 5000}']
            ),
            'is no image of a query and a synset',
        ),
    ],
)
def test_webvision_that_does_not_fit(tmp_path, change, message):
    change(webvision(tmp_path))
    with pytest.raises(InputError, match=message):
        layouts.find(tmp_path, 'webvision')


def test_a_meta_file_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    savemat(tmp_path / 'meta.mat', {'synsets': np.zeros(10**5)}, do_compression=True)
    monkeypatch.setattr(webvision_reader, 'MAX_META', 10**5)
    assert (tmp_path / 'meta.mat').stat().st_size < 10**4
    with pytest.raises(InputError, match='unpacks to more than 100,000 bytes'):
        webvision_reader.read_meta(tmp_path / 'meta.mat')
    monkeypatch.setattr(webvision_reader, 'MAX_META', 10**7)
    monkeypatch.setattr(webvision_reader, 'MAX_SYNSETS', 1000)
    with pytest.raises(InputError, match='an array of 100,000 entries'):
        webvision_reader.read_meta(tmp_path / 'meta.mat')


def test_looking_for_copies_keeps_no_second_set():
    base = np.random.default_rng(0).integers(0, 256, (100, 64, 64, 3), np.uint8)
    label = np.repeat(range(4), 25)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"3 of 4 images of web class 'x' .* most of them of 'b'"):
        web = np.concatenate([base[25:28], 255 - base[:1]])
        weak.refuse_copies(base, label, list('abcd'), web, np.zeros(4, int), ['x'])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < base.nbytes / 4


def test_more_images_than_memory_are_refused_before_they_are_read(tmp_path):
    with pytest.raises(InputError, match=r'take 0 GB, more than config\.data\.max_bytes=1,000'):
        load(tree(tmp_path), max_bytes=1000)
