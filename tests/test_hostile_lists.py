"""Small lists and images that would take hours or gigabytes, and pipes where files belong."""

import io
import json
import os
import signal
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from anyshot_jax.classify.feature_store import FeatureStore
from anyshot_jax.data.readers import (
    file_size,
    images,
    industrial,
    manifest,
    mvtec,
    omniglot,
    text_table,
    weak,
)
from anyshot_jax.data.readers.classes import read_classes
from anyshot_jax.data.readers.folder_tree import find_classes
from anyshot_jax.data.readers.kinds import NotAnImage, NotRead
from anyshot_jax.data.readers.notes import Notes
from anyshot_jax.encoders.weights import read_tensors
from anyshot_jax.report import logs
from anyshot_jax.storage import files
from anyshot_jax.training import workdir
from anyshot_jax.types import InputError


@pytest.fixture(autouse=True)
def soon():
    """What hangs fails."""
    stop = lambda *_: (_ for _ in ()).throw(TimeoutError('it takes for ever'))
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


# Lists.


def listed(folder: Path, name: str, text: str) -> Path:
    """A folder of one image and the list."""
    (folder / 'images').mkdir()
    (folder / 'labels').mkdir()
    Image.new('RGB', (4, 4)).save(folder / 'images' / 'a.png')
    (folder / name).write_text(text)
    return folder


def test_ids_that_share_one_place_of_a_dictionary(tmp_path):
    ids = [(2**61 - 1) * i for i in range(1, 30_001)]  # hash(n) of all is 0
    boxes = {
        'categories': [{'id': 1, 'name': 'a'}],
        'images': [{'id': i, 'file_name': 'images/a.png'} for i in ids],
        'annotations': [{'image_id': ids[0], 'category_id': 1}],
    }
    tree = manifest.find_tree(listed(tmp_path, '_annotations.coco.json', json.dumps(boxes)))
    assert list(tree.classes) == [('', 'a')]


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        ('a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a]\nnames: [*b]', 'a reference'),
        (f'names: {{{2**61 - 1}: a}}', 'has the number'),
        ('names: {-1: a}', 'has the number'),
        ('names: [' + '1:' * 60_000 + '1]', 'larger than'),
        ('names: ' + '[' * 50_000, 'names no classes'),
    ],
)
def test_names_of_yolo(tmp_path, names, message):
    with pytest.raises(InputError, match=message):
        manifest.find_tree(listed(tmp_path, 'data.yaml', names))


def test_names_of_yolo_are_texts(tmp_path):
    root = listed(tmp_path, 'data.yaml', 'names: [no, 1.50]\n')
    (root / 'labels' / 'a.txt').write_text('0 0 0 1 1\n')
    assert list(manifest.find_tree(root).classes) == [('', 'no')]


def test_lines_of_a_table_are_short(tmp_path):
    path = tmp_path / 'a.csv'
    path.write_text('path,label' + ',' * text_table.MAX_LINE)
    with pytest.raises(InputError, match='line 1 has'):
        list(text_table.rows(path))
    path.write_text('path,label\na,b\n' + ',' * (text_table.MAX_LINE + 1))
    with pytest.raises(InputError, match='line 3 has'):
        list(text_table.rows(path))


def test_a_manifest_has_few_columns(tmp_path):
    """Of a header of a million names every row would be a dictionary of a million."""
    for name in ('train/good/0.png', 'test/good/1.png'):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    columns = ','.join(map(str, range(200_000)))
    text = f'path,split,class,mask,{columns}\n' + 'a\n' * 1000
    (tmp_path / 'manifest.csv').write_text(text)
    with pytest.raises(InputError, match='line 1 has'):
        mvtec.find_items(tmp_path, '')


# Folders.


def test_links_of_many_classes_to_the_same_folders(tmp_path):
    for i in range(150):
        (tmp_path / 'a' / 'empty' / str(i)).mkdir(parents=True)
        (tmp_path / f'c{i}').mkdir()
        os.symlink('../a/empty', tmp_path / f'c{i}' / 'link')
    with pytest.raises(InputError, match='links lead from several classes'):
        find_classes(tmp_path)


