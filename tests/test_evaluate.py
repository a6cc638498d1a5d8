"""Means, intervals, the table and the facts of a result."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from anyshot_jax.config import config_hash, defaults, in_stages
from anyshot_jax.training import intervals
from anyshot_jax.training.result import environment


def test_mean_and_interval_by_hand():
    values = intervals.summarise({'a': np.array([0.0, 1.0, 1.0, 0.0])})
    # Deviations of 0.5: the sample variance is 4 * 0.25 / 3.
    assert values == {'a': {'mean': 0.5, 'ci95': pytest.approx(1.96 * math.sqrt(1 / 12)), 'n': 4}}


def test_interval_is_scipys():
    x = np.random.default_rng(0).normal(0.9, 0.1, 600).astype(np.float32)
    got = intervals.summarise({'x': x})['x']
    low, high = stats.norm.interval(0.95, loc=x.mean(dtype=float), scale=stats.sem(x.astype(float)))
    assert got['mean'] - got['ci95'] == pytest.approx(low, abs=1e-5)
    assert got['mean'] + got['ci95'] == pytest.approx(high, abs=1e-5)
    json.dumps(got)


def test_one_value_has_no_interval():
    got = intervals.summarise({'x': np.array([0.25])})['x']
    assert got['mean'] == 0.25 and got['n'] == 1 and math.isnan(got['ci95'])


def test_table():
    values = {
        '5-way 1-shot': {'mean': 0.98765, 'ci95': 0.00123, 'n': 600},
        '20-way 5-shot': {'mean': 1.0, 'ci95': 0.0, 'n': 1000},
        'auroc': {'mean': 0.5, 'ci95': 0.01, 'n': 7},
    }
    assert intervals.table(values).splitlines() == [
        ' ways  shots  accuracy %  95 % CI  episodes',
        '-------------------------------------------',
        '    5      1       98.77   +-0.12       600',
        '   20      5      100.00   +-0.00      1000',
        'auroc              50.00   +-1.00         7',
    ]


def test_config_hash_is_of_the_fields_that_change_a_result():
    config = defaults('knn', 'synthetic')
    first = config_hash(config)
    assert len(first) == 12 and int(first, 16) >= 0
    config.eval_only = config.plan = True
    config.data.dir = '/elsewhere'
    assert config_hash(config) == first
    config.seed = 1
    assert config_hash(config) != first
    staged = lambda config: config_hash(in_stages(a=config, b=defaults('knn', 'synthetic')))
    first = staged(defaults('knn', 'synthetic'))
    assert staged(config) == first  # the seed is that of all stages
    config.method.distance = 'cosine'
    assert staged(config) != first


def test_facts_name_versions_and_device():
    record = environment(defaults('protonet', 'synthetic', 'mlp'))
    assert record['batch_norm'] == 'inductive' and record['seed'] == 0
    assert record['num_devices'] == 2 and record['device']
    assert {'python', 'jax', 'flax', 'numpy', 'anyshot-jax'} <= record['versions'].keys()
    assert environment(defaults('knn', 'synthetic'))['batch_norm'] == 'none'
    json.dumps(record)
