"""The trials of a sweep file: every setting of its fields with every seed, as main.py runs them.

A sweep file is plain data like the files of rows/ (sweeps/omniglot_protonet.py is one). Ranges
are drawn with a fixed seed, so that the same file always means the same trials.
"""

import itertools
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from anyshot_jax import config as configs
from anyshot_jax.config import config_hash
from anyshot_jax.storage import files
from anyshot_jax.sweep import recipes
from anyshot_jax.training import checks
from anyshot_jax.types import InputError, nearest

Setting = dict[str, Any]  # field -> value
RANGES = ('uniform', 'loguniform')
SEARCHES = ('grid', 'random', 'asha')
LONGEST = 120  # letters of a name, which becomes a folder's


class Run(NamedTuple):
    """One call of main.py."""

    recipe: str
    overrides: tuple[str, ...]
    workdir: Path
    config: ConfigDict  # what recipe and overrides make

    @property
    def command(self) -> list[str]:
        """Arguments that follow `python`, as a user would type them."""
        fields = [f'--config.{o}' for o in self.overrides]
        head = ['-m', 'anyshot_jax.main', f'--config={self.recipe}']
        return [*head, *fields, f'--workdir={self.workdir}']

    @property
    def result(self) -> Path:
        """The file that is there once the run is finished."""
        if self.config.get('eval_only', False):
            return self.workdir / f'eval-{config_hash(self.config)}.json'
        return self.folder / 'result.json'

    @property
    def folder(self) -> Path:
        """Folder of the metrics: those of the last stage."""
        return self.workdir / self.config.stages[-1] if 'stages' in self.config else self.workdir

    @property
    def locks(self) -> list[Path]:
        """The files that a process which runs it locks, one after another."""
        if 'stages' not in self.config:
            return [self.workdir / '.lock']
        return [self.workdir / stage / '.lock' for stage in self.config.stages]

    @property
    def last(self) -> ConfigDict:
        """The config of the last stage."""
        return self.config[self.config.stages[-1]] if 'stages' in self.config else self.config


class Trial(NamedTuple):
    """Runs that follow each other, one in a sweep; a table's rows may share what one trains."""

    name: str
    runs: tuple[Run, ...]
    setting: Setting
    seed: int

    @property
    def finished(self) -> bool:
        return self.runs[-1].result.exists()

    @property
    def log(self) -> Path:
        """Log of its process."""
        return self.runs[0].workdir / 'log.txt'

    @property
    def stopped(self) -> Path:
        """The file that says that the scheduler gave it up."""
        return self.runs[-1].workdir / 'stopped.json'


class Sweep(NamedTuple):
    """Contents of a sweep file, by the lower-case names of its constants."""

    name: str
    config: str  # as --config, from the current directory
    fields: dict[str, Any]  # field -> a tuple of values, or {'loguniform': (low, high)}
    overrides: tuple[str, ...] = ()  # of all trials
    seeds: tuple[int, ...] = (0,)
    search: str = 'grid'  # grid | random | asha
    num_settings: int = 0  # drawn by random and asha; asha: 0 is the whole grid
    mode: str = 'max'  # min: the validation value is better when smaller
    grace_steps: int = 0  # asha: no trial is stopped before
    reduction_factor: int = 3  # asha: one of so many goes on at a rung


def load(path: Path) -> Sweep:
    """Reads a sweep file.

    Raises:
      InputError: names the file and what of it is wrong.
    """
    try:
        module = recipes.load_module(path)
    except (SyntaxError, NameError, UnicodeDecodeError) as e:
        raise InputError(f'{path} is no Python file of constants: {e}') from e
    given = {k.lower(): v for k, v in vars(module).items() if k.isupper()}
    known = [f for f in Sweep._fields if f != 'name']
    for name in given:
        if name not in known:
            hint = nearest(name.upper(), [k.upper() for k in known])
            raise InputError(f'{path}: unknown constant {name.upper()}{hint}')
    for name in ('config', 'fields'):
        if not given.get(name):
            raise InputError(f'{path}: {name.upper()} is missing')
    sweep = Sweep(path.stem, **given)
    for message in _wrong(sweep):
        raise InputError(f'{path}: {message}')
    return sweep


def _wrong(sweep: Sweep) -> Iterator[str]:
    """Faults of the file, before any config is read."""
    if sweep.search not in SEARCHES:
        yield f'SEARCH={sweep.search!r}{nearest(str(sweep.search), SEARCHES)}'
    if sweep.mode not in ('max', 'min'):
        yield f'MODE={sweep.mode!r} must be max or min'
    if not isinstance(sweep.fields, dict):
        yield "FIELDS must be a dict such as {'optim.learning_rate': (1e-3, 1e-2)}"
    for name in ('seeds', 'overrides'):
        if not isinstance(getattr(sweep, name), tuple):
            yield f'{name.upper()} must be a tuple, got {getattr(sweep, name)!r}'
    if not sweep.seeds:
        yield 'SEEDS is empty'
    ranges = []
    for field, values in sweep.fields.items():
        if field == 'seed' or field.endswith('.seed'):
            yield f'{field} is no field to search: use SEEDS'
        if field.split('.')[0] in ('eval', 'eval_only') or '.eval.' in field:
            yield f'FIELDS has {field}, but trials that are judged differently cannot be compared'
        if isinstance(values, dict):
            ranges.append(field)
            if not _is_range(values):
                yield (
                    f"FIELDS: {field}={values!r} is no range: {{'uniform': (low, high)}}, or "
                    "{'loguniform': (low, high)} with 0 < low"
                )
        elif not isinstance(values, tuple) or not values:
            yield f'FIELDS: {field}={values!r} must be a tuple of values or a range'
    drawn = sweep.search == 'random' or (sweep.search == 'asha' and sweep.num_settings)
    if ranges and not drawn:
        yield (
            f"FIELDS: {ranges[0]} is a range, which has to be drawn from: SEARCH='random' or "
            "'asha', and NUM_SETTINGS"
        )
    if sweep.search == 'random' and sweep.num_settings < 1:
        yield "SEARCH='random' needs NUM_SETTINGS, how many settings to draw"
    if sweep.search == 'asha' and sweep.grace_steps < 1:
        yield "SEARCH='asha' needs GRACE_STEPS, the steps before which no trial is stopped"
    if sweep.reduction_factor < 2:
        yield f'REDUCTION_FACTOR={sweep.reduction_factor} must be >= 2'


