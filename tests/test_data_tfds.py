"""tensorflow-datasets without TensorFlow: real prepared sets, written here in a few files."""

import io
import os
import pkgutil
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

import anyshot_jax.data
from anyshot_jax.data import omniglot, tfds
from anyshot_jax.types import InputError

tensorflow_datasets = pytest.importorskip('tensorflow_datasets')


def png(x):
    buffer = io.BytesIO()
    Image.fromarray(x).save(buffer, 'PNG')
    buffer.seek(0)
    return buffer


def write_set(path, name, version, features, splits, file_format='array_record'):
    """Prepares a set of the given items under `path`; its code isn't needed to read it."""
    core = tensorflow_datasets.core
    info = tensorflow_datasets.features.FeaturesDict(features)

    class Written(core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = core.Version(version)
        pkg_dir_path = path

        def _info(self):
            return core.DatasetInfo(builder=self, features=info)

        def _split_generators(self, _):
            return {split: enumerate(items) for split, items in splits.items()}

        def _generate_examples(self):
            raise NotImplementedError

    Written.name = name
    Written(data_dir=path, file_format=file_format).download_and_prepare()


def tiny_items(start, num):
    return [
        {'image': png(np.full((6, 9, 3), start + i, np.uint8)), 'label': (start + i) % 4}
        for i in range(num)
    ]


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    path = tmp_path_factory.mktemp('tfds')
    features = tensorflow_datasets.features
    write_set(
        path,
        'tiny_shapes',
        '1.0.0',
        {
            'image': features.Image(shape=(None, None, 3)),
            'label': features.ClassLabel(names=['a', 'b', 'c', 'd']),
            'number': np.int64,
        },
        {
            'train': [{**item, 'number': 0} for item in tiny_items(0, 9)],
            'test': [{**item, 'number': 0} for item in tiny_items(101, 3)],
        },
    )
    return path


def config_of(path, **fields):
    config = ConfigDict({'name': 'tfds', 'dir': str(path), **tfds.DEFAULTS})
    config.update({'dataset': 'tiny_shapes', 'size': 5, **fields})
    return config


def contents(data):
    return {
        name: sorted(s.x[s.offset[c] : s.offset[c] + s.count[c], 0, 0, 0].tolist())
        for s in data.values()
        for c, name in enumerate(s.names)
    }


def test_set_by_name(prepared):
    data = tfds.load(config_of(prepared, turns=4)).roles
    assert contents(data) == {
        'a': [0, 4, 8],
        'b': [1, 5, 101],
        'c': [2, 6, 102],
        'd': [3, 7, 103],
    }
    assert [len(s.names) for s in data.values()] == [2, 1, 1]
    assert [s.turns for s in data.values()] == [4, 1, 1]
    assert data['train'].x.shape[1:] == (5, 5, 3)
    one = tfds.load(config_of(prepared, splits=('test',), channels=1)).roles
    assert contents(one) == {'b': [101], 'c': [102], 'd': [103]}  # no item, no class
    assert one['test'].x.shape == (1, 5, 5, 1)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'dataset': ''}, 'dataset is empty'),
        ({'dataset': 'no_such_set_at_all'}, "has no set 'no_such_set_at_all'"),
        ({'splits': ('trian',)}, "no split 'trian'; did you mean 'train'"),
        ({'splits': ()}, 'at least one of splits'),
        ({'image': 'imgae'}, "no feature 'imgae'; did you mean 'image'"),
        ({'label': 'number'}, "'number' is not a class label"),
        ({'image': 'number'}, 'the image is int64'),
        ({'channels': 2}, 'channels'),
    ],
)
def test_refused(prepared, fields, message):
    with pytest.raises(InputError, match=message):
        tfds.load(config_of(prepared, **fields))


def test_set_that_can_not_be_prepared_says_what_to_do(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise ConnectionError('no network')

    builder = tensorflow_datasets.core.DatasetBuilder
    monkeypatch.setattr(builder, 'download_and_prepare', refuse)
    with pytest.raises(InputError, match=r'no network.*tfds build cifar10 --file_format=array'):
        tfds.load(config_of(tmp_path, dataset='cifar10'))


def test_damaged_records_are_named(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / 'copy')
    (record,) = (tmp_path / 'copy').rglob('*train.array_record*')
    whole = record.read_bytes()
    record.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r'tiny_shapes/train'):
        tfds.load(config_of(tmp_path / 'copy'))


def test_omniglot_from_tfds(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    features = tensorflow_datasets.features
    labels = ['Latin_0', 'Malay_(Jawi_-_Arabic)_11', 'Hebrew_4', 'Kannada_2']
    ink = np.random.default_rng(0).random((4, 105, 105)) < 0.1
    items = [
        {'image': png(np.repeat(np.where(ink[c], 0, 255)[..., None], 3, -1).astype(np.uint8))}
        | {'label': c, 'alphabet': 0, 'alphabet_char_id': 0}
        for c in range(4)
    ]
    write_set(
        tmp_path,
        'omniglot',
        '3.0.0',
        {
            'image': features.Image(shape=(105, 105, 3), encoding_format='png'),
            'label': features.ClassLabel(names=labels),
            'alphabet': features.ClassLabel(num_classes=50),
            'alphabet_char_id': np.int64,
        },
        {'train': items[:3], 'test': items[3:]},
    )
    config = ConfigDict({'name': 'omniglot', 'dir': str(tmp_path), **omniglot.DEFAULTS})
    config.update({'source': 'tfds', 'size': 105, 'complete': False})
    data = omniglot.load(config).roles
    assert data['train'].names == ('Latin/character01', 'Malay_(Jawi_-_Arabic)/character12')
    assert data['val'].names == ('Hebrew/character05',)
    assert data['test'].names == ('Kannada/character03',)
    np.testing.assert_array_equal(data['train'].x[1, ..., 0], 255 * ink[1])
    np.testing.assert_array_equal(data['test'].x[0, ..., 0], 255 * ink[3])


def test_tensorflow_is_never_imported(prepared):
    modules = [m.name for m in pkgutil.iter_modules(anyshot_jax.data.__path__)]
    assert {'glyphs', 'omniglot', 'folder', 'features', 'tfds', 'synthetic'} <= set(modules)
    program = f"""
        import importlib, sys
        from ml_collections import ConfigDict
        for name in {modules}:
            importlib.import_module('anyshot_jax.data.' + name)
        assert 'tensorflow_datasets' not in sys.modules  # slow: only for those who use it
        from anyshot_jax.data import tfds
        config = ConfigDict({{'name': 'tfds', 'dir': {str(prepared)!r}, **tfds.DEFAULTS}})
        config.dataset = 'tiny_shapes'
        assert sum(len(s.x) for s in tfds.load(config).roles.values()) == 12
        assert 'tensorflow_datasets' in sys.modules
        assert 'tensorflow' not in sys.modules
    """
    root = os.path.dirname(os.path.dirname(os.path.dirname(anyshot_jax.data.__file__)))
    subprocess.run([sys.executable, '-c', textwrap.dedent(program)], check=True, cwd=root)
