"""The any-shot part of the report: paths of centres, graphs, synthesised items, every class."""

import json
import re
from html import unescape

import jax
import numpy as np
import pytest

from anyshot_jax import config as configs
from anyshot_jax import report
from anyshot_jax.report import anyshot, maps, probe
from anyshot_jax.runtime.devices import on_all_devices
from anyshot_jax.types import Data, from_arrays

pytestmark = pytest.mark.slow

EVIL = '<b onclick="x">&'
DIM, CLASSES, FAKES = 5, 4, 6
NUMBER = r'(-?[\d.]+)'
ANY = ('centres', 'graph', 'synthesised', 'by-class')


@pytest.fixture(autouse=True)
def few_tasks(monkeypatch):
    monkeypatch.setattr(probe, 'WORK_FIXED', 0)
    monkeypatch.setattr(probe, 'WORK_SWEEP', 0)


def blobs(num, distance, seed, words=False):
    rng = np.random.default_rng(seed)
    means = distance * np.linalg.qr(rng.normal(size=(DIM, DIM)))[0][:num]
    label = np.repeat(np.arange(num), 12)
    x = means[label] + rng.normal(size=(len(label), DIM))
    extras = {'attribute': np.eye(num, dtype=np.float32)} if words else {}
    names = (EVIL, *(f'class {c}' for c in range(1, num)))
    return from_arrays(x.astype(np.float32), label, names, extras=extras), means


def data_of(distance, synthesised=True, words=False):
    test, means = blobs(CLASSES, distance, 0, words)
    data = Data({'train': blobs(CLASSES, distance, 7, words)[0], 'test': test})
    if synthesised:
        noise = 0.1 * np.random.default_rng(1).normal(size=(CLASSES, FAKES, DIM))
        data.stages['made'] = {'test': (means[:, None] + noise).astype(np.float32)}
    return data


def page(workdir, name='refine', tasks=((3, 2), (3, 0)), distance=3.0, data=None, **fields):
    """The sections of a report, by anchor; and the method with what it works on."""
    config = configs.defaults(name, 'synthetic')
    config.num_steps = 0
    config.method.update(fields)
    config.eval.update({'tasks': tasks, 'queries': 5, 'episodes': 30})
    data = data_of(distance) if data is None else data
    method = configs.find('methods', name).build(config, data)
    data = on_all_devices(data)
    state = on_all_devices(jax.jit(method.init)(jax.random.key(0), data))
    (workdir / 'config.json').write_text(json.dumps(config.to_dict()))
    path = report.write(workdir, method=method, state=state, data=data, config=config)
    html = path.read_text('utf-8')
    assert EVIL not in html
    found = dict(re.findall(r'<section id="([\w-]+)">(.*?)</section>', html, re.DOTALL))
    return found, (method, state, data, config)


def places(svg, kind):
    """[n, 2] of the marks of a kind, class by class."""
    shape = maps.SHOT if kind == 'shot' else maps.MADE
    paths = re.findall(rf'<path class="{kind}" d="(.*?)"', svg)
    each = [re.findall(f'M{NUMBER} {NUMBER}{re.escape(shape)}', d) for d in paths]
    return [np.array(found, float) for found in each]


def walks(svg):
    lines = re.findall(r'class="walk" points="(.*?)"', svg)
    return [np.array([p.split(',') for p in line.split()], float) for line in lines]


@pytest.mark.parametrize('graph', [False, True])
def test_every_path_starts_at_the_mean_of_its_support(tmp_path, graph):
    fields = {'transductive': True, 'graph': graph, 'rounds': 30}
    data = data_of(3.0, synthesised=False)
    found, _ = page(tmp_path, tasks=((3, 4),), data=data, **fields)
    assert set(ANY) & set(found) == {'centres', 'graph', 'by-class'}
    (svg,) = re.findall(r'<svg class="map".*?</svg>', found['centres'], re.DOTALL)
    shots, lines = places(svg, 'shot'), walks(svg)
    assert [len(s) for s in shots] == [4] * 3 and len(lines) == 3
    queries = np.array(re.findall(rf'class="spot" cx="{NUMBER}" cy="{NUMBER}" r="4"', svg), float)
    assert queries.shape == (15, 2)
    for w, (own, line) in enumerate(zip(shots, lines, strict=True)):
        assert line.shape == (31, 2)
        np.testing.assert_allclose(line[0], own.mean(0), atol=0.11)  # printed to one digit
        # They end nearer to the mean of their queries than they started: so tight are the classes.
        end = queries[w * 5 : w * 5 + 5].mean(0)
        assert np.linalg.norm(line[-1] - end) < np.linalg.norm(line[0] - end)
    assert ('embedding of the graph' in found['graph']) == graph


def test_synthesised_support_starts_the_paths_at_0_shots(tmp_path):
    found, _ = page(tmp_path, transductive=True, synthesised_from='made', distance=8.0)
    assert set(ANY) <= set(found)
    few, none = re.findall(r'<svg class="map".*?</svg>', found['centres'], re.DOTALL)
    assert [len(p) for p in places(none, 'made')] == [FAKES] * 3 and not places(none, 'shot')
    for own, line in zip(places(none, 'made'), walks(none), strict=True):
        np.testing.assert_allclose(line[0], own.mean(0), atol=0.11)
    shots, made = places(few, 'shot'), places(few, 'made')
    for real, own, line in zip(shots, made, walks(few), strict=True):
        # Two shots count 1 each, all synthesised items of a class synthesised_weight together.
        want = (real.sum(0) + 0.5 * own.mean(0)) / 2.5
        np.testing.assert_allclose(line[0], want, atol=0.11)
    for said in ('3-way 2-shot + synthesis, transductive: 100.0', '3-way 0-shot, transductive'):
        assert said in found['centres']
    assert '100.0&nbsp;% of the synthesised items' in found['synthesised']
    assert found['synthesised'].count('class="made"') == 3  # the episode's classes


