"""The report page, parsed: what it must say, and what it must survive."""

import base64
import io
import json
from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from anyshot_jax import report
from anyshot_jax.config import SPINE
from anyshot_jax.report import figures, logs, probe
from anyshot_jax.types import Data, InputError, Method, TrainState, from_arrays

EVIL = '<script>alert(1)</script> "a" & $x_{$ \u4e2d\u6587 \u202egnp.exe \ud800'
STATE = TrainState(jnp.zeros((), jnp.int32), {}, (), {})
RESULT = {
    'values': {
        '5-way 1-shot': {'mean': 0.9876, 'ci95': 0.0021, 'n': 617},
        '20-way 5-shot': {'mean': 0.4321, 'ci95': 0.0055, 'n': 618},
    },
    'step': 1400, 'seed': 7, 'config_hash': 'ab12cd34ef56', 'versions': {'jax': '0.10.2'},
    'device': 'TPU v5', 'num_devices': 2, 'seconds': 3725.4, 'batch_norm': 'transductive',
    'counts': {'train': 9}, 'config_file': 'configs/my file.py',
}  # fmt: skip


@pytest.fixture(autouse=True)
def few_tasks(monkeypatch):
    """The least number of tasks: the page has the same parts."""
    monkeypatch.setattr(probe, 'WORK_FIXED', 0)
    monkeypatch.setattr(probe, 'WORK_SWEEP', 0)


def embed(state, x):
    return x.reshape(x.shape[0], -1).astype(jnp.float32) / (255 if x.dtype == jnp.uint8 else 1)


def predict(state, episode):
    """Nearest class mean on the items as they are: a real method with nothing to train."""
    one_hot = jax.nn.one_hot(episode.y_s, episode.class_id.shape[0]).T
    mean = one_hot @ embed(state, episode.x_s) / one_hot.sum(1, keepdims=True)
    delta = embed(state, episode.x_q)[:, None] - mean[None]
    return -(delta**2).sum(-1)


METHOD = Method(None, None, None, None, predict, embed)