def _is_range(values: dict[str, Any]) -> bool:
    """{'uniform': (low, high)}, or loguniform with 0 < low."""
    if len(values) != 1:
        return False
    [(kind, ends)] = values.items()
    numbers = isinstance(ends, tuple) and all(isinstance(e, int | float) for e in ends)
    if kind not in RANGES or not numbers or len(ends) != 2:
        return False
    return ends[0] < ends[1] and (kind == 'uniform' or ends[0] > 0)


def settings(sweep: Sweep) -> list[Setting]:
    """The grid, or what is drawn: the first N of more settings are those of N."""
    if not sweep.num_settings:
        values = itertools.product(*sweep.fields.values())
        return [dict(zip(sweep.fields, v, strict=True)) for v in values]
    rng = np.random.default_rng(0)
    found: list[Setting] = []
    for _ in range(100 * sweep.num_settings):  # values without a range may run out
        setting = {field: _draw(values, rng) for field, values in sweep.fields.items()}
        if setting not in found:
            found.append(setting)
        if len(found) == sweep.num_settings:
            break
    return found


def _draw(values: Any, rng: np.random.Generator) -> Any:
    if isinstance(values, tuple):
        return values[rng.integers(len(values))]
    [(kind, (low, high))] = values.items()
    if kind == 'loguniform':
        return float(f'{math.exp(rng.uniform(math.log(low), math.log(high))):.3g}')
    return float(f'{rng.uniform(low, high):.3g}')  # so few digits that names and flags have all


def make_trials(sweep: Sweep, folder: Path, root: Path = Path()) -> list[Trial]:
    """Every setting with every seed, each in folder/<setting>-seed<n>-<hash>.

    Raises:
      InputError: a field that the config lacks, a value that it refuses, no validation to rank by.
    """
    base = recipes.load_config(sweep.config, sweep.overrides, root)
    for field in sweep.fields:
        _check_field(base, field, sweep.name)
    made = []
    for setting in settings(sweep):
        for seed in sweep.seeds:
            fields = tuple(f'{field}={value}' for field, value in setting.items())
            overrides = (*sweep.overrides, *fields, f'seed={seed}')
            config = recipes.load_config(sweep.config, overrides, root)
            stages = [config[s] for s in config.stages] if 'stages' in config else [config]
            for stage in stages:
                checks.check(configs.check(stage), in_stages=len(stages) > 1)
                if stage.num_seeds > 1 or stage.vary:
                    raise InputError(
                        f'{sweep.name}: config.num_seeds and config.vary are for one run; vary by '
                        'FIELDS and SEEDS here'
                    )
            if sweep.search == 'asha' and len(stages) > 1:
                raise InputError(f'{sweep.name}: asha needs a config of one stage')
            trains = stages[-1].num_steps and stages[-1].eval_every
            if not trains and stages[-1].eval.role != 'val':
                raise InputError(
                    f'{sweep.name}: {sweep.config} never validates, so nothing ranks its trials: '
                    "OVERRIDES = ('eval.role=val',), or num_steps and eval_every above 0"
                )
            workdir = workdir_of(config, f'{_readable(setting)}-seed{seed}', folder)
            run = Run(sweep.config, overrides, workdir, config)
            made.append(Trial(workdir.name, (run,), setting, seed))
    return made


def _check_field(config: ConfigDict, field: str, name: str) -> None:
    section, path = config, 'config'
    for part in field.split('.'):
        if not isinstance(section, ConfigDict):
            raise InputError(f'{name}: {path} has no fields of its own, so no {field}')
        if part not in section:
            hint = nearest(part, section.keys())
            raise InputError(f'{name}: unknown field {path}.{part}{hint}')
        section, path = section[part], f'{path}.{part}'
    if isinstance(section, ConfigDict):
        raise InputError(f'{name}: {path} has fields of its own: name one of them')


def _readable(setting: Setting) -> str:
    short = ','.join(f'{field.split(".")[-1]}={value}' for field, value in setting.items())
    return re.sub(r'[^\w.=,+-]+', '_', short)[:LONGEST]


def workdir_of(config: ConfigDict, name: str, folder: Path) -> Path:
    """folder/<name>-<hash>, or where the run is if the package has gained fields since it began."""
    for workdir in sorted(folder.glob(f'{name}-*')):
        old = files.read_json(workdir / 'config.json')
        if old and not configs.differences(old, json.loads(configs.to_json(config))):
            return workdir
    return folder / f'{name}-{config_hash(config)}'
