"""Omniglot in all its forms; the real one where ANYSHOT_DATA_DIR or ../shared/data has it."""

import io
import shutil
import zipfile

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from anyshot_jax.data import omniglot
from anyshot_jax.storage.folders import cache_dir
from anyshot_jax.types import InputError

pytestmark = pytest.mark.slow

ALPHABETS = ('Latin', 'Hebrew', 'Kannada', 'Gurmukhi')  # train, val, test, both
NUMBERS = {'Latin': (1, 2), 'Hebrew': (1, 3), 'Kannada': (7,), 'Gurmukhi': (41, 42)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


def config_of(path, **fields):
    config = ConfigDict({'name': 'omniglot', 'dir': str(path), **omniglot.DEFAULTS})
    config.complete = False
    config.update(fields)
    return config


@pytest.fixture
def drawn():
    """{(alphabet, number): bool [20, 105, 105]}, True is ink; order is not that of the names."""
    rng = np.random.default_rng(0)
    found = {}
    for alphabet in ALPHABETS:
        for number in NUMBERS[alphabet]:
            ink = np.zeros((20, 105, 105), bool)
            for i in range(20):
                top, left = rng.integers(5, 60, 2)
                ink[i, top : top + 30, left : left + 4] = True
                ink[i, top + 10 : top + 13, left : left + 40] = True
            found[alphabet, number] = ink
    return found


def save_npz(path, drawn, **replaced):
    path.mkdir()
    arrays = {
        'images': np.packbits(np.concatenate(list(drawn.values())).reshape(-1, 11025), axis=1),
        'alphabet_names': np.array(ALPHABETS),
        'char_alphabet': np.array([ALPHABETS.index(a) for a, _ in drawn], np.uint8),
        'char_number': np.array([n for _, n in drawn], np.uint8),
        **replaced,
    }
    np.savez(path / 'omniglot.npz', **{k: v for k, v in arrays.items() if v is not None})
    return path


def images(drawn, half):
    """Names and contents of the official PNG files (mode 1, ink 0)."""
    for c, ((alphabet, number), ink) in enumerate(drawn.items()):
        if (alphabet in omniglot.EVALUATION) == (half == 'images_evaluation'):
            for i in range(20):
                buffer = io.BytesIO()
                Image.fromarray(~ink[i]).convert('1').save(buffer, 'PNG')
                name = f'{half}/{alphabet}/character{number:02d}/{c + 1:04d}_{i + 1:02d}.png'
                yield name, buffer.getvalue()


def save_zip(path, drawn, half):
    with zipfile.ZipFile(path / f'{half}.zip', 'w') as z:
        z.writestr(f'__MACOSX/{half}/Latin/character01/._0001_01.png', b'junk')
        z.writestr(f'{half}/.DS_Store', b'junk')
        for name, content in reversed(list(images(drawn, half))):
            z.writestr(name, content)


@pytest.mark.parametrize('size', [28, 105])
def test_npz_tree_and_zip_are_the_same(tmp_path, drawn, size):
    npz, png = save_npz(tmp_path / 'npz', drawn), tmp_path / 'png'
    png.mkdir()
    for name, content in images(drawn, 'images_background'):
        (png / name).parent.mkdir(parents=True, exist_ok=True)
        (png / name).write_bytes(content)
    save_zip(png, drawn, 'images_evaluation')
    one, two = (omniglot.load(config_of(p, size=size)).roles for p in (npz, png))
    again = omniglot.load(config_of(png, size=size)).roles  # from the cache
    assert len(list(cache_dir().glob('omniglot-*.npz'))) == 2
    for role, names in (
        ('train', ('Gurmukhi/character41', 'Latin/character01', 'Latin/character02')),
        ('val', ('Hebrew/character01', 'Hebrew/character03')),
        ('test', ('Gurmukhi/character42', 'Kannada/character07')),
    ):
        assert one[role].names == names
        assert list(one[role].count) == [20] * len(names)
        for other in (two, again):
            assert other[role].names == names
            np.testing.assert_array_equal(one[role].x, other[role].x)
            np.testing.assert_array_equal(one[role].label, other[role].label)
        alphabets = [omniglot.ALPHABETS[a] for a in one[role].extras['alphabet']]
        assert alphabets == [n.split('/')[0] for n in names]
    want = 255 * drawn['Kannada', 7][3].astype(np.uint8)
    if size == 28:
        want = np.asarray(Image.fromarray(want).resize((28, 28), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(one['test'].x[23, ..., 0], want)


def test_lake_split_turns_and_nearest(tmp_path, drawn):
    path = save_npz(tmp_path / 'npz', drawn)
    fields = {'split': 'lake', 'turns': 1, 'turns_eval': 4, 'resample': 'nearest', 'size': 20}
    data = omniglot.load(config_of(path / 'omniglot.npz', **fields)).roles
    assert data['train'].names == ('Latin/character01', 'Latin/character02')
    assert data['test'].names[0] == 'Gurmukhi/character41' and len(data['test'].names) == 3
    assert [s.turns for s in data.values()] == [1, 4, 4]
    assert [s.num_classes for s in data.values()] == [2, 8, 12]
    assert set(np.unique(data['train'].x)) == {0, 255} and data['train'].x.shape[1:] == (20, 20, 1)


def test_changed_file_is_read_again(tmp_path, drawn):
    path = save_npz(tmp_path / 'npz', drawn)
    before = omniglot.load(config_of(path)).roles
    shutil.rmtree(path)
    save_npz(path, {k: ~v for k, v in drawn.items()})
    assert (omniglot.load(config_of(path)).roles['train'].x != before['train'].x).any()


def test_bad_npz(tmp_path, drawn):
    def load(name, **replaced):
        return omniglot.load(config_of(save_npz(tmp_path / name, drawn, **replaced))).roles

    with pytest.raises(InputError, match=r'has no array char_number'):
        load('a', char_number=None)
    with pytest.raises(InputError, match=r'images are uint8 \(139, 1379\), expected'):
        load('b', images=np.zeros((139, 1379), np.uint8))
    with pytest.raises(InputError, match=r"no alphabet 'Klingon'"):
        load('c', alphabet_names=np.array(['Klingon', *ALPHABETS[1:]]))
    with pytest.raises(InputError, match=r'Python objects, which are never loaded'):
        load('d', alphabet_names=np.array([*ALPHABETS], object))
    path = save_npz(tmp_path / 'e', drawn)
    with pytest.raises(InputError, match=r'7 characters with 140 drawings.*complete=False'):
        omniglot.load(config_of(path, complete=True))
    whole = (path / 'omniglot.npz').read_bytes()
    (path / 'omniglot.npz').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r'omniglot.npz is not a whole npz file'):
        omniglot.load(config_of(path))


def test_bad_images(tmp_path, drawn):
    def load(name, files):
        (tmp_path / name).mkdir()
        with zipfile.ZipFile(tmp_path / name / 'images_background.zip', 'w') as z:
            for member, content in files:
                z.writestr(member, content)
        return omniglot.load(config_of(tmp_path / name)).roles

    files = list(images(drawn, 'images_background'))
    name, content = files[0]
    with pytest.raises(InputError, match=r"no class for 'test'"):
        load('half', files)
    with pytest.raises(InputError, match=r'Latin/character01/0001_01.png is damaged'):
        load('cut', [(name, content[:60])])
    with pytest.raises(InputError, match=r'drawer 1 of Latin/character01 is there twice'):
        load('twice', [(name, content), (name.replace('0001', '0002'), content)])
    with pytest.raises(InputError, match=r'0001_01.png unpacks to 200,000 bytes'):
        load('bomb', [(name, bytes(200_000))])
    buffer = io.BytesIO()
    Image.new('1', (28, 28)).save(buffer, 'PNG')
    with pytest.raises(InputError, match=r'0001_01.png has \(28, 28\) pixels'):
        load('small', [(name, buffer.getvalue())])
    with pytest.raises(InputError, match=r'no drawing found'):
        load('none', [('images_background/readme.txt', b'')])
    (tmp_path / 'half' / 'images_background.zip').write_bytes(b'PK not a zip')
    with pytest.raises(InputError, match=r'images_background.zip is not a whole zip file'):
        omniglot.load(config_of(tmp_path / 'half'))


def test_members_are_never_written(tmp_path, drawn, monkeypatch):
    path = tmp_path / 'evil'
    path.mkdir()
    with zipfile.ZipFile(path / 'images_background.zip', 'w') as z:
        for name, content in images(drawn, 'images_background'):
            z.writestr('../../' + name, content)
    save_zip(path, drawn, 'images_evaluation')
    before = set(tmp_path.rglob('*'))
    omniglot.load(config_of(path))
    new = {p for p in tmp_path.rglob('*') if p not in before}
    assert all(p.is_relative_to(tmp_path / 'cache') for p in new)
    assert not (tmp_path.parent / 'images_background').exists()


def test_bad_fields_and_nothing_there(tmp_path, monkeypatch):
    for fields in ({'source': 'zip'}, {'split': 'vinyal'}, {'size': 0}, {'size': 106}):
        with pytest.raises(InputError, match=next(iter(fields))):
            omniglot.load(config_of(tmp_path, **fields))
    with pytest.raises(InputError, match=r'holds none of omniglot.npz, images_background'):
        omniglot.load(config_of(tmp_path))
    with pytest.raises(InputError, match=r'no file .*omniglot.npz'):
        omniglot.load(config_of(tmp_path, source='npz'))
    monkeypatch.delenv('ANYSHOT_DATA_DIR', raising=False)
    with pytest.raises(InputError, match=r'ANYSHOT_DATA_DIR.*images_background'):
        omniglot.load(config_of(''))


def test_bad_resample(tmp_path, drawn):
    with pytest.raises(InputError, match=r"'lanczos'"):
        omniglot.load(config_of(save_npz(tmp_path / 'a', drawn), resample='lanczo'))


@pytest.fixture
def real(data_dir):
    if not (data_dir / 'omniglot' / 'omniglot.npz').is_file():
        pytest.skip(f'no omniglot/omniglot.npz in {data_dir}')
    return data_dir / 'omniglot'


def test_real_splits(real):
    data = omniglot.load(config_of(real, complete=True)).roles
    assert {r: (len(s.names), len(s.x)) for r, s in data.items()} == {
        'train': (1028, 20560),
        'val': (172, 3440),
        'test': (423, 8460),
    }
    lists = real / 'splits_vinyals'
    for role in data:
        lines = (lists / f'{role}.txt').read_text().split()
        assert sorted({line.rpartition('/')[0] for line in lines}) == list(data[role].names)
    with np.load(real / 'omniglot.npz') as z:
        names = [
            f'{z["alphabet_names"][a]}/character{n:02d}'
            for a, n in zip(z['char_alphabet'], z['char_number'], strict=True)
        ]
        roles = [('train', 'val', 'test')[v] for v in z['char_vinyals']]
        halves = z['char_split']
        bits = z['images']
    assert [omniglot.role_of(n, 'vinyals') for n in names] == roles
    lake = [omniglot.role_of(n, 'lake') for n in names]
    assert [r == 'test' for r in lake] == [h == 1 for h in halves]
    assert {r: lake.count(r) for r in data} == {'train': 792, 'val': 172, 'test': 659}
    # One drawing followed by hand through the packing, the resize and the order.
    c = names.index('Tibetan/character10')
    ink = np.unpackbits(bits[20 * c + 4])[:11025].reshape(105, 105)
    want = np.asarray(Image.fromarray(255 * ink).resize((28, 28), Image.Resampling.LANCZOS))
    row = data['test'].offset[data['test'].names.index('Tibetan/character10')] + 4
    np.testing.assert_array_equal(data['test'].x[row, ..., 0], want)
    assert 5 < data['train'].x.mean() < 40  # bright ink on black
