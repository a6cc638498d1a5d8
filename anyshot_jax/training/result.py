"""result.json: what was reached, by which member, and how the run was made."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from anyshot_jax.config import config_hash
from anyshot_jax.training import intervals, processes
from anyshot_jax.training.population import Population
from anyshot_jax.training.progress import Progress
from anyshot_jax.training.workdir import data_files
from anyshot_jax.types import ACCURACY, Data, Measure


def make_record(
    config: ConfigDict,
    config_file: str,
    population: Population,
    states: Any,
    progress: Progress,
    values: list[intervals.Values | None],
    data: Data,
) -> tuple[int, dict[str, Any]]:
    """Index of the member that is best on validation, and the contents of result.json.

    Where a field varies, the record's values are those of the setting that is best on validation,
    the mean over its seeds; the other settings and all members stand below.

    Args:
      states: [M, ...], those that were evaluated. values: of every member, None: it diverged.
    """
    settings = [tuple(m.setting.values()) for m in population.members]
    groups = {s: [i for i, t in enumerate(settings) if t == s] for s in dict.fromkeys(settings)}
    alive = lambda ids: [i for i in ids if not progress.diverged[i]]
    # A setting under which a seed diverged is behind those under which fewer did.
    score = lambda ids: np.mean([progress.score()[i] for i in ids] or [-np.inf])
    of_group = lambda ids: (len(alive(ids)), score(alive(ids)))
    chosen = max(groups.values(), key=of_group)
    best_index = progress.best_member(chosen)
    steps = np.asarray(states.step)
    record = {
        'values': intervals.over_members([values[i] for i in chosen]),
        'measure': population.methods[0].measure._asdict(),
        'step': int(steps[best_index]),
        'seconds': round(progress.seconds, 1),
        'counts': {role: d.num_classes for role, d in data.roles.items()},
        'config_file': config_file,
        **({'data_files': found} if (found := data_files(config)) else {}),
        **environment(config),
    }
    if len(population.members) > 1:
        validation = [None if np.isinf(b) else float(b) for b in progress.best]
        record |= {'seeds': len(alive(chosen)), 'foremost': best_index}
        record['members'] = [
            {
                'seed': m.seed,
                'setting': dict(m.setting),
                'validation': validation[i],
                'step': int(steps[i]),
                'diverged': int(progress.diverged[i]),
                'values': values[i],
                'config_hash': config_hash(m.config(config)),
            }
            for i, m in enumerate(population.members)
        ]
        record['settings'] = [
            {
                'setting': dict(population.members[ids[0]].setting),
                'chosen': ids == chosen,
                'seeds': len(alive(ids)),
                'values': intervals.over_members([values[i] for i in ids]),
            }
            for ids in groups.values()
            if alive(ids)
        ]
    return best_index, record


def show(record: dict, workdir: Path | None, news: str = '') -> dict[str, float]:
    """Prints the table, and where the report is; returns the means."""
    means = {name: v['mean'] for name, v in record['values'].items()}
    if not processes.first():
        return means
    if news:
        print(f'{workdir} is {news}')
    measure = Measure(**record.get('measure', ACCURACY._asdict()))
    settings = record.get('settings', [])
    many = len(settings) > 1
    for part in settings if many else [record]:
        if many:
            named = ', '.join(f'{k}={v:g}' for k, v in part['setting'].items())
            print(named + ' (best on validation)' * part['chosen'])
        seeds = 'seeds' if part.get('seeds', 1) > 1 else ''
        print(intervals.table(part['values'], measure, seeds))
    if workdir:
        print(f'report: {workdir / "report.html"}')
    return means


def environment(config: ConfigDict) -> dict:
    """Seed, config hash, versions and device: what a result says besides its numbers."""
    packages = ('anyshot-jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
    return {
        'seed': config.seed,
        'config_hash': config_hash(config),
        'batch_norm': config.method.get('batch_norm', 'none'),
        'versions': {'python': platform.python_version(), **{p: version(p) for p in packages}},
        'device': jax.devices()[0].device_kind,
        'num_devices': jax.device_count(),
    }
