"""The sampler: disjoint, uniform, ragged; and what it refuses."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from anyshot_jax.episodes import drawable, sampling
from anyshot_jax.types import Data, Episode, InputError, from_arrays

pytestmark = pytest.mark.slow

SIZE = 3  # of the images
ROWS = 60  # items that every data set here is filled up to, so that one compilation serves all


def numbered(counts, turns=1):
    """Classes of that many items; item r is an image of the numbers 9 r .. 9 r + 8.

    Rows that belong to no class follow (from -1 downwards): a sampler must not reach them.
    """
    label = np.repeat(np.arange(len(counts)), counts)
    dataset = from_arrays(images(np.arange(len(label))), label, turns=turns)
    rest = -1 - np.arange(ROWS - len(label))
    return dataset.replace(x=np.concatenate([dataset.x, images(rest)]), label=None)


def images(rows):
    pixels = np.arange(SIZE * SIZE).reshape(1, SIZE, SIZE, 1)
    return np.float32(rows.reshape(-1, 1, 1, 1) * SIZE * SIZE + pixels)


def rows_of(x):
    """Which item each image is, turned or not."""
    return np.floor_divide(np.asarray(x).min((1, 2, 3)), SIZE * SIZE).astype(int)


@pytest.fixture(scope='module')
def sample():
    """Many episodes at once: jit(vmap(sample_episode))."""

    @partial(jax.jit, static_argnames=('ways', 'shots', 'queries'))
    def many(keys, dataset, *, ways, shots, queries):
        draw = partial(sampling.sample_episode, ways=ways, shots=shots, queries=queries)
        return jax.vmap(draw, (0, None))(keys, dataset)

    return many


SIZES = [(1, 1, 1), (2, 3, 1), (5, 1, 4), (3, 2, 2)]  # ways, shots, queries


@pytest.mark.parametrize('turns', [1, 4])
@pytest.mark.parametrize('size', SIZES, ids=str)
@given(data=st.data())
@settings(max_examples=25)
def test_episodes(sample, size, turns, data):
    ways, shots, queries = size
    least = shots + queries
    counts = data.draw(st.lists(st.integers(least, least + 6), min_size=5, max_size=5))
    key = jax.random.key(data.draw(st.integers(0, 2**31 - 1)))
    dataset = numbered(counts, turns)
    batch = sample(
        jax.random.split(key, 4), dataset.replace(names=()), ways=ways, shots=shots, queries=queries
    )
    for episode in zip(*jax.tree.map(np.asarray, batch), strict=True):
        check_episode(dataset, size, *episode)


def check_episode(dataset, size, x_s, y_s, x_q, y_q, class_id):
    ways, shots, queries = size
    np.testing.assert_array_equal(y_s, np.repeat(range(ways), shots))
    np.testing.assert_array_equal(y_q, np.repeat(range(ways), queries))
    assert len(set(class_id)) == ways and set(class_id) <= set(range(dataset.num_classes))
    base, turn = class_id % len(dataset.count), class_id // len(dataset.count)
    support, query = rows_of(x_s), rows_of(x_q)
    for rows, x, y in ((support, x_s, y_s), (query, x_q, y_q)):
        first = dataset.offset[base[y]]
        assert ((first <= rows) & (rows < first + dataset.count[base[y]])).all()  # its class's
        want = [np.rot90(p, k) for p, k in zip(images(rows), turn[y], strict=True)]
        np.testing.assert_array_equal(x, want)
    # Disjoint, item by item and class by class: the turns of one class may share a row.
    used = [*zip(support, turn[y_s], strict=True), *zip(query, turn[y_q], strict=True)]
    assert len(set(used)) == ways * (shots + queries)


@pytest.mark.parametrize(('n', 'k'), [(1, 1), (2, 2), (4, 2), (5, 3), (4, 4), (60, 1)])
def test_choose_is_uniform_over_ordered_subsets(n, k):
    picks = many_choices(jnp.full(20_000, n), k=k)
    want = list(itertools.permutations(range(n), k))
    seen = dict.fromkeys(want, 0)
    for pick in map(tuple, picks.tolist()):
        seen[pick] += 1  # a KeyError: a repeated or an unknown number
    if len(want) > 1:
        assert chisquare(list(seen.values())).pvalue > 1e-3


def many_choices(n, k):
    keys = jax.random.split(jax.random.key(17), len(n))
    return np.asarray(jax.jit(jax.vmap(partial(sampling.choose, k=k)))(keys, n))


def test_choose_takes_a_traced_number_of_its_own_for_each():
    n = np.repeat([3, 4, 7, 1000], 5000)
    picks = many_choices(n, k=3)
    assert all(len(set(p)) == 3 for p in picks.tolist())
    for number in (3, 4, 7):
        chosen = picks[n == number]
        for place in range(3):  # each place of the order is uniform by itself
            assert chisquare(np.bincount(chosen[:, place], minlength=number)).pvalue > 1e-3
    large = picks[n == 1000]
    assert large.max() > 990 and large.min() < 10


def test_classes_and_items_are_uniform(sample):
    dataset = numbered([3, 9, 5])
    keys = jax.random.split(jax.random.key(5), 6000)
    size = {'ways': 2, 'shots': 1, 'queries': 1}
    batch = jax.tree.map(np.asarray, sample(keys, dataset, **size))
    pairs = np.unique(batch.class_id @ [3, 1], return_counts=True)[1]
    assert len(pairs) == 6 and chisquare(pairs).pvalue > 1e-3
    for x in (batch.x_s, batch.x_q):  # support and query alike
        rows = rows_of(x.reshape(-1, SIZE, SIZE, 1))
        for c in range(3):
            counts = np.bincount(rows)[dataset.offset[c] :][: dataset.count[c]]
            assert chisquare(counts).pvalue > 1e-3


def test_same_key_same_episode_under_jit_or_not(sample):
    dataset = numbered([4, 5, 6, 7, 8], turns=4)
    key = jax.random.key(2)
    size = {'ways': 5, 'shots': 1, 'queries': 3}
    inside = jax.tree.map(lambda a: a[0], sample(key[None], dataset, **size))
    outside = sampling.sample_episode(key, dataset, **size)
    jax.tree.map(np.testing.assert_array_equal, inside, outside)


def test_expanded_turns_are_the_classes_that_the_sampler_draws(sample):
    """The same keys, on the data set and on its expansion: the same classes, images, items."""
    dataset = numbered([4, 5, 6], turns=4)
    dataset = dataset.replace(
        x=dataset.x[:15], label=np.repeat(range(3), [4, 5, 6]), extras={'a': np.eye(3)}
    )
    plain = sampling.expand_turns(dataset)
    assert plain.turns == 1 and plain.num_classes == dataset.num_classes == 12
    assert plain.names == sampling.class_names(dataset)
    np.testing.assert_array_equal(plain.extras['a'], np.tile(np.eye(3), (4, 1)))
    np.testing.assert_array_equal(plain.label, np.repeat(range(12), plain.count))
    keys = jax.random.split(jax.random.key(0), 50)
    size = {'ways': 5, 'shots': 1, 'queries': 3}
    a, b = sample(keys, dataset, **size), sample(keys, plain, **size)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_without_turns_nothing_is_expanded():
    dataset = numbered([2, 2])
    assert sampling.expand_turns(dataset) is dataset
    assert sampling.class_names(dataset) == ('0', '1')


def test_names_of_turned_classes():
    dataset = from_arrays(images(np.arange(2)), [0, 1], ('a', 'b'), turns=4)
    names = sampling.class_names(dataset)
    assert names[:3] == ('a', 'b', 'a turned 90') and names[-1] == 'b turned 270'


def check(counts=(5, 6, 7), role='train', turns=1, shape=(2,), **size):
    x = np.zeros((sum(counts), *shape), np.float32)
    names = tuple(f'class {c}' for c in range(len(counts)))
    label = np.repeat(np.arange(len(counts)), counts)
    data = Data({'train': from_arrays(x, label, names, turns=turns)})
    drawable.check(data, role, **{'ways': 2, 'shots': 1, 'queries': 4, **size})


def test_check_lets_pass_what_can_be_drawn():
    check()
    check(ways=3)
    check(ways=12, turns=4, shape=(4, 4, 1))


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ({'role': 'tset'}, r"no role 'tset'; it has train"),
        ({'ways': 4}, r'4-way episodes need 4 classes, but train has 3'),
        ({'ways': 13, 'turns': 4, 'shape': (4, 4, 1)}, r'13 classes, but train has 12'),
        ({'shots': 2}, r"need 6 items a class, but in train class 'class 0' has 5;"),
        ({'shots': 3}, r"'class 0' has 5, 'class 1' has 6;"),
        ({'counts': [4] * 9}, r"'class 4' has 4 and 4 more"),
        ({'ways': 0}, r'must be >= 1, got 0, 1, 4'),
        ({'shots': 0}, r'must be >= 1, got 2, 0, 4'),
        ({'queries': -1}, r'must be >= 1, got 2, 1, -1'),
        ({'turns': 4, 'shape': (4, 5, 1)}, r'square images, train has items \(4, 5, 1\)'),
        ({'turns': 4}, r'square images, train has items \(2,\)'),
    ],
)
def test_check_names_what_is_wrong(given, message):
    with pytest.raises(InputError, match=message):
        check(**given)


def test_first_keeps_the_first_classes_and_shots():
    """Items are numbered by class, kind and place, so that what is kept can be read off."""
    number = lambda kind, n: np.array([100 * w + 10 * kind + i for w in range(3) for i in range(n)])
    label = lambda n: np.repeat(np.arange(3), n)
    whole = Episode(number(1, 4), label(4), number(2, 2), label(2), np.array([7, 5, 9]))
    small = sampling.first(whole, 2, 3)
    np.testing.assert_array_equal(small.x_s, [10, 11, 12, 110, 111, 112])
    np.testing.assert_array_equal(small.y_s, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(small.x_q, [20, 21, 120, 121])
    np.testing.assert_array_equal(small.y_q, [0, 0, 1, 1])
    np.testing.assert_array_equal(small.class_id, [7, 5])


# Tasks without near copies.

# (class, group) of 20 items: unequal groups, some of them of two classes.
KINDS = ((0, 5), (1, 1), (2, 1), (3, 3)), ((4, 1), (5, 1), (6, 2)), ((1, 2), (7, 1), (8, 1), (9, 1))


def copies():
    label = np.concatenate([np.full(n, c) for c, groups in enumerate(KINDS) for _, n in groups])
    group = np.concatenate([np.full(n, g) for groups in KINDS for g, n in groups])
    order = np.random.default_rng(0).permutation(len(label))  # copies needn't stand in a row
    return from_arrays(np.float32(order)[:, None], label[order], group=group[order])


@pytest.fixture(scope='module')
def apart():
    """For many keys: (support, query) as NumPy."""

    def draw(count, dataset, shots, given=None, seed=0):
        one = lambda key, dataset: sampling.draw_apart(key, dataset, shots, given)
        keys = jax.random.split(jax.random.key(seed), count)
        return jax.tree.map(np.asarray, jax.jit(jax.vmap(one, (0, None)))(keys, dataset))

    return draw


@pytest.mark.parametrize('given', [None, (False, True, True)])
def test_tasks_apart_are_what_they_say(apart, given):
    """Shots of a class have groups of their own; queries are what shares none with any shot."""
    dataset = copies()
    about = np.ones(3, bool) if given is None else np.array(given)
    support, query = apart(300, dataset, 3, None if given is None else jnp.array(given))
    assert support.shape == (300, 3, 3) and query.shape == (300, len(dataset.x), 3)
    for rows, asked in zip(support, query, strict=True):
        np.testing.assert_array_equal(dataset.label[rows], np.arange(3)[:, None].repeat(3, 1))
        for of_class in rows:
            assert len(set(dataset.group[of_class])) == 3
        for k in (1, 2, 3):
            seen = {dataset.group[row] for row in rows[about, :k].reshape(-1)}
            want = [about[c] and g not in seen
                    for c, g in zip(dataset.label, dataset.group, strict=True)]  # fmt: skip
            np.testing.assert_array_equal(asked[:, k - 1], want)


def test_fewer_shots_are_the_first_ones(apart):
    dataset = copies()
    support, query = apart(50, dataset, 3)
    for k in (1, 2):
        fewer = apart(50, dataset, k)
        np.testing.assert_array_equal(fewer[0], support[..., :k])
        np.testing.assert_array_equal(fewer[1], query[..., :k])


def test_groups_are_drawn_uniformly_whatever_their_size(apart):
    """First the pairs of groups in order, then the items of a group."""
    dataset = copies()
    support = apart(6000, dataset, 2)[0]
    for c, groups in enumerate(KINDS):
        pairs = [tuple(p) for p in dataset.group[support[:, c]]]
        expected = list(itertools.permutations([g for g, _ in groups], 2))
        assert set(pairs) <= set(expected)
        assert chisquare([pairs.count(p) for p in expected]).pvalue > 1e-3
    first = support[:, 0, 0]
    largest = first[dataset.group[first] == 0]
    assert chisquare(np.unique(largest, return_counts=True)[1]).pvalue > 1e-3
    assert len(set(largest)) == 5
    # What one class shows says nothing of another: pairs of their first groups.
    both = dataset.group[support[:, :2, 0]]
    counts = [np.sum((both == pair).all(1)) for pair in itertools.product(range(4), (4, 5, 6))]
    assert chisquare(counts).pvalue > 1e-3


def test_classes_with_fewer_groups_than_shots_repeat_a_shot(apart):
    """Never an item of another class, whose group would be asked for no more."""
    dataset = from_arrays(np.zeros((7, 1)), [0, 0, 0, 0, 1, 2, 2], group=[0, 1, 2, 3, 4, 5, 5])
    support, query = apart(100, dataset, 3)
    for rows, asked in zip(support, query, strict=True):
        assert set(rows[1]) == {4} and set(rows[2]) in ({5}, {6})
        assert asked.sum(0).tolist() == [3, 2, 1]


def test_the_same_key_draws_the_same(apart):
    a, b, c = (apart(20, copies(), 2, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a[0], b[0])
    assert (a[0] != c[0]).any()
