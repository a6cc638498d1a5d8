"""Stored features: what is embedded again and what isn't, after kills and damage."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anyshot_jax.classify import feature_store
from anyshot_jax.classify.feature_store import FeatureStore
from anyshot_jax.data.readers.images import NotAnImage, read_image
from anyshot_jax.types import InputError


class Embedder:
    """A real if small encoder, the mean colour; notes what it is given, may be interrupted."""

    def __init__(self, stop_after=None):
        self.seen, self.largest, self.stop_after = [], 0, stop_after

    def __call__(self, images):
        if self.stop_after is not None and len(self.seen) >= self.stop_after:
            raise KeyboardInterrupt
        z = images.astype(np.float32).mean((1, 2))
        self.seen += [int(row[0]) for row in z]
        self.largest = max(self.largest, len(images))
        return z


def read(content, name, odd=None):
    return read_image(content, 6, 3, 1000, name)


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(feature_store, 'CHUNK', 4)


def paint(path, red, size=(5, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size, (red, 20, 30)).save(path)
    return path


def images(tmp_path, reds):
    return [paint(tmp_path / 'in' / f'{red:03d}.png', red) for red in reds]


def store(embed):
    return FeatureStore('mean', 'abc', 3, read, embed)


def reds(chunks):
    chunks = list(chunks)
    return [None if i in c.errors else int(z[0]) for c in chunks for i, z in enumerate(c.features)]


def test_features_in_order_and_only_new_images_are_embedded(tmp_path):
    paths = images(tmp_path, range(10))
    first = Embedder()
    chunks = list(store(first).chunks(paths))
    assert [len(c.paths) for c in chunks] == [4, 4, 2] and not any(c.errors for c in chunks)
    want = [[red, 20, 30] for red in range(10)]
    np.testing.assert_array_equal(np.concatenate([c.features for c in chunks]), want)
    assert first.seen == list(range(10))

    more = [*images(tmp_path, (77, 78)), *paths[::-1]]  # in another order
    second = Embedder()
    again = store(second)
    assert len(again) == 10
    assert reds(again.chunks(more)) == [77, 78, *range(9, -1, -1)]
    assert second.seen == [77, 78] and again.embedded == 2


def test_moved_and_renamed_images_are_known(tmp_path):
    paths = images(tmp_path, range(3))
    list(store(Embedder()).chunks(paths))
    moved = [path.rename(tmp_path / f'other{path.stem}.jpg') for path in paths]
    second = Embedder()
    assert reds(store(second).chunks(moved)) == [0, 1, 2] and second.seen == []


def test_copies_are_embedded_once(tmp_path):
    paths = [paint(tmp_path / f'{i}.png', red) for i, red in enumerate((7, 8, 7, 7, 8, 7, 9))]
    embed = Embedder()
    assert reds(store(embed).chunks(paths)) == [7, 8, 7, 7, 8, 7, 9]
    assert embed.seen == [7, 8, 9]


def test_a_changed_file_is_embedded_again(tmp_path):
    [path] = images(tmp_path, [5])
    list(store(Embedder()).chunks([path]))
    paint(path, 6)
    assert reds(store(Embedder()).chunks([path])) == [6]


def test_interrupted_run_goes_on(tmp_path):
    """Chunks that were whole when the run ended are not embedded again."""
    paths = images(tmp_path, range(20))
    with pytest.raises(KeyboardInterrupt):
        list(store(Embedder(stop_after=8)).chunks(paths))
    second = Embedder()
    assert reds(store(second).chunks(paths)) == list(range(20))
    assert second.seen == list(range(8, 20))


def test_killed_process_leaves_whole_chunks_only(tmp_path):
    """The same with SIGKILL, in the middle of writing the third chunk."""
    paths = images(tmp_path, range(12))
    code = (
        'import json, os, signal, sys\n'
        'from pathlib import Path\n'
        'import numpy as np\n'
        'from anyshot_jax.classify import feature_store\n'
        'from anyshot_jax.data.readers.images import read_image\n'
        'feature_store.CHUNK, writes, replace = 4, [], os.replace\n'
        'def rename(a, b):\n'
        '    writes.append(b)\n'
        '    if len(writes) == 3: os.kill(os.getpid(), signal.SIGKILL)\n'
        '    replace(a, b)\n'
        'os.replace = rename\n'
        'read = lambda content, name, odd: read_image(content, 6, 3, 1000, name)\n'
        'embed = lambda x: x.astype(np.float32).mean((1, 2))\n'
        'store = feature_store.FeatureStore("mean", "abc", 3, read, embed)\n'
        'list(store.chunks([Path(p) for p in json.loads(sys.argv[1])]))\n'
    )
    root = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(
        [sys.executable, '-c', code, json.dumps([str(p) for p in paths])],
        env={**os.environ, 'PYTHONPATH': root},
    )
    assert done.returncode == -9
    second = Embedder()
    assert reds(store(second).chunks(paths)) == list(range(12))
    assert second.seen == [8, 9, 10, 11]


def shards(tmp_path):
    return sorted((tmp_path / 'cache').rglob('*.shard'))


@pytest.mark.parametrize('harm', ['cut', 'empty', 'magic', 'count', 'row', 'key', 'gone'])
def test_damaged_shard_is_reported_and_embedded_again(tmp_path, harm, caplog):
    paths = images(tmp_path, range(8))
    list(store(Embedder()).chunks(paths))
    path = shards(tmp_path)[0]
    content = bytearray(path.read_bytes())
    before = store(second := Embedder())
    if harm == 'gone':
        path.unlink()
    else:
        at = {'cut': 0, 'empty': 0, 'magic': 0, 'count': 15, 'row': len(content) - 2, 'key': 30}[
            harm
        ]
        content[at] ^= 0xFF
        path.write_bytes({'cut': content[:-1], 'empty': b''}.get(harm, content))
        before = store(second)
    with caplog.at_level(logging.WARNING, 'absl'):
        assert reds(before.chunks(paths)) == list(range(8))
    assert 1 <= len(second.seen) <= 4
    if harm in ('row', 'gone'):
        assert 'damaged features' in caplog.text and path.name in caplog.text
    third = Embedder()
    assert reds(store(third).chunks(paths)) == list(range(8)) and third.seen == []


def test_another_encoder_has_its_own_features(tmp_path):
    paths = images(tmp_path, range(2))
    list(store(Embedder()).chunks(paths))
    for name, digest in (('mean', 'abd'), ('median', 'abc'), ('../mean', 'abc')):
        embed = Embedder()
        other = FeatureStore(name, digest, 3, read, embed)
        assert reds(other.chunks(paths)) == [0, 1] and embed.seen == [0, 1]
        assert other.folder.parent == tmp_path / 'cache' / 'anyshot_jax' / 'images'


def test_bad_images_are_named_and_the_others_answered(tmp_path):
    paths = images(tmp_path, range(6))
    half = paths[1].read_bytes()[:-30]
    paths[1].write_bytes(half)
    paths[2].write_bytes(half)  # a damaged copy: named by its own name
    paths[3].write_bytes(b'hello')
    paths[4].unlink()
    paths.append(paint(tmp_path / 'in' / 'large.png', 50, (40, 30)))
    embed = Embedder()
    chunks = list(store(embed).chunks(paths))
    assert reds(chunks) == [0, None, None, None, None, 5, None] and embed.seen == [0, 5]
    errors = {c.paths[i].name: e for c in chunks for i, e in c.errors.items()}
    for name, text in (
        ('001.png', 'damaged'), ('002.png', 'damaged'), ('003.png', 'is not an image'),
        ('004.png', 'unreadable'), ('large.png', 'has 40 x 30 pixels'),
    ):  # fmt: skip
        said = str(errors[name])
        assert said.startswith(str(tmp_path / 'in' / name)) and text in said
        assert isinstance(errors[name], InputError)
    assert isinstance(errors['003.png'], NotAnImage)
    assert all(np.isnan(c.features[i]).all() for c in chunks for i in c.errors)
    paint(paths[1], 61)  # what failed isn't remembered
    assert reds(store(Embedder()).chunks(paths[:2])) == [0, 61]


def test_a_huge_file_is_refused_unread(tmp_path):
    path = tmp_path / 'film.png'
    with path.open('wb') as f:
        f.truncate(500_000_001)  # no bytes on the disk
    [chunk] = store(Embedder()).chunks([path])
    assert 'film.png has 500,000,001 bytes' in str(chunk.errors[0])
    assert str(chunk.errors[0]).endswith('or give max_pixels=50000001')  # ten bytes a pixel


def test_few_images_are_embedded_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_store, 'CHUNK', 100)
    embed = Embedder()
    assert reds(store(embed).chunks(images(tmp_path, range(40)))) == list(range(40))
    assert embed.largest == 16


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path, monkeypatch, caplog):
    (tmp_path / 'file').write_text('in the way')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    paths = images(tmp_path, range(8))
    with caplog.at_level(logging.WARNING, 'absl'):
        assert reds(store(Embedder()).chunks(paths)) == list(range(8))
    assert caplog.text.count('could not keep features') == 1


def test_features_that_are_not_finite_are_an_error(tmp_path):
    paths = images(tmp_path, range(3))
    embed = lambda x: np.where(x[:, 0, 0, :1] == 1, np.inf, x[:, 0, 0])
    [chunk] = store(embed).chunks(paths)
    assert list(chunk.errors) == [1] and '001.png' in str(chunk.errors[1])
    assert len(store(embed)) == 2
