"""A category of images with defects: both layouts, masks, groups, and what broken files get."""

import csv
import logging
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from anyshot_jax import config as configs
from anyshot_jax.data import mvtec
from anyshot_jax.episodes.sampling import expand_turns
from anyshot_jax.types import InputError, from_arrays


def load(root, **fields):
    data = configs.defaults('knn', 'mvtec').data
    data.update({'dir': str(root), 'size': 8, 'channels': 1, **fields})
    return mvtec.load(data).roles


def paint(path, value, size=(8, 8), mode='L', box=None):
    """An image of one grey value, with a white box if there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new(mode, size, value)
    if box:
        image.paste(255, box)
    image.save(path)


@pytest.fixture
def root(tmp_path):
    """Normal images of grey 10, 11, 12 and (test) 20; scratches 30, 31; dents 40, 41, 42."""
    root = tmp_path / 'cap'
    for i in range(3):
        paint(root / f'train/good/{i:03}.png', 10 + i)
    paint(root / 'test/good/000.png', 20)
    for kind, first, num in (('scratch', 30, 2), ('dent', 40, 3)):
        for i in range(num):
            paint(root / f'test/{kind}/{i:03}.png', first + i)
            box = (0, i, 4, i + 2)
            paint(root / f'ground_truth/{kind}/{i:03}_mask.png', 0, box=box)
    return root


@pytest.fixture
def manifest(root):
    """A function: writes manifest.csv; edit(rows) may change them. A tile is two normal images."""

    def write(edit=lambda rows: None, columns=('path', 'split', 'class', 'mask', 'tile')):
        rows = []
        for file in sorted(root.rglob('*.png')):
            split, kind, name = file.relative_to(root).parts
            if split == 'ground_truth':
                continue
            mask = f'ground_truth/{kind}/{file.stem}_mask.png' if kind != 'good' else ''
            tile = {'good': 'g' + split, 'scratch': f's{name}', 'dent': 'd'}[kind]
            row = [f'{split}/{kind}/{name}', split, kind, mask, tile]
            rows.append(dict(zip(('path', 'split', 'class', 'mask', 'tile'), row, strict=True)))
        edit(rows)
        with open(root / 'manifest.csv', 'w', newline='') as f:
            writer = csv.DictWriter(f, columns, extrasaction='ignore')
            writer.writeheader()
            writer.writerows(rows)

    return write


def greys(dataset):
    """{class: grey values of the items' middle}."""
    middle = dataset.x[:, 4, 4, 0]
    return {n: middle[dataset.label == c].tolist() for c, n in enumerate(dataset.names)}


def test_layout_of_mvtec_ad(root):
    data = load(root)
    assert {r: greys(d) for r, d in data.items()} == {
        'good': {'good': [10, 11, 12]},
        'good_test': {'good': [20]},
        'test': {'dent': [40, 41, 42], 'scratch': [30, 31]},
    }
    assert data['test'].x.shape == (5, 8, 8, 1) and data['test'].x.dtype == np.uint8
    assert data['good'].mask is None and data['good_test'].mask is None
    assert data['test'].mask.dtype == bool and data['test'].mask.shape == (5, 8, 8)
    for i, row in enumerate((0, 1, 2, 0, 1)):  # by hand: see the fixture
        want = np.zeros((8, 8), bool)
        want[row : row + 2, :4] = True
        np.testing.assert_array_equal(data['test'].mask[i], want)
    groups = np.concatenate([d.group for d in data.values()])
    assert len(set(groups.tolist())) == 9  # every image is its own
    assert load(root, channels=3)['good'].x.shape == (3, 8, 8, 3)


def test_layout_of_mvtec_3d(root, tmp_path):
    other = tmp_path / 'bagel'
    for file in root.rglob('*.png'):
        split, kind, name = file.relative_to(root).parts
        if split == 'ground_truth':
            new = other / 'test' / kind / 'gt' / name.replace('_mask', '')
        else:
            new = other / split / kind / 'rgb' / name
        new.parent.mkdir(parents=True, exist_ok=True)
        file.rename(new)
    paint(other / 'test/good/gt/000.png', 0)
    paint(other / 'validation/good/rgb/000.png', 50)
    (other / 'test/dent/xyz').mkdir()
    (other / 'test/dent/xyz/000.tiff').write_bytes(b'II*\0 points, which are not read')
    data = load(other)
    assert greys(data['test']) == {'dent': [40, 41, 42], 'scratch': [30, 31]}
    assert greys(data['good']) == {'good': [10, 11, 12]} and greys(data['good_test'])
    assert data['test'].mask.sum((1, 2)).tolist() == [8] * 5
    assert data['test'].mask[2, 2:4, :4].all() and data['good_test'].mask is None


def test_empty_masks_and_none(root):
    paint(root / 'ground_truth/dent/001_mask.png', 0)
    assert load(root)['test'].mask.sum((1, 2)).tolist() == [8, 0, 8, 8, 8]
    for file in (root / 'ground_truth').rglob('*.png'):
        file.unlink()
    assert load(root)['test'].mask is None


def test_a_missing_mask_is_named(root):
    (root / 'ground_truth/scratch/001_mask.png').unlink()
    with pytest.raises(InputError, match=r'test/scratch/001\.png has no mask.*all black'):
        load(root)
    paint(root / 'ground_truth/scratch/001_mask.png', 0, size=(8, 9))
    with pytest.raises(InputError, match=r'001_mask\.png has 8 x 9 pixels, but its image 8 x 8'):
        load(root)


def test_masks_of_every_kind(root):
    """0 and 1, 0 and 255, greys of JPEG: what is above half of the largest value."""
    ones = np.zeros((8, 8), np.uint8)
    ones[2:5, 3:6] = 1
    Image.fromarray(ones).save(root / 'ground_truth/dent/000_mask.png')
    Image.fromarray(ones * 255).save(root / 'ground_truth/dent/001_mask.png')
    soft = ones * 220
    soft[ones == 0] = 90
    Image.fromarray(soft).convert('RGB').save(root / 'ground_truth/dent/002_mask.png')
    mask = load(root)['test'].mask
    for i in range(3):
        np.testing.assert_array_equal(mask[i], ones > 0)


def test_grey_colour_sixteen_bits_and_formats(root):
    deep = np.full((8, 8), 0x8000, np.uint16)  # half of the range of 16 bits
    deep[0] = 65535
    for name in ('003.png', '004.tif'):
        Image.fromarray(deep).save(root / 'train/good' / name)
    for name in ('005.bmp', '006.jpg'):
        paint(root / 'train/good' / name, 77)
    paint(root / 'train/good/007.PNG', (100, 100, 100), mode='RGB')
    (root / 'train/good/notes.txt').write_text('passed over')
    x = load(root)['good'].x
    assert x[:, 4, 4, 0].tolist() == [10, 11, 12, 128, 128, 77, 77, 100]
    assert (x[3, 0] == 255).all() and (x[4, 0] == 255).all()


def test_fit(root):
    """An image of 4 x 8 whose left half is 0 and right half 200."""
    halves = np.repeat(np.array([[0] * 4 + [200] * 4], np.uint8), 4, 0)
    for file in (root / 'test/dent').iterdir():
        Image.fromarray(halves).save(file)
    for file in (root / 'ground_truth/dent').iterdir():
        Image.fromarray((halves > 0).astype(np.uint8) * 255).save(file)
    data = load(root)['test']
    assert (data.x[0, :, 0] == 0).all() and (data.x[0, :, -1] == 200).all()  # nothing is lost
    np.testing.assert_array_equal(data.mask[0], np.repeat(np.arange(8)[None] >= 4, 8, 0))
    # Shorter side to 4: 4 x 8 as it is, of which the middle 2 x 2 is rows 1-2, columns 3-4.
    data = load(root, fit='crop', size=4, crop=2)['test']
    assert data.x.shape == (5, 2, 2, 1)
    np.testing.assert_array_equal(data.x[0, ..., 0], [[0, 200]] * 2)
    np.testing.assert_array_equal(data.mask[0], [[False, True]] * 2)


def test_one_type_of_defect_is_refused(root):
    for file in (*(root / 'test/scratch').iterdir(), *(root / 'ground_truth/scratch').iterdir()):
        file.unlink()
    with pytest.raises(InputError, match=r'1 type of defect \(dent\): there is nothing to tell'):
        load(root)
    assert load(root, detect_only=True)['test'].names == ('dent',)
    for file in (*(root / 'test/dent').iterdir(), *(root / 'ground_truth/dent').iterdir()):
        file.unlink()
    with pytest.raises(InputError, match='has 0 types of defect'):
        load(root)


def test_manifest_gives_groups_and_masks(root, manifest, caplog):
    def edit(rows):
        rows.pop(0)  # the first dent
        rows[0]['mask'] = 'ground_truth/dent/002_mask.png'

    manifest(edit)
    with caplog.at_level(logging.WARNING, 'absl'):
        data = load(root)
    assert 'manifest.csv does not list 1 images' in caplog.text
    assert greys(data['test']) == {'dent': [41, 42], 'scratch': [30, 31]}
    assert data['test'].mask[0, 2:4, :4].all()
    # Sorted names of the groups: d, gtest, gtrain, s000.png, s001.png.
    assert data['test'].group.tolist() == [0, 0, 3, 4] and data['test'].group.dtype == np.int32
    assert data['good'].group.tolist() == [2] * 3 and data['good_test'].group.tolist() == [1]
    assert len(set(load(root, group='')['good'].group.tolist())) == 3


def test_groups_of_two_types_are_left_out(root, manifest, caplog):
    def edit(rows):
        rows[0]['tile'] = rows[-1]['tile'] = 'x'
        assert (rows[0]['class'], rows[-1]['split']) == ('dent', 'train')
        scratch = next(row for row in rows if row['class'] == 'scratch')
        scratch['tile'] = 'x'

    manifest(edit)
    with caplog.at_level(logging.WARNING, 'absl'):
        data = load(root)
    assert 'left out 2 images whose tile shows more than one type' in caplog.text
    assert 'x (dent+scratch)' in caplog.text
    assert greys(data['test']) == {'dent': [41, 42], 'scratch': [31]}
    assert len(load(root, drop_ambiguous=False)['test'].x) == 5


def test_groups_that_all_types_share_are_not_odd(root, manifest):
    def edit(rows):
        for row in rows:
            row['tile'] = 'part'

    manifest(edit)
    with pytest.raises(InputError, match=r'types of defect share almost every tile.*leaves 0 of 5'):
        load(root)
    assert load(root, drop_ambiguous=False)['test'].names == ('dent', 'scratch')


def test_one_type_is_enough_where_defects_are_only_found(root, manifest):
    """All dents share their tile with one of the two scratches."""

    def edit(rows):
        scratches = [row for row in rows if row['class'] == 'scratch']
        for row in (scratches[0], *(row for row in rows if row['class'] == 'dent')):
            row['tile'] = 'x'

    manifest(edit)
    assert load(root, detect_only=True)['test'].names == ('scratch',)
    with pytest.raises(InputError, match='leaves 1 of 5 images'):
        load(root)


@pytest.mark.parametrize('change, message', [
    ({'path': '../../etc/passwd'}, r"line 2: '../../etc/passwd' is no image in .*'test/dent"),
    ({'path': '/etc/passwd'}, "line 2: '/etc/passwd' is no image"),
    ({'path': 'test/dent/../dent/000.png'}, 'line 2: .* is no image'),
    ({'path': 'test/dent/999.png'}, r"line 2: 'test/dent/999\.png' is no image"),
    ({'path': 'x' * 10**5}, r"line 2: 'x{76}\.\.\. is no image"),
    ({'class': 'hole'}, "line 2: class is 'hole', but test/dent/000.png lies in test/dent"),
    ({'split': 'train'}, "line 2: split is 'train', but test/dent/000.png lies in test/dent"),
    ({'mask': 'ground_truth/dent/9_mask.png'}, "'ground_truth/dent/9_mask.png' is no mask in"),
    ({'mask': '../secret.png'}, "'../secret.png' is no mask in"),
    ({'mask': 'test/dent/000.png'}, "'test/dent/000.png' is no mask in"),
    ({'mask': ''}, r'dent/000\.png has no mask'),
    ({'tile': ' '}, 'line 2: tile is empty'),
])  # fmt: skip
def test_a_strange_manifest_is_refused(root, manifest, change, message):
    manifest(lambda rows: rows[0].update(change))
    with pytest.raises(InputError, match=message):
        load(root)


def test_manifests_that_are_none(root, manifest, tmp_path):
    manifest(lambda rows: rows.append(rows[0]))
    with pytest.raises(InputError, match=r'line 11: test/dent/000\.png is listed twice'):
        load(root)
    manifest(list.clear)
    with pytest.raises(InputError, match='lists no image'):
        load(root)
    manifest(lambda rows: rows.__delitem__(slice(-3, None)))
    with pytest.raises(InputError, match='has no image in train/good'):
        load(root)
    manifest(columns=('path', 'split', 'class', 'mask'))
    with pytest.raises(InputError, match=r"no column 'tile'.*--config.data.group=COLUMN"):
        load(root)
    assert load(root, group='')
    manifest(columns=('path', 'split', 'clas', 'mask', 'tile'))
    with pytest.raises(InputError, match="no column 'class'; did you mean 'clas'"):
        load(root)
    for content in (b'path\xff', b'path,split,class,mask,tile\n"a', b'p' * 200_000):
        (root / 'manifest.csv').write_bytes(content)
        with pytest.raises(
            InputError, match=r'manifest\.csv (is not a readable table|has no column)'
        ):
            load(root)
    (root / 'manifest.csv').write_text('path,split,class,mask,tile\ntest/dent/000.png,test\n')
    with pytest.raises(InputError, match='line 2: expected 5 values'):
        load(root)
    os.truncate(root / 'manifest.csv', 10**9)  # a hole, which takes no space
    with pytest.raises(InputError, match='larger than'):
        load(root)
    (root / 'manifest.csv').unlink()
    (tmp_path / 'm.csv').write_text('path')
    (root / 'manifest.csv').symlink_to(tmp_path / 'm.csv')
    with pytest.raises(InputError, match=r'manifest\.csv is a link out of the directory'):
        load(root)


def test_links_out_of_the_directory_are_refused(root, tmp_path):
    paint(tmp_path / 'secret.png', 1)
    (root / 'test/dent/009.png').symlink_to(tmp_path / 'secret.png')
    with pytest.raises(InputError, match=r'009\.png is a link out of the directory'):
        load(root)
    (root / 'test/dent/009.png').unlink()
    (root / 'ground_truth').rename(tmp_path / 'elsewhere')
    (root / 'ground_truth').symlink_to(tmp_path / 'elsewhere')
    with pytest.raises(InputError, match='ground_truth is a link out of the directory'):
        load(root)


def test_damaged_and_huge_images_are_named(root):
    good = root / 'train/good/001.png'
    with pytest.raises(InputError, match=r'00\d.png has 8 x 8 pixels, more than .*max_pixels = 63'):
        load(root, max_pixels=63)
    content = good.read_bytes()
    at = content.index(b'IDAT') + 6
    good.write_bytes(content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :])
    with pytest.raises(InputError, match=r'001\.png is damaged'):
        load(root)
    good.write_bytes(content)
    (root / 'ground_truth/dent/000_mask.png').write_bytes(b'')
    with pytest.raises(InputError, match=r'000_mask\.png is not an image'):
        load(root)


