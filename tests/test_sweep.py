"""Sweeps: what a file means, and the leaderboard by hand."""

from functools import partial
from html.parser import HTMLParser

import pytest
import tiny_sweep
from tiny_sweep import GRID, ONE, finish, made, rows

from anyshot_jax.sweep import leaderboard, parallel_coordinates, trials
from anyshot_jax.types import InputError


@pytest.fixture
def sweep_file(tmp_path):
    """A function: writes a sweep of a tiny config to mine.py."""
    return partial(tiny_sweep.write, tmp_path)


# What a file means.


def test_a_grid_is_every_setting_with_every_seed(sweep_file):
    every = made(sweep_file(**GRID, seeds=(0, 3), overrides=('eval.queries=2',)))
    points = [(t.setting['optim.learning_rate'], t.setting['net.features'], t.seed) for t in every]
    assert points == [(r, f, s) for r in (0.01, 0.1) for f in (4, 6) for s in (0, 3)]
    config = every[-1].runs[0].config
    assert (config.optim.learning_rate, config.net.features, config.seed) == (0.1, 6, 3)
    assert config.eval.queries == 2 and len({t.name for t in every}) == 8
    assert every[0].name.startswith('learning_rate=0.01,features=4-seed0-')


def test_random_search_draws_the_same_again_and_more_of_the_same(sweep_file):
    fields = {
        'optim.learning_rate': {'loguniform': (1e-4, 1e-1)},
        'data.noise': {'uniform': (0.2, 0.9)},
        'net.features': (4, 6),
    }
    draw = lambda n: [
        t.setting for t in made(sweep_file(fields=fields, search='random', num_settings=n))
    ]
    many = draw(40)
    assert draw(40) == many and draw(7) == many[:7]
    rates = [s['optim.learning_rate'] for s in many]
    assert all(1e-4 <= r <= 1e-1 for r in rates) and all(
        0.2 <= s['data.noise'] <= 0.9 for s in many
    )
    # By the logarithm about half lie below 10^-2.5; evenly drawn only one in thirty would.
    assert 12 <= sum(r < 10**-2.5 for r in rates) <= 28
    assert {s['net.features'] for s in many} == {4, 6}


def test_no_setting_is_drawn_twice(sweep_file):
    file = sweep_file(fields={'net.features': (4, 6)}, search='random', num_settings=9)
    assert sorted(t.setting['net.features'] for t in made(file)) == [4, 6]


@pytest.mark.parametrize(
    'constants, said',
    [
        ({'fields': {'optim.learning_rte': (1e-3,)}}, "optim.learning_rte; did you mean 'lea"),
        ({'fields': {'optin.b1': (0.9,)}}, "unknown field config.optin; did you mean 'optim'"),
        ({'fields': {'optim': (0.9,)}}, 'config.optim has fields of its own'),
        ({'fields': {'optim.b1.x': (0.9,)}}, 'config.optim.b1 has no fields'),
        ({'fields': {'optim.b1': ('high',)}}, 'high'),
        ({'fields': {'optim.b1': 0.9}}, 'must be a tuple of values or a range'),
        ({'fields': {'optim.b1': {'loguniform': (0, 1)}}}, 'is no range'),
        ({'fields': {'optim.b1': {'uniform': (0.5, 0.9)}}}, 'has to be drawn from'),
        ({'fields': {'seed': (0, 1)}}, 'use SEEDS'),
        ({'fields': {'eval.queries': (1, 2)}}, 'cannot be compared'),
        ({'fields': {'num_steps': (3,)}}, 'must be a multiple of config.steps_per_call=2'),
        ({**ONE, 'overrides': ('eval_every=0',)}, 'never validates'),
        ({**ONE, 'overrides': ('eval.select=4-way 1-shot',)}, "did you mean '3-way 1-shot'"),
        ({**ONE, 'search': 'gird'}, "did you mean 'grid'"),
        ({**ONE, 'search': 'random'}, 'needs NUM_SETTINGS'),
        ({**ONE, 'search': 'asha'}, 'needs GRACE_STEPS'),
        ({**ONE, 'seed': 3}, "unknown constant SEED; did you mean 'SEEDS'"),
        ({**ONE, 'seeds': 3}, 'SEEDS must be a tuple'),
        ({}, 'FIELDS is missing'),
        ({**ONE, 'config': 'configs/none.py'}, 'there is no recipe configs/none.py'),
    ],
)  # fmt: skip
def test_a_file_that_can_not_be_is_refused(sweep_file, constants, said):
    with pytest.raises(InputError) as e:
        made(sweep_file(**constants))
    assert said in str(e.value)


