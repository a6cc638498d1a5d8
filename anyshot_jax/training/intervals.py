"""From raw per-episode values to means with confidence intervals, a table and result.json."""

import math
import re
import statistics
from collections.abc import Sequence

import numpy as np
from scipy import stats

from anyshot_jax.types import ACCURACY, Measure

Values = dict[str, dict[str, float]]  # name -> mean, ci95, n


def summarise(raw: dict) -> Values:
    """Mean and half-width of the 95 % confidence interval of each value.

    Args:
      raw: name -> [n] values, one an episode (or query).
    Returns:
      name -> {'mean', 'ci95': 1.96 * sample deviation / sqrt(n), 'n'}.
    """
    values = {}
    for name, array in raw.items():
        a = np.asarray(array, np.float64)
        spread = a.std(ddof=1) if len(a) > 1 else float('nan')
        values[name] = {
            'mean': float(a.mean()),
            'ci95': float(1.96 * spread / np.sqrt(len(a))),
            'n': len(a),
        }
    return values


def over_members(values: Sequence[Values | None]) -> Values:
    """The mean over a population's members; of one it is that one's.

    Args:
      values: of every member, None of one that has diverged. There is one at least.
    Returns:
      name -> {'mean', 'ci95': of the members' means (Student's t), 'n': members}.
    """
    known = [v for v in values if v is not None]
    if len(known) == 1:
        return known[0]
    means = {name: [v[name]['mean'] for v in known] for name in known[0]}
    return {
        name: {'mean': statistics.mean(m), 'ci95': interval_over_seeds(m), 'n': len(m)}
        for name, m in means.items()
    }


def interval_over_seeds(means: Sequence[float]) -> float:
    """Half-width of the 95 % confidence interval of the mean of n >= 2 runs (Student's t)."""
    n = len(means)
    return float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(means) / math.sqrt(n)


def table(values: Values, measure: Measure = ACCURACY, counted: str = '') -> str:
    """The result as text: ways, shots, mean and its interval (accuracy in per cent), episodes.

    Args:
      counted: what the numbers are of, such as seeds; '': episodes or queries.
    """
    tasks = {name: re.fullmatch(r'(\d+)-way (\d+)-shot', name) for name in values}
    unit, digits = (100, 2) if measure.percent else (1, 4)
    head = f'{measure.name} %' if measure.percent else measure.name
    names = ('ways', 'shots') if any(tasks.values()) else ('task',)
    asked = counted or ('queries' if 'mAP' in values else 'episodes')
    rows: list[tuple[str, ...]] = [(*names, head, '95 % CI', asked)]
    for name, v in values.items():
        task = tasks[name]
        first = task.groups() if task else (name, '')[: len(names)]
        mean, half = (f'{unit * v[k]:.{digits}f}' for k in ('mean', 'ci95'))
        rows.append((*first, mean, f'+-{half}', str(v['n'])))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ['  '.join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    return '\n'.join([lines[0], '-' * len(lines[0]), *lines[1:]])
