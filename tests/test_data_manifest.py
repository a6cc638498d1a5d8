"""Classes by a list beside the images: tables, and exports of COCO and YOLO."""

import json
import logging

import pytest
from ml_collections import ConfigDict
from PIL import Image

from anyshot_jax.data import folder
from anyshot_jax.data.readers.manifest import find_tree
from anyshot_jax.types import InputError


def paint(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (6, 6), (value,) * 3).save(path)


@pytest.fixture
def root(tmp_path):
    for i in range(6):
        paint(tmp_path / 'images' / f'{i}.png', 10 * i)
    return tmp_path


WANT = {'cat': ['0.png', '1.png'], 'dög': ['2.png', '3.png'], 'owl': ['4.png']}
PAIRS = [(f'{i}.png', label) for label, files in WANT.items() for i in [f[0] for f in files]]


def classes(root):
    return {name: [f.name for f in files] for (_, name), files in find_tree(root).classes.items()}


@pytest.mark.parametrize('name', ['labels.csv', 'labels.tsv', 'labels.xlsx'])
@pytest.mark.parametrize('written', ['images/{}', '{}', './images/{}', 'images\\{}', 'stem'])
def test_a_table(root, name, written):
    say = lambda file: file[0] if written == 'stem' else written.format(file)
    rows = [('Label', 'note', 'Image'), *((label, 'x', say(file)) for file, label in PAIRS)]
    if name.endswith('xlsx'):
        openpyxl = pytest.importorskip('openpyxl', reason='needs the extra excel')
        book = openpyxl.Workbook()
        for row in rows:
            book.active.append(row)
        book.save(root / name)
    else:
        mark = '\t' if name.endswith('tsv') else ';' if written == '{}' else ','
        text = '\n'.join(mark.join(row) for row in rows)
        (root / name).write_text('\ufeff' + text, 'utf-8')
    assert classes(root) == WANT
    assert find_tree(root).notes.count == {'images that the list does not name': 1}


def test_a_run_by_a_list(root, caplog):
    (root / 'labels.csv').write_text('\n'.join(['path,label', *map(','.join, PAIRS)]), 'utf-8')
    config = ConfigDict({'name': 'folder', 'dir': str(root), **folder.DEFAULTS, 'size': 4})
    with caplog.at_level(logging.WARNING, 'absl'):
        data = folder.load(config).roles
    found = {n: s.x[s.label == c, 0, 0, 0].tolist() for s in data.values()
             for c, n in enumerate(s.names)}  # fmt: skip
    assert found == {'cat': [0, 10], 'dög': [20, 30], 'owl': [40]}
    assert '1 images that the list does not name' in caplog.text


@pytest.mark.parametrize(
    ('text', 'says'),
    [
        ('', r'labels.csv is empty'),
        ('a,b\n0.png,x', r'the columns a, b: need one called path'),
        ('path,label\n0.png,x\nnone.png,y', r"line 3: 'none.png' is no image in"),
        ('path,label\n../../etc/passwd,x', r"'../../etc/passwd' is no image in"),
        ('path,label\n/etc/passwd,x', r"'/etc/passwd' is no image in"),
        ('path,label\n0.png,x\n0.png,y', r"line 3: '0.png' has the label 'y' and 'x'"),
        ('path,label\n"0.png,x', r'is not a readable table'),
        ('path,label\n7.png,x', r"'7.png' is no image .*several files are called so"),
    ],
)
def test_tables_that_do_not_fit(root, text, says):
    paint(root / 'images' / 'a' / '7.png', 1)
    paint(root / 'images' / 'b' / '7.png', 2)
    (root / 'labels.csv').write_text(text)
    with pytest.raises(InputError, match=says):
        find_tree(root)


def test_an_export_of_coco(root):
    """Boxes of one class give the label; of several, or none, there is none."""
    for part, numbers in (('train', (0, 1, 2)), ('valid', (3, 4, 5))):
        (root / part).mkdir()
        boxes = {0: 'cat', 1: 'cat', 2: 'dog', 3: 'dog', 4: 'cat'}
        names = ['cat', 'dog', 'unused']
        said = {
            'categories': [{'id': 7 + i, 'name': n} for i, n in enumerate(names)],
            'images': [{'id': i, 'file_name': f'{i}.png'} for i in numbers],
            'annotations': [
                {'image_id': i, 'category_id': 7 + names.index(boxes[i])}
                for i in numbers if i in boxes
                for _ in range(2)
            ],
        }  # fmt: skip
        if part == 'valid':
            said['annotations'].append({'image_id': 4, 'category_id': 8})
        for i in numbers:
            (root / 'images' / f'{i}.png').rename(root / part / f'{i}.png')
        (root / part / '_annotations.coco.json').write_text(json.dumps(said))
    assert classes(root) == {'cat': ['0.png', '1.png'], 'dog': ['2.png', '3.png']}
    notes = find_tree(root).notes.count
    assert notes['images that show several classes'] == 1 and notes['images without a class'] == 1
    (root / 'valid' / '_annotations.coco.json').write_text('{"images": []}')
    with pytest.raises(InputError, match=r'is no COCO file: KeyError'):
        find_tree(root)


@pytest.mark.parametrize('listing', ['data.yaml', 'classes.txt'])
def test_an_export_of_yolo(root, listing):
    text = 'names: [cat, dog]\n' if listing == 'data.yaml' else 'cat\ndog\n'
    (root / listing).write_text(text)
    (root / 'labels').mkdir()
    boxes = ('0 .5 .5 .1 .1\n0 .2 .2 .1 .1', '1 .5 .5 1 1', '0 1 1 1 1\n1 1 1 1 1', '')
    for i, lines in enumerate(boxes):
        (root / 'labels' / f'{i}.txt').write_text(lines)
    assert classes(root) == {'cat': ['0.png'], 'dog': ['1.png']}
    notes = find_tree(root).notes.count
    assert notes['images that show several classes'] == 1 and notes['images without a class'] == 3
    (root / 'labels' / '0.txt').write_text('9 .5 .5 .1 .1')
    with pytest.raises(InputError, match=r'0.txt has a line that names no class of'):
        find_tree(root)
    if listing == 'data.yaml':
        (root / listing).write_text('names: !!python/object/apply:os.system ["true"]')
        with pytest.raises(InputError, match=r'data.yaml names no classes'):
            find_tree(root)
