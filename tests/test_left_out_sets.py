"""What the other sets choose for a set, and what that costs it; splits of one's own images."""

import argparse
import sys
from pathlib import Path

import pytest

from anyshot_jax.types import InputError

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'experiments'))
import tables
import zero_shot_splits


def test_the_others_choose_and_the_set_pays():
    """b is best for X alone; of Y and Z a wins by 4 and loses by 2: of those a."""
    values = {'X': {'a': 50, 'b': 60}, 'Y': {'a': 74, 'b': 70}, 'Z': {'a': 30, 'b': 32}}
    lines = [{'data': d, 'folds': 3, 'values': {'k': v}} for d, v in values.items()]
    text = tables.load_rows('left_out_sets').table(lines, tables.ROOT)
    assert '| k | X | b: 60.00 | a: 50.00 | 10.00 | 3 |' in text
    assert '| k | Y | a: 74.00 | b: 70.00 | 4.00 | 3 |' in text
    assert '| k | Z | b: 32.00 | b: 32.00 | 0.00 | 3 |' in text


def arguments(**given):
    usual = {'methods': 'ridge', 'data': 'MSD', 'folder': '', 'out': '', 'new': 0}
    return argparse.Namespace(**{**usual, **given})


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ({'folder': 'mine'}, 'needs --out=FILE'),
        ({'folder': 'mine', 'out': str(zero_shot_splits.RESULTS)}, 'holds the published results'),
        ({'data': 'MSF'}, "did you mean 'MSD'"),
        ({'methods': 'rigde'}, "did you mean 'ridge'"),
    ],
)
def test_own_results_never_go_into_the_published_ones(given, message):
    with pytest.raises(InputError, match=message):
        zero_shot_splits.found(arguments(**given))
