"""Files of a run's workdir, read with patience: any of them may be absent, short or cut off."""

import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from anyshot_jax.config import renamed
from anyshot_jax.storage.files import MAX_JSON, MAX_LOG, read_whole
from anyshot_jax.types import ACCURACY, Measure


class Run(NamedTuple):
    """The files of a workdir."""

    config: dict[str, Any]
    result: dict[str, Any]
    train: list[dict[str, Any]]  # metrics of the training steps, by step
    val: list[dict[str, Any]]  # metrics of the validations, by step

    @property
    def title(self) -> str:
        """'protonet on omniglot'."""
        return f'{self.part("method") or "a method"} on {self.part("data") or "unnamed data"}'

    def part(self, name: str) -> str:
        """The name of the method, data or net; '' when there is none."""
        fields = self.config.get(name)
        return str(fields.get('name') or '') if isinstance(fields, dict) else ''

    @property
    def measure(self) -> Measure:
        """Measure of the values."""
        try:
            return Measure(**self.result['measure'])
        except (KeyError, TypeError):
            return ACCURACY

    @property
    def values(self) -> dict[str, dict[str, Any]]:
        """The test values by name."""
        values = self.result.get('values')
        values = values if isinstance(values, dict) else {}
        return {str(k): v if isinstance(v, dict) else {'mean': v} for k, v in values.items()}

    @property
    def members(self) -> list[dict[str, Any]]:
        """Members of a population; none of a single run."""
        return _objects(self.result.get('members'))

    @property
    def settings(self) -> list[dict[str, Any]]:
        """A population's settings with the values over their seeds."""
        return _objects(self.result.get('settings'))

    @property
    def seeds(self) -> int:
        """Number of seeds that the result is a mean over."""
        return int(number(self.result.get('seeds')) or 1)


def read(workdir: Path, config: ConfigDict) -> Run:
    """Reads config.json (else takes `config`), metrics.jsonl and result.json."""
    train, val = metrics(workdir / 'metrics.jsonl')
    return Run(
        config=renamed(_object(workdir / 'config.json'))
        or json.loads(config.to_json_best_effort()),
        result=_object(workdir / 'result.json'),
        train=train,
        val=val,
    )


def metrics(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The train and val records by step. A resumed run repeats steps: the last record counts."""
    kinds: dict[str, dict[int, dict[str, Any]]] = {'train': {}, 'val': {}}
    try:
        lines = read_whole(path, MAX_LOG).decode(errors='replace').splitlines()
    except FileNotFoundError:
        lines = []
    for line in lines:
        try:
            record = json.loads(line)
            kinds[record['kind']][int(record['step'])] = record
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue  # a killed run ends in half a line
    train, val = ([kinds[k][step] for step in sorted(kinds[k])] for k in ('train', 'val'))
    return train, val


def column(records: list[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """Steps and values of one metric, where it is a finite number."""
    pairs = [(float(r['step']), number(r.get(name))) for r in records]
    kept = [(step, value) for step, value in pairs if value is not None]
    return [step for step, _ in kept], [value for _, value in kept]


def number(value: Any) -> float | None:
    """A finite float, or None for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def flat(fields: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    """{'a': {'b': 1}} -> {'a.b': 1}, names in order."""
    rows: dict[str, Any] = {}
    for name in sorted(fields, key=str):
        value = fields[name]
        if isinstance(value, dict) and value:
            rows |= flat(value, f'{prefix}{name}.')
        else:
            rows[f'{prefix}{name}'] = value
    return rows


def task_of(key: str) -> tuple[int | None, int | None]:
    """'5-way 1-shot' -> (5, 1)."""
    found = re.search(r'(\d+)-way(?:\D+(\d+)-shot)?', key)
    if not found or not int(found[1]):
        return None, None
    return int(found[1]), None if found[2] is None else int(found[2])


def natural(key: str) -> list[Any]:
    """'5-way' before '20-way'."""
    return [(int(part), '') if part.isdigit() else (-1, part) for part in re.split(r'(\d+)', key)]


def _objects(found: Any) -> list[dict[str, Any]]:
    return [x for x in found if isinstance(x, dict)] if isinstance(found, list) else []


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_whole(path, MAX_JSON).decode(errors='replace'))
    except (OSError, ValueError, RecursionError):  # InputError is a ValueError, too
        return {}
    return found if isinstance(found, dict) else {}
