"""Residuals on a net of known maps, against all distances and sums written out in NumPy."""

import numpy as np
import pytest
import tiny_maps

from anyshot_jax import config as configs
from anyshot_jax.defects import memory_bank, residual
from anyshot_jax.types import Data, InputError, from_arrays

pytestmark = pytest.mark.slow

LAYERS = ('stride2', 'stride4')


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(memory_bank, 'load', tiny_maps.net)


def fields(**given):
    made = configs.defaults('knn', 'synthetic').residual
    small = {'encoder': 'tiny', 'layers': LAYERS, 'head': 'stride4', 'size': 16, 'ratio': 0.2}
    made.update(small | given)
    return made


def images(n, seed=0, channels=1):
    """Noise around grey, in each image a bright square of 5x5."""
    rng = np.random.default_rng(seed)
    x = rng.normal(110, 10, (n, 16, 16, channels))
    for one, row, column in zip(x, *rng.integers(0, 11, (2, n)), strict=True):
        one[row : row + 5, column : column + 5] += 80
    return np.clip(x, 0, 255).astype(np.uint8)


def make(channels=1):
    """Normal images, real defects on others, synthetic ones that were made on rows of good."""
    rng = np.random.default_rng(7)
    good = np.clip(rng.normal(110, 10, (9, 16, 16, channels)), 0, 255).astype(np.uint8)
    two = ('a', 'b')
    rows = np.array([4, 0, 2, 2, 8, 1])
    made = good[rows]
    made[1:, 3:7, 5:9] = 255 - made[1:, 3:7, 5:9]  # the first stays as it was
    roles = {
        'good': from_arrays(good, np.zeros(9, int), ('good',)),
        'good_test': from_arrays(good[:3], np.zeros(3, int), ('good',)),
        'test': from_arrays(images(5, 3, channels), [0, 0, 0, 1, 1], two, group=np.arange(5)),
        'train': from_arrays(made, [0, 0, 0, 1, 1, 1], two, group=rows),
    }
    return Data(roles)


def seen_in_numpy(data, of, role):
    """The parts of the peaks and the map of residuals, before they are compared with usual ones."""
    patcher = memory_bank.load_patcher('tiny', LAYERS, size=16)
    patches = lambda x: np.asarray(patcher.apply(patcher.params, x), float)
    dataset = data.roles[role]
    x, bank = patches(dataset.x), memory_bank.fit(patcher, data.roles['good'].x, ratio=of.ratio)
    dist = np.linalg.norm(x[..., None, :] - bank, axis=-1)
    normal = bank[dist.argmin(-1)]
    if of.synthetic_against == 'source' and role == 'train':
        normal = patches(data.roles['good'].x)[dataset.group]
    dist = np.linalg.norm(x - normal, axis=-1)
    found = x - normal if of.subtract else x
    head = np.asarray(patcher.maps(patcher.params, dataset.x)[of.head or 'stride4'], float)
    cells = dist.reshape(-1, 4, 2, 4, 2).max((2, 4))
    peaks = []
    for i in range(len(x)):
        parts = []
        for values, weight in ((found, dist), (head, cells), (head, cells * 0)):
            w = np.ones(weight[i].shape) if weight[i].max() == 0 else weight[i]
            w = (w / w.max()) ** of.sharpness
            total = sum(w[r, c] * values[i, r, c] for r in range(len(w)) for c in range(len(w)))
            parts.append(total / w.sum())
        parts[1:] = [np.sqrt(np.maximum(p, 0)) for p in parts[1:]] if of.head else []
        peaks.append(parts)
    return [np.stack(p) for p in zip(*peaks, strict=True)], found


@pytest.mark.parametrize('role', ['test', 'train'])
@pytest.mark.parametrize(
    'given',
    [{}, {'synthetic_against': 'source', 'sharpness': 1.0}, {'subtract': False}, {'head': ''}],
    ids=str,
)
def test_peaks_are_the_weighted_means(given, role):
    of, data = fields(**given), make()
    got = residual.embed(data, of)
    assert set(got.roles) == {'test', 'train'}  # normal ones are used up
    parts, _ = seen_in_numpy(data, of, role)
    usual, _ = seen_in_numpy(data, of, 'good')
    assert got[role].parts == tuple(p.shape[1] for p in parts) == ((9, 6, 6) if of.head else (9,))
    want = [
        (p - u.mean(0)) / np.mean([np.linalg.norm(row - u.mean(0)) for row in u])
        for p, u in zip(parts, usual, strict=True)
    ]
    np.testing.assert_allclose(got[role].x, np.concatenate(want, 1), rtol=2e-3, atol=2e-3)
    np.testing.assert_array_equal(got[role].label, data.roles[role].label)
    np.testing.assert_array_equal(got[role].group, data.roles[role].group)


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize(
    'given', [{}, {'synthetic_against': 'source'}, {'subtract': False}], ids=str
)
def test_maps_stay_where_they_are(given, channels):
    of, data = fields(output='map', **given), make(channels)
    got = residual.embed(data, of)
    for role in ('test', 'train'):
        assert got[role].x.shape == (len(data.roles[role].x), 8, 8, 9)
        assert got[role].x.dtype == np.float16 and got[role].parts == ()
        want = seen_in_numpy(data, of, role)[1]
        np.testing.assert_allclose(got[role].x, want, rtol=2e-3, atol=2e-3)