def test_folders_that_are_none(root, tmp_path):
    paint(root / 'train/bad/000.png', 1)
    with pytest.raises(InputError, match=r'train/bad: train may hold the folder good only'):
        load(root)
    with pytest.raises(InputError, match=r'no folder train/good: expected train/good/<image>'):
        load(root / 'test')
    with pytest.raises(InputError, match=r'cup is no folder'):
        load(tmp_path, category='cup')
    with pytest.raises(InputError, match=r'not at .*gone'):
        load(tmp_path / 'gone')


def test_where_a_category_is_looked_for(root, tmp_path, monkeypatch):
    want = greys(load(root)['test'])
    assert greys(load(tmp_path, category='cap')['test']) == want
    monkeypatch.setenv('ANYSHOT_DATA_DIR', str(tmp_path))
    assert greys(load('', category='cap')['test']) == want
    (tmp_path / 'mvtec').mkdir()
    root.rename(tmp_path / 'mvtec/cap')
    assert greys(load('', category='cap')['test']) == want
    with pytest.raises(InputError, match=r"'cup' are not at .*cup"):
        load('', category='cup')
    with pytest.raises(InputError, match='no category given'):
        load('')
    for name in ('..', '../cap', '.', 'a/b'):
        with pytest.raises(InputError, match=r"category = .*need a folder's name"):
            load(tmp_path, category=name)


