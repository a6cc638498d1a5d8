"""The report on defects: where the outline is, what is counted, which patch is nearest."""

import json
import re
from html import unescape

import jax
import numpy as np
import pytest
import tiny_maps
from scipy.spatial.distance import cdist
from sklearn.metrics import confusion_matrix, roc_auc_score
from tiny_maps import bright_squares

from anyshot_jax import config as configs
from anyshot_jax import report
from anyshot_jax.defects import memory_bank
from anyshot_jax.report import defect_types, detection, overlay
from anyshot_jax.runtime.devices import on_all_devices
from anyshot_jax.storage import files
from anyshot_jax.types import Data, from_arrays

pytestmark = pytest.mark.slow

EVIL = '<b onclick="x">&'


def test_outline_is_just_outside_of_the_mask():
    mask = np.zeros((9, 9), bool)
    mask[3:6, 2:5] = True
    want = np.zeros((9, 9), bool)
    want[2, 2:5] = want[6, 2:5] = want[3:6, 1] = want[3:6, 5] = True
    np.testing.assert_array_equal(overlay.outline(mask), want)
    black = np.zeros((9, 9, 3), np.uint8)
    drawn = overlay.with_outline(black, mask, (1, 2, 3))
    np.testing.assert_array_equal(drawn, want[..., None] * np.uint8([1, 2, 3]))
    assert not black.any() and not overlay.outline(np.ones((4, 4), bool)).any()


def test_outline_of_a_dot_is_not_lost_when_small():
    mask = np.zeros((90, 90), bool)
    mask[41, 47] = True  # not at the middle of the pixel that it falls on
    drawn = overlay.with_outline(np.zeros((9, 9, 3), np.uint8), mask)
    assert set(map(tuple, np.argwhere(drawn.any(-1)))) == {(3, 4), (5, 4), (4, 3), (4, 5)}


def test_heat_is_where_the_scores_are():
    image = np.full((4, 4, 3), 100, np.uint8)
    scores = np.ones((4, 4))
    scores[1, 2] = 9
    hot = overlay.with_heat(image, scores, 2, 5)
    changed = (hot != image).any(-1)
    assert changed.sum() == 1 and changed[1, 2]
    # 45 % of the image and 55 % of the last colour.
    np.testing.assert_array_equal(hot[1, 2], np.round(45 + 0.55 * overlay.HEAT[-1]))
    # Halfway: all of the alpha, the middle colour.
    np.testing.assert_array_equal(
        overlay.with_heat(image, scores * 0 + 3.5, 2, 5)[0, 0],
        np.round(45 + 0.55 * overlay.HEAT[2]),
    )