def test_wrong_answers_are_ringed(tmp_path):
    """As many rings as the title leaves out."""
    found, _ = page(tmp_path, transductive=True, synthesised_from='made', distance=2.0)
    svgs = re.findall(r'<figcaption>(.*?)</figcaption>(<svg.*?</svg>)', found['centres'], re.DOTALL)
    assert len(svgs) == 2
    for title, svg in svgs:
        right = float(re.search(r'transductive: ([\d.]+)&nbsp;% of 15', title)[1])
        assert svg.count('class="wrong"') == round(15 * (1 - right / 100))
        assert 0 < right < 100
    assert '86.7&nbsp;% of 15 queries right; inductive: 80.0' in svgs[1][0]  # they differ


def test_edges_are_the_nearest_neighbours(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    sim = unit @ unit.T - 9 * np.eye(20)
    near = np.argsort(-sim, 1)[:, :3]
    want = {tuple(sorted((i, int(j)))) for i in range(20) for j in near[i] if sim[i, j] > 0}
    assert {tuple(e) for e in maps.edges(x, 3).tolist()} == want


@pytest.mark.parametrize('synthesised', [False, True])
def test_without_transduction_there_are_no_paths(tmp_path, synthesised):
    fields = {'synthesised_from': 'made'} if synthesised else {}
    tasks = ((3, 1), (3, 0)) if synthesised else ((3, 1),)
    found, _ = page(tmp_path, tasks=tasks, **fields)
    assert set(ANY) & set(found) == ({'synthesised', 'by-class'} if synthesised else set())


def test_accuracy_of_every_class_is_that_of_the_run(tmp_path, monkeypatch):
    """All classes in every task: the mean over classes is the mean over the same episodes."""
    monkeypatch.setattr(anyshot, 'TASKS', 30)
    found, (method, state, data, _) = page(
        tmp_path, tasks=((CLASSES, 1), (CLASSES, 0)), transductive=True, synthesised_from='made'
    )
    key = jax.random.split(jax.random.key(0), 4)[3]
    values = method.evaluate(state, data, key, 'test')
    head = [unescape(h) for h in re.findall(r'<th scope="col">(.*?)</th>', found['by-class'])]
    assert head[2:] == list(values)
    cells = np.array(re.findall(r'<td>([\d.]+)&nbsp;%</td>', found['by-class']), float)
    cells = cells.reshape(CLASSES, len(values)) / 100
    want = [float(v.mean()) for v in values.values()]
    np.testing.assert_allclose(cells.mean(0), want, atol=6e-4)
    assert (np.diff(cells[:, 0]) >= 0).all()  # the worst come first


def test_features_from_words(tmp_path):
    data = data_of(6.0, synthesised=False, words=True)
    data.roles['train'] = data.roles['test']  # the words of a class tell its mean
    found, (method, state, data, _) = page(tmp_path, 'ridge', data=data, penalty=0.01)
    assert set(ANY) & set(found) == {'synthesised', 'by-class'}
    key = jax.random.split(jax.random.key(0), 4)[3]
    want = np.asarray(method.evaluate(state, data, key, 'test')['zero-shot'])
    rows = re.findall(r'<td><bdi>(.*?)</bdi></td><td>.*?</td><td>([\d.]+)', found['by-class'])
    got = {unescape(name): float(value) / 100 for name, value in rows}
    for c, name in enumerate(data.roles['test'].names):
        assert got[name] == pytest.approx(want[c], abs=6e-4)


def test_features_that_are_not_finite_are_a_line(tmp_path):
    data = data_of(3.0)
    data.roles['test'] = data.roles['test'].replace(x=data.roles['test'].x * np.nan)
    found, _ = page(tmp_path, data=data, transductive=True, synthesised_from='made')
    assert 'not finite' in found['centres']


def test_other_methods_have_no_such_part(tmp_path):
    found, _ = page(tmp_path, 'simpleshot', tasks=((3, 1),), data=data_of(3.0, synthesised=False))
    assert not set(ANY) & set(found)


def test_the_task_drawn_has_shots(tmp_path):
    """Also where the result's first column is for none."""
    found, _ = page(tmp_path, tasks=((3, 0), (3, 2)), synthesised_from='made')
    assert '3-way 2-shot' in found['task']


def test_the_table_says_how(tmp_path):
    """Four results of one task have a name each."""
    page(tmp_path, synthesised_from='made', transductive=True)
    values = {'3-way 2-shot': 0.5, '3-way 2-shot transductive + synthesis': 0.6}
    result = {'values': {k: {'mean': v, 'ci95': 0.1, 'n': 30} for k, v in values.items()}}
    (tmp_path / 'result.json').write_text(json.dumps(result))
    page(tmp_path, synthesised_from='made', transductive=True)
    html = (tmp_path / 'report.html').read_text('utf-8')
    assert '<td>2</td>' in html and '<td>2 transductive + synthesis</td>' in html