@pytest.mark.parametrize('fields, message', [
    ({'fit': 'pad'}, "fit = 'pad': need 'stretch' or 'crop'"),
    ({'fit': 'crop', 'crop': 9}, 'crop = 9: need 1 to size = 8'),
    ({'size': 0}, 'size = 0'),
    ({'channels': 4}, 'channels = 4'),
    ({'on_error': 'skip'}, "only 'raise'"),
])  # fmt: skip
def test_bad_fields(root, fields, message):
    with pytest.raises(InputError, match=message):
        load(root, **fields)


def test_masks_follow_their_items():
    """Sorted by class with them, and turned with them."""
    mask = np.zeros((3, 2, 2), bool)
    mask[0, 0, 0] = mask[1, 0, 1] = mask[2, 1, 1] = True
    x = mask[..., None].astype(np.uint8)
    data = from_arrays(x, [1, 0, 1], mask=mask, turns=4)
    np.testing.assert_array_equal(data.mask, mask[[1, 0, 2]])
    turned = expand_turns(data)
    np.testing.assert_array_equal(turned.mask, np.asarray(turned.x)[..., 0] > 0)
    assert turned.mask.shape == (12, 2, 2)
    with pytest.raises(InputError, match='3 items and 2 masks'):
        from_arrays(x, [1, 0, 1], mask=mask[:2])