def test_what_is_as_a_good_image_leaves_nothing():
    """With all normal patches in the bank; or compared with its source, whatever is in the bank."""
    data = make()
    data.roles['test'] = data.roles['test'].replace(
        x=np.concatenate([data.roles['test'].x[:4], data.roles['good'].x[6:7]])
    )
    got = residual.embed(data, fields(output='map', ratio=1.0))
    assert not got.roles['test'].x[4].any() and not got.roles['train'].x[0].any()
    assert all(x.any() for x in (*got.roles['test'].x[:4], *got.roles['train'].x[1:]))
    few = {'output': 'map', 'ratio': 0.01}
    assert residual.embed(data, fields(**few)).roles['train'].x[0].any()
    got = residual.embed(data, fields(**few, synthetic_against='source'))
    assert not got.roles['train'].x[0].any()
    changed = np.abs(got.roles['train'].x[1:]).max((0, 3)) > 0
    assert changed[1:3].all() and not changed[7].any()  # of what lies in rows 3..6


def test_another_source_is_another_residual():
    """What is kept of an earlier call was found for the same normal images."""
    data, of = make(), fields(output='map', synthetic_against='source', ratio=0.01)
    before = residual.embed(data, of).roles['train'].x
    patcher = memory_bank.load_patcher('tiny', LAYERS, size=16)
    bank = memory_bank.fit(patcher, data.roles['good'].x, ratio=0.01)
    for row in data.roles['train'].group:  # one that the bank has nothing of
        good = data.roles['good'].x.copy()
        good[row, 4:6, 4:6] += 1
        if np.array_equal(memory_bank.fit(patcher, good, ratio=0.01), bank):
            break
    else:
        raise AssertionError('the bank has of every image')
    data.roles['good'] = data.roles['good'].replace(x=good)
    after = residual.embed(data, of).roles['train'].x
    assert [(a != b).any() for a, b in zip(before, after, strict=True)] == [
        g == row for g in data.roles['train'].group
    ]


def test_found_anew_or_kept_it_is_the_same(tmp_path, monkeypatch):
    first = residual.embed(make(), fields())
    kept = residual.embed(make(), fields())
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    anew = residual.embed(make(), fields())
    assert any(tmp_path.rglob('residual-*.npz'))
    for role in ('test', 'train'):
        np.testing.assert_array_equal(kept[role].x, first[role].x)
        np.testing.assert_array_equal(anew[role].x, first[role].x)


def test_weighted_mean_by_hand():
    x = np.float32([[[[1, 10], [2, 20]], [[3, 30], [4, 40]]]])
    dist = np.float32([[[1, 0], [2, 1]]])
    mean = lambda dist, sharpness: np.asarray(residual.weighted_mean(x, dist, sharpness))[0]
    np.testing.assert_allclose(mean(dist, 0), [2.5, 25])
    np.testing.assert_allclose(mean(dist, 1), [(1 + 2 * 3 + 4) / 4, (10 + 2 * 30 + 40) / 4])
    np.testing.assert_allclose(mean(dist, 2), [(1 + 4 * 3 + 4) / 6, (10 + 4 * 30 + 40) / 6])
    np.testing.assert_allclose(mean(dist, 200), [3, 30])
    np.testing.assert_allclose(mean(1e-30 * dist, 2), mean(dist, 2))  # squares would be 0
    np.testing.assert_allclose(mean(0 * dist, 16), [2.5, 25])


def test_distances_of_larger_cells():
    dist = np.float32(np.arange(16).reshape(1, 4, 4))
    np.testing.assert_array_equal(residual.pooled(dist, (2, 2)), [[[5, 7], [13, 15]]])
    np.testing.assert_array_equal(residual.pooled(dist, (4, 4)), dist)
    np.testing.assert_array_equal(residual.pooled(dist, (1, 2)), [[[13, 15]]])
    # Three rows on two: 0 and 1 on the first.
    np.testing.assert_array_equal(residual.pooled(dist[:, :3, :3], (2, 2)), [[[5, 6], [9, 10]]])


