"""What all sources share (splits, cache, directory) and the synthetic one."""

import logging
import os

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from anyshot_jax.data import splits, synthetic
from anyshot_jax.storage import cache
from anyshot_jax.types import InputError


def config_of(**fields):
    config = ConfigDict({'name': 'synthetic', 'dir': '', **synthetic.DEFAULTS})
    config.update(fields)
    return config


@pytest.mark.parametrize(
    ('fields', 'shape', 'dtype'),
    [
        ({}, (28, 28, 1), np.uint8),
        ({'size': 9, 'channels': 3, 'turns': 4}, (9, 9, 3), np.uint8),
        ({'kind': 'features', 'dim': 5, 'per_class': (1, 7)}, (5,), np.float32),
    ],
)
def test_synthetic(fields, shape, dtype):
    config = config_of(num_classes=(4, 3, 2), **fields)
    data = synthetic.load(config).roles
    assert [len(s.count) for s in data.values()] == [4, 3, 2]
    assert data['train'].turns == fields.get('turns', 1)
    for s in data.values():
        assert s.x.shape == (s.count.sum(), *shape) and s.x.dtype == dtype
        assert config.per_class[0] <= s.count.min() and s.count.max() <= config.per_class[1]
        np.testing.assert_array_equal(s.label, np.repeat(np.arange(len(s.count)), s.count))
        np.testing.assert_array_equal(s.offset, np.cumsum(s.count) - s.count)
    same, other = (
        synthetic.load(config).roles,
        synthetic.load(config_of(**{**config, 'seed': 1})).roles,
    )
    np.testing.assert_array_equal(data['val'].x, same['val'].x)
    assert (data['val'].x[:1] != other['val'].x[:1]).any()


def test_synthetic_classes_can_be_told_apart():
    data = synthetic.load(config_of(kind='features', noise=0.1, num_classes=(5, 1, 1))).roles[
        'train'
    ]
    centre = np.stack([data.x[data.label == c].mean(0) for c in range(5)])
    nearest = ((data.x[:, None] - centre) ** 2).sum(-1).argmin(1)
    np.testing.assert_array_equal(nearest, data.label)


@pytest.mark.parametrize(
    'fields',
    [
        {'kind': 'sounds'},
        {'num_classes': (3, 0, 3)},
        {'num_classes': (3, 3)},
        {'per_class': (0, 4)},
        {'per_class': (5, 4)},
        {'per_class': (5,)},
        {'turns': 2},
        {'size': 0},
    ],
)
def test_synthetic_refuses(fields):
    with pytest.raises(InputError, match=next(iter(fields)) if fields != {'size': 0} else 'empty'):
        synthetic.load(config_of(**fields))


names = st.lists(st.text('abcdefghij', min_size=1), min_size=3, max_size=40, unique=True)


@given(names, st.integers(0, 5), st.floats(0.02, 0.9), st.floats(0.1, 0.9))
def test_split_by_fraction(names, seed, train, part):
    fractions = (train, (1 - train) * part, (1 - train) * (1 - part))
    config = ConfigDict({**splits.FIELDS, 'split': fractions, 'split_seed': seed})
    role = splits.split_classes(names, config)
    assert sorted(role) == sorted(names)
    counts = [list(role.values()).count(r) for r in splits.ROLES]
    assert min(counts) >= 1
    wanted = [f * len(names) for f in fractions]
    if min(wanted) >= 1:
        assert max(abs(c - w) for c, w in zip(counts, wanted, strict=True)) <= 1
    assert splits.split_classes(names[::-1], config) == role  # by name, not by order


def test_split_items_renumbers_and_keeps_rows_with_their_class():
    label = np.array([3, 0, 2, 1, 3, 0])
    x = np.stack([label, np.arange(6)], 1).astype(np.float32)
    role = ('test', 'train', 'val', 'train')
    data = splits.split_items(
        x, label, ('a', 'b', 'c', 'd'), role, extras={'k': np.arange(4)}, turns=(4, 1)
    ).roles
    assert data['train'].names == ('b', 'd') and data['test'].names == ('a',)
    assert data['train'].x.tolist() == [[1, 3], [3, 0], [3, 4]]
    assert data['train'].label.tolist() == [0, 1, 1]
    assert data['train'].extras['k'].tolist() == [1, 3]
    assert [s.turns for s in data.values()] == [4, 1, 1]
    leaves = jax.tree.leaves(dict(data))
    assert len(leaves) == 15 and all(isinstance(a, np.ndarray) for a in leaves)


def test_near_duplicates_within_a_role_are_reported(caplog):
    with caplog.at_level(logging.WARNING, 'absl'):
        splits.check_disjoint({'train': ['Rust', 'rust '], 'val': ['b'], 'test': ['c']})
    assert "'Rust', 'rust '" in caplog.text


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    return tmp_path / 'anyshot_jax'


def numbered():
    """A builder that counts its calls."""
    calls = []

    def build():
        calls.append(1)
        return {'x': np.full(1000, len(calls)), 'names': np.array(['ä', 'b'])}

    return build, calls


def test_cache_is_used_and_depends_on_the_key(home):
    build, calls = numbered()
    for _ in range(2):
        found = cache.cached('set', {'size': 28}, build)
        assert found['x'][0] == 1 and found['names'].tolist() == ['ä', 'b'] and 'key' not in found
    assert cache.cached('set', {'size': 29}, build)['x'][0] == 2
    assert len(list(home.iterdir())) == 2 and len(calls) == 2


@pytest.mark.parametrize('damage', ['cut', 'flip', 'empty', 'foreign', 'pickle'])
def test_damaged_cache_is_built_again(home, damage, caplog):
    build, calls = numbered()
    cache.cached('set', 1, build)
    (path,) = home.iterdir()
    whole = path.read_bytes()
    if damage == 'cut':
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == 'flip':
        path.write_bytes(whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:])
    elif damage == 'empty':
        path.write_bytes(b'')
    elif damage == 'foreign':
        np.savez(path, x=np.zeros(3))
    else:
        np.savez(path, x=np.array([print], object))
    with caplog.at_level(logging.WARNING, 'absl'):
        assert cache.cached('set', 1, build)['x'][0] == 2
    assert str(path) in caplog.text and 'again' in caplog.text
    assert cache.cached('set', 1, build)['x'][0] == 2 and len(calls) == 2


def test_cache_that_can_not_be_written_costs_nothing(home, caplog):
    home.write_text('a file where the directory should be')
    build, _ = numbered()
    with caplog.at_level(logging.WARNING, 'absl'):
        assert cache.cached('set', 1, build)['x'][0] == 1
    assert 'not kept for the next run' in caplog.text


def test_interrupted_write_leaves_nothing(home, monkeypatch):
    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'replace', die)
    with pytest.raises(KeyboardInterrupt):
        cache.cached('set', 1, numbered()[0])
    assert list(home.iterdir()) == []