def test_real_tiles(data_dir, caplog):
    root = data_dir / 'magnetic_tile'
    if not (root / 'manifest.csv').is_file():
        pytest.skip(f'no magnetic_tile in {data_dir}')
    with caplog.at_level(logging.WARNING, 'absl'):
        data = load(root, size=16)
    assert 'left out 15 images' in caplog.text
    assert '2 (blowhole+fray), 67 (break+fray), 165 (break+crack)' in caplog.text
    assert [len(data[r].x) for r in ('good', 'good_test', 'test')] == [752, 200, 392 - 15]
    assert data['test'].names == ('blowhole', 'break', 'crack', 'fray', 'uneven')
    groups = [set(d.group.tolist()) for d in data.values()]
    assert [len(g) for g in groups[:2]] == [141, 39] and not groups[0] & (groups[1] | groups[2])
    of_type = [set(data['test'].group[data['test'].label == c].tolist()) for c in range(5)]
    # 20, 16, 9, 7, 17 tiles a type, of which 3 stand in two.
    assert [len(g) for g in of_type] == [19, 14, 8, 5, 17]


# Masks as tools write them.


def drawn(colour=None, alpha=255, background=(0, 0, 0, 0)):
    """A square of 2 x 4 pixels on a background, RGBA."""
    x = np.zeros((8, 8, 4), np.uint8)
    x[:] = background
    x[2:4, :4] = (*colour, alpha)
    return Image.fromarray(x)