@pytest.mark.parametrize(
    ('cell', 'want'), [((0, 0), (0, 0)), ((3, 2), (36, 20)), ((7, 7), (60, 60))]
)
def test_what_surrounds_a_cell(cell, want):
    """Of an image of 100 and cells of 12.5: 5 cells of 13 are 65 pixels, at most 35 from 0."""
    x = np.stack(np.indices((100, 100)), -1)
    part = overlay.around(x, cell, (8, 8))
    assert part.shape == (65, 65, 2)
    middle = [(s.start + s.stop) // 2 for s in overlay.box(cell, (8, 8), (100, 100))]
    assert part[0, 0].tolist() == [min(max(m - 32, 0), 35) for m in middle]
    assert overlay.box(cell, (8, 8), (100, 100))[0].start == int(cell[0] * 12.5)


def test_shown_sizes():
    assert overlay.on_page(np.zeros((448, 112, 1), np.uint8)).shape == (224, 56, 3)
    assert overlay.on_page(np.zeros((20, 30, 3), np.uint8)).shape == (20, 30, 3)


def test_counts_are_sklearns():
    rng = np.random.default_rng(0)
    label = np.sort(rng.integers(0, 4, 50))
    answers = rng.choice([-1, 0, 2, 3], (7, 50))
    answers[:, label == 1] = -1  # not a type of these draws
    asked = answers >= 0
    want = confusion_matrix(np.tile(label, (7, 1))[asked], answers[asked], labels=[0, 2, 3])
    np.testing.assert_array_equal(defect_types.count(answers, label, np.array([0, 2, 3])), want)


def test_half_of_the_shown_are_wrong_and_of_different_parts():
    right = np.array([1, 0, 0, 0, 1, 1, 0], bool)
    group = np.array([5, 7, 7, 8, 5, 6, 9])
    assert defect_types.some_of(right, group, 4).tolist() == [1, 3, 0, 5]
    assert defect_types.some_of(right, group, 6).tolist() == [1, 3, 6, 0, 5, 4]
    assert defect_types.some_of(right & False, group, 4).tolist() == [0, 1, 3, 5]
    assert defect_types.some_of(right | True, group, 3).tolist() == [0, 1, 3]
    assert defect_types.some_of(right[:0], group[:0], 4).tolist() == []


def test_lowest_highest_and_some_are_chosen():
    score = np.array([3.0, 1, 5, 2, 4])
    found = detection.choose(score, np.random.default_rng(0))
    assert found[:2] == [(1, 'lowest'), (2, 'highest')]
    assert len({i for i, _ in found}) == 4 and [why for _, why in found[2:]] == ['', '']
    assert detection.choose(score[:1], np.random.default_rng(0)) == [(0, '')]


def written(workdir, config, data, shown=None):
    """The page of a run that learns nothing, and the method with its state."""
    method = configs.find('methods', config.method.name).build(config, data)
    data = on_all_devices(data)
    state = on_all_devices(jax.jit(method.init)(jax.random.key(0), data))
    (workdir / 'config.json').write_text(json.dumps(config.to_dict()))
    given = {'method': method, 'state': state, 'data': data, 'config': config, 'images': shown}
    return report.write(workdir, **given).read_text('utf-8'), method, state, data


def detector(monkeypatch, masks=True):
    monkeypatch.setattr(memory_bank, 'load', tiny_maps.net)
    config = configs.defaults('patchcore', 'synthetic')
    config.num_steps = 0
    given = {'layers': ('stride2', 'stride4'), 'size': 16, 'smooth': 1.0, 'encoder': 'tiny'}
    config.method.update(given)
    one = lambda n, seed: from_arrays(bright_squares(n, seed)[0], np.zeros(n, int), ('good',))
    x, mask = bright_squares(12, 3, 60)
    names = (EVIL, 'small')
    test = from_arrays(x, np.repeat([0, 1], 6), names, mask=mask if masks else None)
    return config, Data({'good': one(10, 1), 'good_test': one(9, 2), 'test': test})


@pytest.mark.parametrize('masks', [True, False])
def test_page_of_a_detector(tmp_path, monkeypatch, masks):
    html, *_ = written(tmp_path, *detector(monkeypatch, masks))
    anchors = re.findall(r'<section id="([\w-]+)">', html)
    assert anchors == ['curves', 'detection', 'places', 'settings']
    assert html.count('class="find"') == 12 and EVIL not in html and EVIL in unescape(html)
    assert 'ROC, area 1.0000' in html and html.count('the highest</figcaption>') == 1  # of good
    said = re.findall(
        r'<figcaption>score [^<]*?; higher than (\d+)&nbsp;% of the normal ones', html
    )
    assert said == ['100'] * 8  # all bright squares


def test_roc_of_the_page_is_that_of_the_scores(tmp_path, monkeypatch):
    config, data = detector(monkeypatch)
    x, mask = bright_squares(12, 3, 3)
    data.roles['test'] = from_arrays(x, np.repeat([0, 1], 6), ('big', 'small'), mask=mask)
    html, _, state, _ = written(tmp_path, config, data)
    patcher = memory_bank.load_patcher('tiny', config.method.layers, size=16)
    good, bad = (
        memory_bank.anomaly_maps(patcher, np.asarray(state.extra['bank']), data.roles[role].x)
        for role in ('good_test', 'test')
    )
    score = np.concatenate([m.max((1, 2)) for m in (good, bad)])
    area = roc_auc_score([0] * 9 + [1] * 12, score)
    assert 0.5 < area < 1 and f'ROC, area {area:.4f}' in html


def test_nearest_normal_patch_is_found_where_it_was_remembered(monkeypatch):
    config, data = detector(monkeypatch)
    patcher = memory_bank.load_patcher('tiny', config.method.layers, size=16)
    good, x = data.roles['good'].x, data.roles['test'].x
    bank, rows = memory_bank.choose(patcher, good, 0.1, 128, 0)
    patches = np.asarray(patcher.apply(patcher.params, x))
    cells = np.random.default_rng(0).integers(0, 8, (len(x), 2))
    asked = patches[np.arange(len(x)), cells[:, 0], cells[:, 1]]
    near = rows[cdist(asked, bank).argmin(1)]
    found = detection.nearest_normal(patcher, bank, x, cells, good)
    for place, row in zip(found, near, strict=True):
        image, patch = divmod(row, 64)
        assert place.cell == divmod(patch, 8)
        np.testing.assert_array_equal(place.image, good[image])


def namer(shots=(1, 2)):
    """Three types, two of them alike, on parts that show two images each; one has two parts."""
    config = configs.defaults('anomaly', 'synthetic', 'beside')
    config.num_steps = 0
    config.eval.tasks = ((10, 2),)  # of synthetic types, of which the real ones are fewer
    config.method.update({'shots': shots, 'draws': 5})
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1, 2], [10, 10, 4])
    group = np.arange(24) // 2
    x = np.eye(4)[[0, 1, 1]][label] * 6 + rng.normal(size=(24, 4))
    shown, mask = bright_squares(24, 1, 60)
    test = from_arrays(x.astype(np.float32), label, (EVIL, 'b', 'c'), group=group, mask=mask)
    return config, Data({'test': test}), shown