def test_distances_of_finer_cells():
    dist = np.float32([[[1, 2], [3, 4]]])
    finer = np.float32([[[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]])
    np.testing.assert_array_equal(residual.pooled(dist, (4, 4)), finer)
    np.testing.assert_array_equal(residual.pooled(dist, (4, 1)), finer.max(-1, keepdims=True))


def test_what_all_good_images_share_is_not_blown_up():
    usual = np.zeros((3, 2), np.float32)
    np.testing.assert_array_equal(residual._relative(np.float32([[3, 4]]), usual), [[3, 4]])
    # Around (1, 0), at distances 1 and 1 of it.
    usual = np.float32([[0, 0], [2, 0]])
    np.testing.assert_allclose(residual._relative(np.float32([[4, 5]]), usual), [[3, 5]])


@pytest.mark.parametrize('output', ['peak', 'map'])
def test_mean_images_are_seen_like_any_other(output):
    of, data = fields(output=output, average_shots=(1, 2), average_draws=6), make()
    data.roles['test'] = data.roles['test'].replace(group=np.array([0, 0, 1, 2, 3]))
    got = residual.embed(data, of, seed=5)
    averaged, test = got.averaged, got.roles['test']
    support = averaged['support']
    assert support.shape == (6, 2, 2) and (support != support[0]).any()
    for rows in support:
        assert [set(data.roles['test'].label[of_class]) for of_class in rows] == [{0}, {1}]
        assert all(data.roles['test'].group[a] != data.roles['test'].group[b] for a, b in rows)
    # Of one image it is that image; the mean of two is looked at as an image of its own.
    np.testing.assert_allclose(averaged['1-shot'], test.x[support[:, :, 0]], rtol=1e-3, atol=1e-3)
    x = data.roles['test'].x.astype(int)
    means = np.float32([(x[a] + x[b]) / 2 for a, b in support.reshape(-1, 2)])
    as_items = from_arrays(np.rint(means).astype(np.uint8), [0] * 6 + [1] * 6, ('a', 'b'))
    of.average_shots = ()
    want = residual.embed(data.replace(roles={**data.roles, 'test': as_items}), of).roles['test'].x
    np.testing.assert_array_equal(averaged['2-shot'].reshape(want.shape), want)
    assert np.abs(want - test.x[support].mean(2).reshape(want.shape)).max() > 0.01


def test_another_seed_draws_other_support():
    dataset = make().roles['test']
    first, again, other = (residual.draws_of(dataset, 2, 9, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_sources_have_to_be_known():
    data = make()
    data.roles['train'] = data.roles['train'].replace(group=None)
    with pytest.raises(InputError, match=r'synthetic_against.*train'):
        residual.embed(data, fields(synthetic_against='source'))


def without(*roles):
    data = make()
    return data.replace(roles={r: d for r, d in data.roles.items() if r not in roles})


@pytest.mark.parametrize(
    ('given', 'match'),
    [
        ({'output': 'peek'}, r"residual\.output='peek' is unknown; did you mean 'peak'"),
        (
            {'synthetic_against': 'sauce'},
            r"synthetic_against='sauce' is unknown; did you mean 'source",
        ),
        ({'sharpness': -1.0}, r'residual\.sharpness=-1\.0 must be >= 0'),
        ({'head': 'stride44'}, r"no map 'stride44' for config\.residual\.head.*'stride4'"),
        ({'layers': ('stride3',)}, r"config\.residual\.layers: .* no map 'stride3'.*did you mean"),
        ({'ratio': 0.0}, r'config\.residual\.ratio=0\.0 must be > 0'),
        ({'dim': 1000}, r'config\.residual\.dim=1000 must be 0\.\.'),
    ],
    ids=lambda p: next(iter(p)) if isinstance(p, dict) else '',
)
def test_unknown_values_are_refused(given, match):
    with pytest.raises(InputError, match=match):
        residual.embed(make(), fields(**given))


@pytest.mark.parametrize('kind', ['none', 'features'])
def test_good_images_are_needed(kind):
    data = without('good')
    if kind == 'features':
        data.roles['good'] = from_arrays(np.zeros((3, 4), np.float32), np.zeros(3, int))
    with pytest.raises(InputError, match=r"encoder='tiny' compares with normal images, but .*test"):
        residual.embed(data, fields())