def ids(dtype=np.uint8, values=(1, 3)):
    """Types of defect as numbers: a row each."""
    x = np.zeros((8, 8), dtype)
    x[2, :4], x[3, :4] = values
    return x


def palette(colours):
    image = Image.frombytes('P', (8, 8), ids().tobytes())
    image.putpalette([v for colour in colours for v in colour] + [0] * (768 - 3 * len(colours)))
    return image


VOC = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)]


@pytest.mark.parametrize(
    'mask',
    [
        drawn((255, 255, 255)),  # brushes of a paint program on transparency
        drawn((255, 0, 0), alpha=128),
        drawn((0, 0, 0)),
        drawn((255, 255, 255), background=(0, 0, 0, 255)),
        drawn((0, 0, 255), background=(0, 0, 0, 255)).convert('RGB'),
        Image.fromarray(ids()),
        Image.fromarray(ids(values=(1, 200))),
        Image.fromarray(ids(np.uint16, (1, 2))),
        Image.fromarray(ids(np.int32, (1, 70_000))),
        palette(VOC),
        palette([(200, 200, 200), *VOC[1:]]),  # the background is the first colour
    ],
)
def test_what_is_not_background_is_defect(root, mask):
    path = root / 'ground_truth/dent/000_mask.png'
    if mask.mode == 'I':
        path.unlink()
        path = path.with_suffix('.tif')
    mask.save(path)
    found = load(root)['test'].mask[0]
    assert found[2:4, :4].all() and found.sum() == 8


