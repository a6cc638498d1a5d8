"""The weak-shot part of the report: best and worst images, matrices, histogram, rungs."""

import json
import re

import jax
import numpy as np

from anyshot_jax import config as configs
from anyshot_jax.report import ablation, charts, web_weights
from anyshot_jax.types import Data, from_arrays

EVIL = '<b onclick="x">&'


def data_of(clean=True, num=9):
    """Three classes; item i of a class has its number as its place on a circle, wrong ones far."""
    label = np.repeat(np.arange(3), num)
    right = np.tile(np.arange(num) < 6, 3)
    rng = np.random.default_rng(0)
    mean = 4 * rng.normal(size=(4, 5))
    x = np.where(right[:, None], mean[label], 6 * rng.normal(size=(len(label), 5)))
    x = (x + 0.1 * rng.normal(size=x.shape)).astype(np.float32)
    web = from_arrays(x, label, (EVIL, 'b', 'c'), clean=right if clean else None)
    test = from_arrays(mean[[0, 1, 2]].astype(np.float32), np.arange(3), (EVIL, 'b', 'c'))
    return jax.device_put(Data({'base': test, 'web': web, 'test': test}))


def sections(data, shown=None, kind='mean'):
    config = configs.defaults('weigh', 'noisy')
    config.num_steps = 0
    config.method.kind = kind
    method = configs.find('methods', 'weigh').build(config, data)
    state = method.init(jax.random.key(0), data)
    html = ''.join(web_weights.sections(method, state, data, shown))
    assert EVIL not in html
    found = dict(re.findall(r'<section id="([\w-]+)">(.*?)</section>', html, re.DOTALL))
    return found, np.asarray(method.export(state, data, None)['weight'])


def test_histogram_counts_every_image():
    data = data_of()
    found, weight = sections(data)
    assert list(found) == ['weights', 'best-worst', 'similarities']
    clean = np.asarray(data.roles['web'].clean)
    means = re.findall(r'mean weight is ([\d.]+), that of the others (\d+\.\d+)', found['weights'])[
        0
    ]
    want = weight[~clean].mean(), weight[clean].mean()
    np.testing.assert_allclose(list(map(float, means)), want, atol=0.006)
    assert '9 of 27 labels are wrong' in found['weights']
    # Bars are as high as their counts: the highest has the whole height.
    for kind, chosen in (('k3', clean), ('k2', ~clean)):
        high = [
            float(h)
            for h in re.findall(rf'class="bar {kind}".*?height="([\d.]+)"', found['weights'])
        ]
        edges = np.linspace(0, weight.max(), web_weights.BINS + 1)
        most = max(np.histogram(weight[c], edges)[0].max() for c in (clean, ~clean))
        count = np.array(high) * most / (charts.BARS_HIGH - charts.BELOW - charts.TOP)
        np.testing.assert_allclose(count.sum(), chosen.sum(), atol=0.1)


def test_how_wrong_labels_are_told_is_said():
    data = data_of()
    found, _ = sections(data, kind='planted')  # its base classes have one item each
    assert 'there are 0: cosine at temperature 0.4' in found['chosen']
    label = np.repeat(np.arange(6), 8)
    mean = 4 * np.random.default_rng(7).normal(size=(6, 5))
    x = mean[label] + np.random.default_rng(8).normal(size=(48, 5))
    data = Data({**data.roles, 'base': from_arrays(x.astype(np.float32), label)})
    found, weight = sections(jax.device_put(data), kind='planted')
    share = int(re.search(r'(\d+)% of the web labels seem to be wrong', found['chosen'])[1])
    assert 20 < share < 50  # nine of 27
    assert found['chosen'].count('taken') == 1 and found['chosen'].count('<tr>') == 4
    np.testing.assert_allclose(weight.reshape(3, 9).mean(1), 1, rtol=1e-5)


def test_best_and_worst_are_in_order():
    data = data_of()
    found, weight = sections(data)
    html, clean = found['best-worst'], np.asarray(data.roles['web'].clean)
    ways = html.split('<div class="way">')[1:]
    assert len(ways) == 3
    for c, way in enumerate(ways):
        shown = [float(w) for w in re.findall(r'title="weight ([\d.]+)', way)]
        own = np.sort(weight[9 * c : 9 * c + 9])[::-1]
        np.testing.assert_allclose(shown, np.round(own, 2), atol=0.006)  # 5 best, 4 worst
    assert html.count('label wrong"><svg') == (~clean).sum()
    assert html.count('✗ ') == (~clean).sum() + 1  # and the line that says what it is


def test_unknown_truth_is_said_and_not_drawn():
    found, _ = sections(data_of(clean=False))
    assert 'not known here' in found['weights'] and 'wrong' not in found['best-worst']
    assert 'labels are right' not in found['similarities']


def test_images_stand_for_features():
    shown = np.zeros((27, 4, 4, 3), np.uint8)
    found, _ = sections(data_of(), shown)
    assert found['best-worst'].count('<img') == 27 and '<svg' not in found['best-worst']


def test_matrix_is_drawn_to_scale():
    sim = np.array([[1.0, 0.5], [0.0, 1.0]])
    html = web_weights._matrix('title', sim)
    assert 'title, 0.00 to 1.00' in html and html.count('data:image/png') == 1


def test_rungs_are_the_finished_classifiers(tmp_path):
    for i, (folder, name, done) in enumerate(
        [('ce', 'weakshot', True), ('full', 'weakshot', True), ('simnet', 'simnet', True),
         ('later', 'weakshot', False)]
    ):  # fmt: skip
        place = tmp_path / folder
        place.mkdir()
        fields = {'name': name, 'alpha': 0.1 * i, 'weights_from': 'w' * i}
        (place / 'config.json').write_text(json.dumps({'method': fields}))
        if done:
            result = {'values': {'accuracy': {'mean': 0.5 + i / 10, 'ci95': 0.1, 'n': 3}}}
            (place / 'result.json').write_text(json.dumps(result))
    (tmp_path / 'ce' / 'broken').mkdir()
    html = ablation.ablation(tmp_path / 'full', 'weakshot')
    rows = re.findall(r'<tr><td>(.*?)</tr>', html)
    assert len(rows) == 2 and '(this page)' in rows[1]
    assert 'none' in rows[0] and '50.00' in rows[0] and '60.00' in rows[1] and '0.1' in rows[1]
    (tmp_path / 'full' / 'result.json').write_text('{')
    assert len(re.findall(r'<tr><td>', ablation.ablation(tmp_path / 'full', 'weakshot'))) == 1
    (tmp_path / 'ce' / 'result.json').unlink()
    assert 'No stage of this recipe is finished' in ablation.ablation(tmp_path / 'full', 'weakshot')