def test_page_of_types(tmp_path):
    config, data, shown = namer()
    html, method, state, data = written(tmp_path, config, data, shown)
    sections = dict(re.findall(r'(?s)<section id="([\w-]+)">(.*?)</section>', html))
    assert list(sections) == ['curves', 'types-1', 'types-2', 'map', 'settings']
    assert EVIL not in html and EVIL in unescape(html)
    made = jax.device_get(
        method.export(state, data, jax.random.split(jax.random.key(config.seed), 4)[3])
    )
    for shots in (1, 2):
        answers = made[f'{shots}-shot answers']
        label = np.asarray(data.roles['test'].label)
        kept = [0, 1, 2] if shots == 1 else [0, 1]
        aside = 'Left out, with too few parts: <bdi>c</bdi>' in sections[f'types-{shots}']
        assert aside == (shots == 2)
        want = confusion_matrix(
            np.tile(label, (5, 1))[answers >= 0], answers[answers >= 0], labels=kept
        )
        cells = re.findall(r'<td(?: class="full")? title="(\d+)"', sections[f'types-{shots}'])
        assert [int(c) for c in cells] == [n for n in want.flat if n]
        told = re.findall(r'(\d+) of (\d+) right', sections[f'types-{shots}'])
        asked, right = answers[0] >= 0, answers[0] == label
        own = [label == c for c in kept]
        assert told == [(str((asked & right & o).sum()), str((asked & o).sum())) for o in own]


def test_exported_answers_are_the_tests(tmp_path):
    """The same draws as the test's, apart by parts, and they survive as artifacts."""
    config, data, _ = namer()
    method = configs.find('methods', 'anomaly').build(config, data)
    data = on_all_devices(data)
    state, key = jax.jit(method.init)(jax.random.key(0), data), jax.random.key(4)
    values = jax.device_get(method.evaluate(state, data, key, 'test'))
    made = jax.device_get(method.export(state, data, key))
    label, group = np.asarray(data.roles['test'].label), np.asarray(data.roles['test'].group)
    for shots, types in ((1, 3), (2, 2)):
        support, answers = made[f'{shots}-shot support'], made[f'{shots}-shot answers']
        assert support.shape == (5, types, shots) and answers.shape == (5, 24)
        for rows, answer, micro in zip(
            support, answers, values[f'{shots}-shot micro'], strict=True
        ):
            asked = answer >= 0
            assert not set(group[asked]) & set(group[rows.reshape(-1)])
            assert (label[rows] == np.arange(types)[:, None]).all()
            assert micro == pytest.approx((answer == label)[asked].mean())
    files.save_artifacts(tmp_path / 'artifacts.npz', made)
    kept = files.load_artifacts(tmp_path / 'artifacts.npz')
    jax.tree.map(np.testing.assert_array_equal, made, kept)


def test_pages_are_the_same_again(tmp_path):
    first, again = (written(tmp_path, *namer())[0] for _ in range(2))
    assert first == again