def test_masks_of_numpy_and_jpeg(root):
    folder = root / 'ground_truth/dent'
    for file in folder.iterdir():
        file.unlink()
    np.save(folder / '000_mask.npy', ids(np.float32, (0.2, 1)))
    np.save(folder / '001.npy', ids(bool, (True, True))[..., None])
    Image.fromarray(ids(values=(255, 255))).save(folder / '002_mask.jpg', quality=95)
    mask = load(root)['test'].mask
    assert mask[:2, 2:4, :4].all() and mask[:2].sum((1, 2)).tolist() == [8, 8]
    assert mask[2, 2:4, :3].all() and mask[2].sum() <= 10
    np.save(folder / '001.npy', np.array([object()]), allow_pickle=True)
    with pytest.raises(InputError, match=r'the mask .*001\.npy'):
        load(root)


@pytest.mark.parametrize(
    'name',
    ['{}.png', '{}_gt.png', '{}-mask.png', '{}_Mask.PNG', 'mask_{}.png', 'GT-{}.png', '{}/000.png',
     '{}_ground_truth.png', '{}_label.png'],
)  # fmt: skip
def test_masks_of_every_name(root, name):
    for file in list((root / 'ground_truth').rglob('*.png')):
        new = file.parent / name.format(file.stem.removesuffix('_mask'))
        new.parent.mkdir(exist_ok=True)
        file.rename(new)
    (root / 'ground_truth').rename(root / 'Ground_Truth')
    assert load(root)['test'].mask.sum((1, 2)).tolist() == [8] * 5


def test_several_masks_of_an_image_are_one(root):
    first = root / 'ground_truth/dent/000_mask.png'
    (root / 'ground_truth/dent/000').mkdir()
    more = np.zeros((8, 8), np.uint8)
    more[7] = 1
    Image.fromarray(more).save(root / 'ground_truth/dent/000/001.png')
    first.rename(root / 'ground_truth/dent/000/000.png')
    mask = load(root)['test'].mask[0]
    assert mask[:2, :4].all() and mask[7].all() and mask.sum() == 16


