"""`predict --good` on a folder: the table, the page, and what does not go together."""

import csv

import numpy as np
import pytest
import tiny_maps
from PIL import Image

from anyshot_jax import AnomalyDetector
from anyshot_jax.defects import memory_bank
from anyshot_jax.predict import defects
from anyshot_jax.types import InputError


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(memory_bank, 'load', tiny_maps.named)


def paint(folder, num, seed, bright=0):
    """Noise of 64 pixels; a square of 24 pixels is `bright`er."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(num):
        x = rng.normal(120, 8, (64, 64))
        row, column = rng.integers(0, 40, 2)
        x[row : row + 24, column : column + 24] += bright
        Image.fromarray(np.clip(x, 0, 255).astype(np.uint8)).save(folder / f'{i:03}.png')


@pytest.fixture
def folders(tmp_path):
    paint(tmp_path / 'normal', 30, 0)
    paint(tmp_path / 'new/good', 6, 1)
    paint(tmp_path / 'new/stain', 4, 2, bright=-70)
    paint(tmp_path / 'new/glare', 4, 3, bright=70)
    paint(tmp_path / 'types/stain', 2, 4, bright=-70)
    paint(tmp_path / 'types/glare', 2, 5, bright=70)
    paint(tmp_path / 'types/good', 1, 6)
    (tmp_path / 'new/good/notes.txt').write_text('no image')
    return tmp_path


def asked(root, **fields):
    given = {
        'query': root / 'new',
        'good': root / 'normal',
        'out': root / 'out',
        'size': 64,
        'encoder': 'tiny',
    }
    return defects.Request(**{k: str(v) if k in ('query', 'good', 'out') else v
                              for k, v in (given | fields).items()})  # fmt: skip


def rows(root):
    with (root / 'out/predictions.csv').open() as f:
        return list(csv.DictReader(f))


def test_table_and_page(folders):
    (folders / 'new/good/broken.png').write_bytes(b'\x89PNG\r\n\x1a\n')
    with pytest.raises(InputError, match=r'broken\.png .*--on_error=skip'):
        defects.run(asked(folders))
    done = defects.run(
        asked(folders, types=str(folders / 'types'), on_error='skip',
              save=str(folders / 'out/m.safetensors'))
    )  # fmt: skip
    assert (done['images'], done['defects'], done['unreadable']) == (14, 8, 1)
    assert done['notes'] == '1 .txt files not read (good/notes.txt)'
    found = {row['path']: row for row in rows(folders)}
    assert len(found) == 15 and 'broken.png' in found['good/broken.png']['error']
    for path, row in found.items():
        if row['error']:
            continue
        defect = not path.startswith('good/')
        assert row['verdict'] == ('defect' if defect else 'normal')
        assert (float(row['score']) > float(row['threshold'])) == defect
        assert row['type'] in (('', row['label'], 'unknown type') if defect else ('',))
        assert row['label'] == path.split('/')[0]
        assert 0 <= int(row['left']) < int(row['right']) <= 64
    text = (folders / 'out/report.html').read_text()
    assert 'By folder' in text and 'Least sure' in text and 'class="find"' in text
    assert 'Passed over, or worth a word: 1 .txt files' in text and '99 or more' in text
    # The least sure first.
    unsure = text.split('id="unsure"')[1].split('</section>')[0]
    order = [unsure.index(f'>{path}<') for path in sorted(
        (p for p, row in found.items() if not row['error']),
        key=lambda p: abs(np.log(float(found[p]['score']) / float(found[p]['threshold']))),
    )]  # fmt: skip
    assert order == sorted(order)
    # The saved detector says the same.
    again = asked(folders, good='', model=str(folders / 'out/m.safetensors'), on_error='skip')
    defects.run(again._replace(out=str(folders / 'out2')))
    with (folders / 'out2/predictions.csv').open() as f:
        assert {r['path']: r['score'] for r in csv.DictReader(f)} == {
            path: row['score'] for path, row in found.items()
        }


def test_products(folders):
    paint(folders / 'both/light', 8, 7, bright=90)
    paint(folders / 'both/plain', 8, 8)
    done = defects.run(asked(folders, good=str(folders / 'both'), products=True))
    assert done['images'] == 14
    assert {row['product'] for row in rows(folders)} <= {'light', 'plain', 'none'}
    with pytest.raises(InputError, match=r"'000\.png' is in none"):
        defects.run(asked(folders, good=str(folders / 'normal'), products=True, overwrite=True))


def test_what_does_not_go_together(folders):
    assert defects.is_asked('', 'x', '') and not defects.is_asked('', '', str(folders / 'none'))
    (folders / 'empty/scratch').mkdir(parents=True)
    for fields, says in (
        ({'good': '', 'types': 'x'}, 'no normal images to compare them with: give --good=DIR'),
        ({'model': 'm.safetensors'}, 'leave --good out'),
        ({'query': folders / 'none'}, 'is not a directory'),
        ({'query': folders / 'empty'}, 'holds no images'),
        ({'size': 5}, 'size=5'),
        ({'range': 'a,b'}, '--range=a,b: need two numbers'),
        ({'crop': 'tiles'}, "crop='tiles': give the tiles' side"),
        ({'good': str(folders / 'new')}, 'give the one of normal images only, such as .*new/good'),
        ({'types': str(folders / 'empty')}, 'holds no image of that type'),
    ):
        with pytest.raises(InputError, match=says):
            defects.run(asked(folders, **fields))


def test_images_are_read_as_asked(folders):
    """16 bits by --range, and the centre only; what is passed over is counted."""
    for path in sorted([*(folders / 'normal').iterdir(), *(folders / 'new').rglob('*.png')]):
        wide = np.pad(np.asarray(Image.open(path)).astype(np.uint16) + 1000, ((0, 0), (9, 9)))
        Image.fromarray(wide).save(path)
    (folders / 'new/good/photo.dcm').write_bytes(bytes(128) + b'DICM')
    copy = (folders / 'normal/000.png').read_bytes()
    (folders / 'new/good/copy.png').write_bytes(copy)
    model = str(folders / 'm.safetensors')
    done = defects.run(asked(folders, range='1000,1255', crop='centre', save=model))
    assert AnomalyDetector.load(model).reading_ == ('centre', (1000, 1255), 200_000_000)
    assert (done['images'], done['defects'], done['unreadable']) == (15, 8, 1)
    assert done['notes'] == (
        '1 .txt files not read (good/notes.txt); '
        '1 queries with the same bytes as a normal image (good/copy.png)'
    )
    found = {row['path']: row for row in rows(folders)}
    assert 'DICOM: export it as PNG' in found['good/photo.dcm']['error']
    assert all(9 <= int(r['left']) < int(r['right']) <= 73 for r in found.values() if r['left'])
    assert 'centred square of an image is all' in (folders / 'out/report.html').read_text()