def images(classes=12, size=28, channels=1, noise=60, count=9, turns=1):
    """Each class a random pattern of 4x4 blocks, its items noisy copies of it."""
    rng = np.random.default_rng(3)
    pattern = rng.integers(0, 256, (classes, 4, 4, channels))
    pattern = pattern.repeat(size // 4, 1).repeat(size // 4, 2)
    counts = np.broadcast_to(count, classes)
    label = np.arange(classes).repeat(counts)
    x = pattern[label] + rng.normal(0, noise, (len(label), size, size, channels))
    names = (EVIL, *(f'class {c}' for c in range(1, classes)))
    return from_arrays(np.clip(x, 0, 255).astype(np.uint8), label, names, turns=turns)


def config_of(**changes):
    config = ConfigDict(
        {**SPINE, 'method': {'name': 'protonet'}, 'data': {'name': 'glyphs', 'dir': EVIL}}
    )
    config.eval.queries = 6
    config.update(changes)
    return config


def write(workdir, dataset=None, *, method=METHOD, result=RESULT, steps=40, **changes):
    """A workdir as a run leaves it, reported; returns the parsed page."""
    config = config_of(**changes)
    (workdir / 'config.json').write_text(json.dumps(config.to_dict()))
    if result is not None:
        (workdir / 'result.json').write_text(json.dumps(result))
    if steps:
        (workdir / 'metrics.jsonl').write_text(metrics(steps))
    dataset = images() if dataset is None else dataset
    path = report.write(
        workdir,
        method=method,
        state=STATE,
        data=Data({'train': dataset, 'test': dataset}),
        config=config,
    )
    assert path == workdir / 'report.html'
    assert sorted(p.name for p in workdir.glob('*report*')) == ['report.html']
    return Page(path.read_text('utf-8'))


def metrics(steps):
    lines = []
    for step in range(50, 50 * steps + 1, 50):
        lines.append({
            'step': step, 'kind': 'train', 'loss': 3 / step, 'accuracy': 1 - 3 / step,
            'grad_norm': 1.0, 'steps_per_s': 12.5,
        })  # fmt: skip
        if step % 200 == 0:
            value = {'5-way 1-shot': 1 - 40 / (step + 50), '5-way 1-shot/ci95': 0.01}
            lines.append({'step': step, 'kind': 'val', **value})
    text = ''.join(json.dumps(line) + '\n' for line in lines)
    return text + 'not json\n[1]\n{"step": 3, "kind": "val", "5-wa'


class Page(HTMLParser):
    """Text, ids, images and links of a page; fails on an element left open."""

    VOID = ('meta', 'img', 'br', 'path', 'rect', 'circle', 'image', 'polyline', 'polygon')

    def __init__(self, source):
        super().__init__()
        self.source, self.open, self.text = source, [], ''
        self.tags, self.ids, self.alts, self.loads, self.pngs = [], [], [], [], []
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.ids += [attrs['id']] if 'id' in attrs else []
        self.alts += [attrs[k] for k in ('alt', 'aria-label') if k in attrs]
        if tag == 'img':
            assert attrs['alt']
        for link in (attrs.get('src'), attrs.get('href')):
            if link is not None:
                self.loads.append(link)
            if link and link.startswith('data:image/png;base64,'):
                image = Image.open(io.BytesIO(base64.b64decode(link.split(',')[1])))
                image.load()
                self.pngs.append(image)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ('style', 'title'):
            self.text += data.replace('\xa0', ' ')


def test_page_says_what_the_run_reached(tmp_path):
    page = write(tmp_path)
    for text in (
        'protonet on glyphs', '98.76 %', '± 0.21', '43.21 %', '± 0.55', '617', '618', '20 %', '5 %',
        'transductive', 'step 1,400', 'evaluated once',
        'TPU v5', 'ab12cd34ef56', '0.10.2', '1 h 2 min 5 s', '12.5', 'optim.learning_rate', '0.001',
        "python -m anyshot_jax.main --config='configs/my file.py' --workdir=",
    ):  # fmt: skip
        assert text in page.text, text
    assert set(page.ids) == {'curves', 'task', 'confusion', 'map', 'hardest', 'settings'}
    assert all(load[1:] in page.ids for load in page.loads if load.startswith('#'))


def test_page_loads_nothing_and_runs_nothing(tmp_path):
    page = write(tmp_path)
    assert all(load.startswith(('#', 'data:image/png;base64,')) for load in page.loads)
    assert not {'script', 'link', 'iframe', 'object'} & set(page.tags)
    assert '://' not in page.source and 'url(' not in page.source and '@import' not in page.source
    assert "default-src 'none'" in page.source


def test_strings_of_users_are_text(tmp_path):
    page = write(tmp_path)
    shown = EVIL.replace('\ud800', '?')
    assert shown in page.text  # as config value, data.dir
    assert any(shown in alt for alt in page.alts)
    assert '<script' not in page.source


def test_images_are_the_items(tmp_path):
    dataset = images(noise=0)
    page = write(tmp_path, dataset)
    items = {x[..., 0].tobytes() for x in dataset.x}
    assert len(page.pngs) > 40
    assert all(np.asarray(image).tobytes() in items for image in page.pngs)


@pytest.mark.parametrize(('size', 'channels'), [(84, 3), (224, 1)])
def test_large_images_are_made_small(tmp_path, size, channels):
    page = write(tmp_path, images(6, size, channels, count=8))
    assert {image.size for image in page.pngs} == {(figures.LARGEST, figures.LARGEST)}
    assert {image.mode for image in page.pngs} == {'RGB' if channels == 3 else 'L'}
    assert len(page.source) < 3e6


def test_same_run_same_bytes(tmp_path):
    assert write(tmp_path).source == write(tmp_path).source


@pytest.mark.parametrize('noise', [0, 60])
def test_task_marks_right_and_wrong(tmp_path, noise):
    page = write(tmp_path, images(noise=noise * 4))
    right = [alt for alt in page.alts if ': right,' in alt]
    wrong = [alt for alt in page.alts if ': wrong, taken for' in alt]
    assert len(right) + len(wrong) == 5 * 6
    assert bool(wrong) == bool(noise)
    assert f'{len(right)} of 30 queries right' in page.text
    assert page.text.count('✗ ') == len(wrong) + 1  # the sentence above explains the sign once
    assert ('No query was called by a wrong name' in page.text) == (not wrong)


def test_features_have_bars_for_images(tmp_path):
    rng = np.random.default_rng(0)
    label = np.arange(7).repeat(10)
    x = (rng.normal(size=(7, 5))[label] * 3 + rng.normal(size=(70, 5))).astype(np.float32)
    page = write(tmp_path, from_arrays(x, label, (EVIL, *'bcdefg')))
    assert not page.pngs
    assert sum(alt.startswith('query of') for alt in page.alts) == 30


def test_ragged_classes_and_too_few(tmp_path):
    page = write(tmp_path, images(6, count=[1, 9, 4, 9, 9, 20]))
    # The class of one item can't take part; the class of four leaves three queries for everyone.
    assert '5-way 1-shot' in page.text and 'of 15 queries right' in page.text
    assert not any(EVIL.replace('\ud800', '?') in alt for alt in page.alts)
    alone = write(tmp_path, images(1))
    assert 'no test classes to draw from' in alone.text and 'task' not in alone.ids


def test_turned_classes_are_turned(tmp_path):
    page = write(tmp_path, images(3, turns=4))
    assert any('class 1 turned 90' in alt for alt in page.alts)
    dataset = images(3, turns=4, noise=0)
    pool = probe.Pool.of(Data({'test': dataset}), config_of())
    np.testing.assert_array_equal(pool.first(1 + 3 * 1), np.rot90(pool.first(1)))


def test_missing_pieces_become_a_line(tmp_path):
    page = write(tmp_path, method=METHOD._replace(embed=None), result=None, steps=0)
    assert 'no embedding to map' in page.text
    assert 'logged no training metrics' in page.text
    assert 'No test values' in page.text and 'Run it again' not in page.text
    page = write(tmp_path, method=METHOD._replace(predict=None), result={'values': {'x': None}})
    assert 'no predict function' in page.text


def test_odd_files_are_read_with_patience(tmp_path):
    odd = {'values': {EVIL: {'mean': float('nan')}, '5-way 1-shot': 0.5}, 'step': None, 'counts': 3}
    page = write(tmp_path, result=odd)
    assert '50.00 %' in page.text
    (tmp_path / 'metrics.jsonl').write_bytes(
        b'{"step": 1, "kind": "train", "loss": NaN}\n{"step": 1, "kind": "val"}\n'
        b'{"step": 2, "kind": "train", "loss": -1.0, "steps_per_s": null}\n\xff\xfe'
    )
    (tmp_path / 'config.json').write_text('{"cut')
    page = write(tmp_path, result=odd, steps=0)
    assert 'Loss over training steps: train from -1 to -1.' in page.alts


def test_metrics_of_a_resumed_run_count_once(tmp_path):
    lines = [(1, 0.5), (2, 0.4), (3, 9.0), (2, 0.3), (3, 0.2)]
    text = ''.join(json.dumps({'step': s, 'kind': 'train', 'loss': v}) + '\n' for s, v in lines)
    (tmp_path / 'metrics.jsonl').write_text(text)
    train, val = logs.metrics(tmp_path / 'metrics.jsonl')
    assert logs.column(train, 'loss') == ([1, 2, 3], [0.5, 0.3, 0.2]) and val == []


def test_confusion_and_hardness_by_hand():
    # Two tasks of the classes 4 and 9, in either order; the last query of class 9 is called 4.
    scores = np.eye(2)[[[[0, 0], [1, 1]], [[0, 1], [1, 1]]]].astype(float)
    answers = probe.Answers(np.array([[4, 9], [9, 4]]), scores)
    ids, matrix = probe.confusion(answers)
    assert ids == [4, 9]
    np.testing.assert_allclose(matrix, [[1, 0], [0.25, 0.75]])
    assert probe.hardness(answers) == [probe.Hard(9, 3, 4, 4), probe.Hard(4, 4, 4, None)]


def test_every_class_takes_part_equally():
    pool = probe.Pool.of(Data({'test': images(10)}), config_of())
    seen = probe.every_class(lambda e: np.zeros((30, 5)), pool, np.random.default_rng(0)).class_id
    assert len(set(np.bincount(seen.ravel(), minlength=10))) == 1
    assert all(len(set(row)) == 5 for row in seen.tolist())


def test_confidence_names_what_it_shows():
    logits = np.array([[-3.0, 1.0]])
    values, word = probe.confidence(logits)
    np.testing.assert_allclose(values[0, 1], 1 / (1 + np.exp(-4)))
    assert word == 'softmax of its scores'
    assert probe.confidence(np.array([[0.3, 0.7]]))[1] == 'probability'
    assert probe.confidence(np.array([[0.3, 0.9]]))[1].startswith('score')


def test_map_is_the_principal_plane():
    pool = probe.Pool.of(Data({'test': images(5)}), config_of())
    found = probe.embeddings(METHOD, STATE, pool, np.random.default_rng(0))
    points = np.concatenate(found.points)
    z = np.concatenate([pool.x[pool.rows(c)] for c in found.class_id]).reshape(45, -1) / 255
    variance = np.sort(np.linalg.eigvalsh(np.cov(z.T)))[::-1]
    np.testing.assert_allclose(np.sort(points.var(0, ddof=1))[::-1], variance[:2], rtol=1e-4)
    np.testing.assert_allclose(found.explained, variance[:2].sum() / variance.sum(), rtol=1e-4)
    # Class by class, whatever the order in which they were embedded.
    centre = np.stack([p.mean(0) for p in found.points])
    near = ((points[:, None] - centre) ** 2).sum(-1).argmin(1)
    assert (near == np.arange(5).repeat(9)).mean() > 0.6


def test_embeddings_that_are_not_finite_have_no_map(tmp_path):
    broken = METHOD._replace(embed=lambda state, x: embed(state, x) / 0.0)
    assert 'not finite' in write(tmp_path, method=broken).text
    same = METHOD._replace(embed=lambda state, x: jnp.zeros((x.shape[0], 1)))
    assert 'hold 0 %' in write(tmp_path, method=same).text


def test_a_failed_write_keeps_the_old_page(tmp_path, monkeypatch):
    before, names = write(tmp_path).source, sorted(p.name for p in tmp_path.iterdir())
    monkeypatch.setattr('os.replace', lambda a, b: (_ for _ in ()).throw(OSError('disk full')))
    with pytest.raises(InputError, match='disk full'):
        write(tmp_path, seed=5)
    assert (tmp_path / 'report.html').read_text() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == names


def test_members_of_a_population(tmp_path):
    """Settings and members stand side by side, the one that diverged too; names are escaped."""
    values = {'5-way 1-shot': {'mean': 0.75, 'ci95': 0.03, 'n': 2}}
    one = lambda seed, rate, **more: {
        'seed': seed, 'setting': {EVIL: rate}, 'validation': 0.5 + rate, 'step': 20, 'diverged': 0,
        'values': values, 'config_hash': '', **more,
    }  # fmt: skip
    gone = {'diverged': 40, 'values': None, 'validation': None}
    of = lambda rate, n: {'setting': {EVIL: rate}, 'chosen': n == 2, 'seeds': n, 'values': values}
    members = [one(3, 0.1), one(4, 0.1), one(3, 0.4), one(4, 0.4, **gone)]
    settings = [of(0.1, 2), of(0.4, 1)]
    result = {**RESULT, 'values': values, 'members': members, 'settings': settings, 'seeds': 2}
    own = {'5-way 1-shot': [0.6, 0.61, 0.9, None]}
    line = {'step': 20, 'kind': 'val', '5-way 1-shot': 0.6, 'members': own}
    (tmp_path / 'metrics.jsonl').write_text(json.dumps(line))
    page = write(tmp_path, result=result, steps=0)
    assert EVIL[:8] not in page.source
    assert '4 runs were trained by one program' in page.text
    assert page.text.count('best on validation') >= 2 and 'diverged at step 40' in page.text
    assert '2 seeds from seed 7' in page.text and 'mean over the seeds' in page.text
    assert 'Validation, 5-way 1-shot of 3 members' in page.source