def test_masks_of_no_image_and_of_too_much(root, caplog):
    lost = root / 'ground_truth/dent/task-12-defect-0.png'
    paint(lost, 255)
    with pytest.raises(InputError, match=r'the mask .*task-12-defect-0\.png belongs to no image'):
        load(root)
    lost.rename(root / 'ground_truth/loose.png')
    with pytest.raises(InputError, match=r'the mask .*loose\.png lies in no folder of a type'):
        load(root)
    (root / 'ground_truth/loose.png').unlink()
    paint(root / 'ground_truth/other/000.png', 255)
    with pytest.raises(InputError, match=r"a mask of a type 'other'"):
        load(root)
    (root / 'ground_truth/other/000.png').unlink()
    Image.fromarray(255 - 255 * (ids() > 0).astype(np.uint8)).save(
        root / 'ground_truth/dent/000_mask.png'
    )
    with caplog.at_level(logging.WARNING, 'absl'):
        load(root)
    assert '1 masks over more than half of their image' in caplog.text
    assert 'test/dent/000.png' in caplog.text


def test_normal_images_are_held_out_where_none_are_for_testing(root, caplog):
    (root / 'test/good/000.png').unlink()
    data = load(root, detect_only=True)
    assert data['good'].x[:, 0, 0, 0].tolist() == [10, 11]
    assert data['good_test'].x[:, 0, 0, 0].tolist() == [12]
    assert 'the last 1 of 3 images in train/good are held out' in caplog.text
    assert 'good_test' not in load(root)


@pytest.mark.parametrize('size', [(8, 6), (32, 24), (17, 13)])
def test_masks_of_another_size(root, size):
    """Of images of 16 x 12; each mask covers its upper left quarter, as far as its size can."""
    for i in range(3):
        paint(root / f'test/dent/{i:03}.png', 40 + i, (16, 12))
        box = (0, 0, round(size[0] / 2), round(size[1] / 2))
        paint(root / f'ground_truth/dent/{i:03}_mask.png', 0, size, box=box)
    with pytest.raises(InputError, match=r'its image 16 x 12; .* --config.data.resize_masks=True'):
        load(root)
    dents = load(root, resize_masks=True)['test'].mask[:3]
    want = np.zeros((8, 8), bool)
    want[:4, :4] = True
    np.testing.assert_array_equal(dents, np.broadcast_to(want, dents.shape))
    paint(root / 'ground_truth/dent/001_mask.png', 0, (16, 14))
    with pytest.raises(InputError, match='16 x 14 pixels, but its image 16 x 12, which is another'):
        load(root, resize_masks=True)


def test_no_defect_at_all(root, caplog):
    shutil.rmtree(root / 'test')
    shutil.rmtree(root / 'ground_truth')
    with pytest.raises(InputError, match=r'0 types of defect.*mvtec_patchcore.py.*train/good'):
        load(root)
    roles = load(root, detect_only=True)
    assert {role: len(of.x) for role, of in roles.items()} == {'good': 2, 'good_test': 1}
    assert f'predict --good={root / "train/good"}' in caplog.text


def test_folders_without_splits(root, tmp_path, caplog):
    """As anomalib's Folder takes them: normal images, types of defects and masks side by side."""
    flat = tmp_path / 'flat'
    for i in range(6):
        paint(flat / f'normal/{i}.png', 10 + i)
    for i in range(2):
        paint(flat / f'crack/{i}.png', 50 + i)
        paint(flat / f'mask/crack/{i}.png', 0, box=(i, 0, i + 2, 2))
    data = load(flat, detect_only=True)
    assert data['good'].x[:, 0, 0, 0].tolist() == [10, 11, 12, 13, 14]
    assert data['good_test'].x[:, 0, 0, 0].tolist() == [15]
    assert data['test'].names == ('crack',) and data['test'].mask.sum((1, 2)).tolist() == [4, 4]
    shutil.rmtree(flat / 'mask')
    assert load(flat, detect_only=True)['test'].mask is None
    shutil.rmtree(flat / 'normal')
    with pytest.raises(InputError, match='no folder train/good'):
        load(flat, detect_only=True)