# Images.


def test_a_jpeg_of_many_scans(tmp_path):
    out = io.BytesIO()
    Image.new('L', (2000, 2000), 9).save(out, 'jpeg', progressive=True)
    good = out.getvalue()
    at = good.rindex(b'\xff\xda')
    bomb = good[:at] + good[at:-2] * 1000 + b'\xff\xd9'  # 50 kB, some ten seconds
    assert images.read_image(good, 4, 1, 10**7).mean() == 9
    with pytest.raises(InputError, match=r'a\.jpg is a JPEG of very many scans'):
        images.read_image(bomb, 4, 1, 10**7, 'a.jpg')
    # What lies behind the end of a phone's image is a film.
    film = good + b'\xff\xda\0\2' * 2000
    assert images.read_image(film, 4, 1, 10**7).mean() == 9


def test_a_tile_larger_than_its_image():
    side = 4000
    body = zlib.compress(b'\0' * side * side)
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 8}
    tags[325] = len(body)
    entries = b''.join(struct.pack('<HHII', tag, 4, 1, v) for tag, v in sorted(tags.items()))
    file = b'II*\0' + struct.pack('<I', 8 + len(body)) + body
    file += struct.pack('<H', len(tags)) + entries + b'\0' * 4
    assert images.read_image(file, 4, 1, side * side).shape == (4, 4, 1)
    with pytest.raises(NotRead, match='4000 x 4000 pixels'):
        images.read_image(file, 4, 1, 10**6)


def test_files_that_are_far_too_large_are_not_read(tmp_path):
    (tmp_path / 'a').mkdir()
    Image.new('RGB', (4, 4), 'red').save(tmp_path / 'a' / 'a.png')
    for name, kind in (('b.png', NotRead), ('c.bin', NotAnImage)):
        path = tmp_path / 'a' / name
        path.touch()
        os.truncate(path, 10**12)  # no bytes on the disk
        with pytest.raises(kind, match='give max_pixels=100000000000'):
            file_size.file_content(path, 100)
    # Few pixels are no reason: a photograph is larger than what it is shrunk to.
    assert len(file_size.file_content(tmp_path / 'a' / 'a.png', 1)) > 10
    config = type('Config', (dict,), {'__getattr__': dict.__getitem__})(
        size=4, channels=3, max_pixels=100, on_error='raise'
    )
    notes = Notes()
    found, _ = read_classes(tmp_path, find_classes(tmp_path).classes, config, notes)
    assert len(found) == 1  # and the colour of that one is told, too
    assert sum(notes.count.values()) == 3


# Pipes.


DOORS = {
    'config.json': lambda p: workdir.read_config(p.parent),
    'metrics.jsonl': logs.metrics,
    'result.json': files.read_json,
    'classes.json': lambda p: industrial.read_listing(p.parent),
    'labels.csv': lambda p: list(text_table.rows(p)),
    'classes.txt': lambda p: weak.find(p.parent, 'cub'),
    'Latin/character01/0001_01.png': lambda p: omniglot.from_png([p.parents[2]]).read(),
    'a.pth': read_tensors,
}


@pytest.mark.parametrize('name', DOORS)
def test_pipes_are_not_waited_for(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    with pytest.raises(InputError):
        DOORS[name](path)


def test_pipes_are_not_written_to(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / 'log.txt')
    with pytest.raises(InputError, match=r'log\.txt could not be written'):
        files.append_to(tmp_path / 'log.txt')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    folder = FeatureStore('mean', 'abc', 3, lambda *_: None, lambda x: x).folder
    folder.mkdir(parents=True)
    os.mkfifo(folder / 'a.shard')
    assert not len(FeatureStore('mean', 'abc', 3, lambda *_: None, lambda x: x))
