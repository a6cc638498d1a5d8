"""A config as JSON: what a workdir keeps, compares and hashes."""

import hashlib
import json
import re
from typing import Any

from ml_collections import ConfigDict

from anyshot_jax.types import InputError

# By the name that a field had before, in any stage: its name now.
RENAMED = {
    'residual.made_up_against': 'residual.synthetic_against',
    'method.fakes': 'method.synthesised',
    'method.fakes_from': 'method.synthesised_from',
    'method.fake_weight': 'method.synthesised_weight',
    'method.fake_contrast': 'method.synthesised_contrast',
}

# More than any run's config has: what is beyond costs time and memory before anything refuses it.
MOST_VALUES, MOST_CHARACTERS, MOST_LEVELS = 10_000, 10_000, 12
OF_SECTION = {'net': 100, 'data': 100_000}  # layers, which are built one by one; names of classes
LARGEST = {  # of what a model that was trained is run by
    re.compile(r'config\.data\.(size|crop)'): 4096,
    re.compile(r'config\.(method|net)\.\w*(steps|rounds|power|context)'): 10_000,
}


def check_bounds(value: Any, path: str = 'config', level: int = 0) -> None:
    """Refuses values of a config that was read from a file and is larger than any run's.

    Args:
      value: as JSON has it. path: its name. level: sections and lists around it.
    Raises:
      InputError: names the field.
    """
    if level > MOST_LEVELS:
        raise InputError(f'{path[:99]} is nested more than {MOST_LEVELS} deep')
    most = OF_SECTION.get(path.split('.')[1], MOST_VALUES) if '.' in path else MOST_VALUES
    if isinstance(value, (dict, list)) and len(value) > most:
        raise InputError(f'{path[:99]} has {len(value):,} values, more than {most:,}')
    if isinstance(value, str) and len(value) > MOST_CHARACTERS:
        raise InputError(
            f'{path[:99]} has {len(value):,} characters, more than {MOST_CHARACTERS:,}'
        )
    if isinstance(value, int):
        largest = next((n for names, n in LARGEST.items() if names.fullmatch(path)), 2**63 - 1)
        if not -(2**63) <= value <= largest:
            raise InputError(f'{path[:99]} is a number above {largest:,}, or of more than 64 bits')
    if isinstance(value, dict):
        for name, inner in value.items():
            check_bounds(inner, f'{path}.{name}', level + 1)
    elif isinstance(value, list):
        for inner in value:
            check_bounds(inner, path, level + 1)


def renamed(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a config as an earlier version wrote it, by the names that they have now."""
    part: dict[str, Any] = {}
    for name, value in fields.items():
        is_stage = isinstance(value, dict) and isinstance(value.get('method'), dict)
        part[name] = renamed(value) if is_stage else value
    for old, new in RENAMED.items():
        section, name = old.split('.')
        if isinstance(part.get(section), dict) and name in part[section]:
            value = part[section][name]
            rest = {k: v for k, v in part[section].items() if k != name}
            part[section] = {**rest, new.split('.')[1]: value}
    return part


def differences(old: dict, new: dict) -> list[str]:
    """'config.a.b: 1 -> 2' for every field in which two configs (as from `to_json`) differ.

    A field that `old` lacks is one that the package has gained since; its default says as before.
    One that was renamed since is no difference.
    """
    return _differences(renamed(old), new, 'config')


def _differences(old: dict, new: dict, prefix: str) -> list[str]:
    lines = []
    for name in sorted(old):
        a, b, path = old.get(name), new.get(name), f'{prefix}.{name}'
        if isinstance(a, dict) and isinstance(b, dict):
            lines += _differences(a, b, path)
        elif a != b:
            lines.append(f'{path}: {a} -> {b}')
    return lines


def to_json(config: ConfigDict) -> str:
    """The config as JSON with sorted keys: what a workdir keeps and what its hash is taken of."""
    return json.dumps(config.to_dict(), indent=1, sort_keys=True)


# Fields that change no result; tasks that were fitted are in the other fields.
NOT_HASHED = ('eval_only', 'fit_tasks', 'plan', 'plan_for')


def config_hash(config: ConfigDict) -> str:
    """12 hex digits that two runs share if all their fields are equal.

    All but NOT_HASHED and data.dir.
    """
    fields = config.to_dict()
    for part in (fields, *(fields[name] for name in fields.get('stages', ()))):
        for name in NOT_HASHED:
            part.pop(name, None)
        part['data'] = {**part.get('data', {}), 'dir': ''}
    return hashlib.sha256(to_json(ConfigDict(fields)).encode()).hexdigest()[:12]