# The leaderboard.


def test_leaderboard_by_hand(sweep_file, tmp_path):
    """Ranked by validation where test says the opposite; a seed's interval by Student's t."""
    file = sweep_file(fields={'optim.learning_rate': (0.01, 0.1)}, seeds=(0, 1))
    sweep, every = trials.load(file), made(file, tmp_path / 'trials')
    finish(every[0], {4: 0.5, 8: 0.7}, 0.90)
    finish(every[1], {4: 0.8, 8: 0.6}, 0.60)
    finish(every[2], {4: 0.75, 8: 0.75}, 0.65)
    finish(every[3], {4: 0.99}, None)
    leaderboard.write(tmp_path, sweep, every, {})
    names = [t.name for t in every]
    want = (
        'rank,trial,optim.learning_rate,seed,validation 3-way 1-shot,step,test 3-way 1-shot,'
        'test 3-way 1-shot ci95,seconds,status\n'
        f'1,"{names[1]}",0.01,1,0.8,4,0.6,0.02,1.5,finished\n'
        f'2,"{names[2]}",0.1,0,0.75,4,0.65,0.02,1.5,finished\n'
        f'3,"{names[0]}",0.01,0,0.7,8,0.9,0.02,1.5,finished\n'
        f',"{names[3]}",0.1,1,0.99,4,,,,unfinished\n'
    ).replace('"', '')
    assert (tmp_path / 'leaderboard.csv').read_text() == want
    page = (tmp_path / 'leaderboard.html').read_text()
    # .7 and .8: mean .75, deviation .0707107; t(0.975, 1) = 12.7062, over sqrt(2): .635310.
    assert '75.00&nbsp;% ± 63.53&nbsp;%' in page
    assert '3 of 4 trials are finished' in page and 'src=' not in page and '<script' not in page


def test_smaller_is_better_where_the_file_says_so(sweep_file, tmp_path):
    file = sweep_file(fields={'optim.learning_rate': (0.01, 0.1)}, mode='min')
    sweep, every = trials.load(file), made(file, tmp_path / 'trials')
    finish(every[0], {4: 0.5, 8: 0.7}, 0.5, larger=False)
    finish(every[1], {4: 0.9, 8: 0.4}, 0.5, larger=False)
    leaderboard.write(tmp_path, sweep, every, {})
    found = [(r['validation 3-way 1-shot'], r['step']) for r in rows(tmp_path / 'leaderboard.csv')]
    assert found == [('0.4', '8'), ('0.5', '4')]
    with pytest.raises(InputError, match="set MODE = 'min'"):
        leaderboard.write(tmp_path, sweep._replace(mode='max'), every, {})


class _Polylines(HTMLParser):
    """The points of every line, and all that is shown as text."""

    def __init__(self, page):
        super().__init__()
        self.points, self.tags, self.text = [], set(), ''
        self.feed(str(page))

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == 'polyline':
            points = dict(attrs)['points'].split()
            self.points.append([tuple(map(float, p.split(','))) for p in points])

    def handle_data(self, data):
        self.text += data


def test_parallel_coordinates_place_values_and_escape_names():
    line = parallel_coordinates.Polyline
    evil = '<i>x</i>'
    lines = [
        line('a', (1e-4, evil, 0.2)), line('b', (1e-3, 'z', 0.4)), line(evil, (1e-2, 'z', 0.3)),
    ]  # fmt: skip
    svg = parallel_coordinates.draw(
        ('rate', evil, 'value'), lines, label=f'of {evil}', best_low=False, percent=True
    )
    seen = _Polylines(svg)
    assert 'i' not in seen.tags and seen.text.count(evil) >= 4  # axis, tick, line, title
    worst, middle, best = seen.points  # the best is drawn last, on top
    low, mid, high = worst[0][1], best[0][1], middle[0][1]
    assert mid == pytest.approx((low + high) / 2, abs=0.1)  # 1e-3 is halfway by the logarithm
    assert (worst[2][1], best[2][1]) == (low, high)  # bottom and top of the last axis
    assert middle[2][1] == pytest.approx((low + high) / 2, abs=0.1)
    assert (
        len({p[0][0] for p in seen.points}) == 1
        and 'rate, log' in seen.text
        and '40 %' in seen.text
    )
