"""A config as JSON: what a workdir keeps, compares and hashes."""

import hashlib
import json
from typing import Any

from ml_collections import ConfigDict

# By the name that a field had before, in any stage: its name now.
RENAMED = {
    'residual.made_up_against': 'residual.synthetic_against',
    'method.fakes': 'method.synthesised',
    'method.fakes_from': 'method.synthesised_from',
    'method.fake_weight': 'method.synthesised_weight',
    'method.fake_contrast': 'method.synthesised_contrast',
}


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
