"""The fields of a recipe as text: name, type, value and the comment beside it in the source."""

import ast
import importlib
import inspect
import io
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from anyshot_jax.config import fields
from anyshot_jax.config.modules import find
from anyshot_jax.config.recipes import UnknownVariantError, recipe_module


def listing(recipe: str, config: ConfigDict) -> str:
    """Text of `--config=RECIPE --help`.

    Args:
      recipe: as --config has it. config: what the recipe gives.
    """
    name, _, _ = recipe.partition(':')
    known = variants(name)
    head = f'Variants of {Path(name).stem}: ' + (
        ', '.join(f'--config={Path(name).stem}:{v}' for v in known) or 'none'
    )
    lines = [head, '', 'Fields, as --config.FIELD=VALUE:', *_fields(config)]
    return '\n'.join(lines)


def variants(file: str) -> tuple[str, ...]:
    """The names that a recipe takes after its own and a colon."""
    try:
        recipe_module(file).get_config('?')
    except UnknownVariantError as e:
        return e.known
    except Exception:  # a recipe is a program: its argument may be anything
        return ()
    return ()


def _fields(config: ConfigDict) -> Iterator[str]:
    if 'stages' not in config:
        yield from _lines('', config, _comments(config))
        return
    first = config.stages[0]
    shown: dict[str, Any] = {}
    for name in config.stages:
        if name != first:
            yield f'  -- of the stage {name}, where it differs from {first}'
        values = dict(_flat('', config[name]))
        text = _comments(config[name])
        for path, value in values.items():
            if name == first or shown.get(path) != value:
                yield _line(f'{name}.{path}', value, text.get(path, ''))
        shown = shown or values


def _lines(prefix: str, config: ConfigDict, text: dict[str, str]) -> Iterator[str]:
    for path, value in _flat('', config):
        yield _line(prefix + path, value, text.get(path, ''))


def _line(path: str, value: Any, said: str) -> str:
    kind = type(value).__name__
    return f'  {path} ({kind}) = {value!r}' + (f'  # {said}' if said else '')


def _flat(prefix: str, config: ConfigDict) -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _flat(f'{prefix}{name}.', value)
        else:
            yield prefix + name, value


# Comments in the source.


def _comments(config: ConfigDict) -> dict[str, str]:
    """By path: the comment on a field's line, or above it."""
    found = _of_dict(fields, 'SPINE')
    for section, folder in (('method', 'methods'), ('data', 'data')):
        module = find(folder, config[section].name)
        found |= {f'{section}.{k}': v for k, v in _of_dict(module, 'DEFAULTS').items()}
    if config.net.name:
        net = find('nets', config.net.name).Net
        for cls in reversed(net.__mro__ if isinstance(net, type) else ()):
            module = sys.modules[cls.__module__]
            if (module.__package__ or '').split('.')[0] not in ('builtins', 'flax'):
                found |= {f'net.{k}': v for k, v in _of_class(module, cls.__name__).items()}
    return found


def _of_dict(module: ModuleType, name: str) -> dict[str, str]:
    """Comments of a dict literal that a module assigns to a name, by dotted keys."""
    source = _source(module)
    for node in ast.walk(ast.parse(source)):
        targets = node.targets if isinstance(node, ast.Assign) else (
            [node.target] if isinstance(node, ast.AnnAssign) else [])  # fmt: skip
        if any(isinstance(t, ast.Name) and t.id == name for t in targets):
            value = node.value  # type: ignore[attr-defined]
            return dict(_of_literal(module, value, _by_line(source), '')) if isinstance(
                value, ast.Dict) else {}  # fmt: skip
    return {}


def _of_literal(
    module: ModuleType, node: ast.Dict, told: dict[int, tuple[str, bool]], prefix: str
) -> Iterator[tuple[str, str]]:
    for key, value in zip(node.keys, node.values, strict=True):
        if key is None and isinstance(value, ast.Name):  # **FIELDS of this file or of another
            yield from _of_dict(*_origin(module, value.id)).items()
        elif isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield f'{prefix}{key.value}', _at(told, key.lineno)
            if isinstance(value, ast.Dict):
                yield from _of_literal(module, value, told, f'{prefix}{key.value}.')


def _origin(module: ModuleType, name: str) -> tuple[ModuleType, str]:
    """The module and name that something imported comes from."""
    for node in ast.parse(_source(module)).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return importlib.import_module(node.module), alias.name
    return module, name


def _of_class(module: ModuleType, name: str) -> dict[str, str]:
    """Comments of a dataclass's fields."""
    source = _source(module)
    told = _by_line(source)
    return {
        field.target.id: _at(told, field.lineno)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef) and node.name == name
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    }


def _source(module: ModuleType) -> str:
    try:
        return inspect.getsource(module)
    except (OSError, TypeError):
        return ''


def _by_line(source: str) -> dict[int, tuple[str, bool]]:
    """Line number -> its comment, and whether it has nothing else."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        t.start[0]: (t.string.lstrip('# '), not t.line[: t.start[1]].strip())
        for t in tokens
        if t.type == tokenize.COMMENT
    }


def _at(told: dict[int, tuple[str, bool]], line: int) -> str:
    """The comment on a line, else the lines of comment right above it."""
    if line in told:
        return told[line][0]
    above = []
    while told.get(line - 1, ('', False))[1]:
        line -= 1
        above.append(told[line][0])
    return ' '.join(reversed(above))
