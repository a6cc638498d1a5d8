"""Texts that describe classes, from a classes.json beside the class folders."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import logging

from anyshot_jax.storage.files import read_whole
from anyshot_jax.types import InputError, nearest

MAX_BYTES = 50_000_000


def read_json(path: Path) -> Any:
    """Reads a JSON file; InputError (names the file) if it is none, damaged or too large."""
    try:
        text = read_whole(path, MAX_BYTES).decode('utf-8-sig')
        return json.loads(text, object_pairs_hook=_once)
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as e:  # ValueError: also of endless numbers
        raise InputError(f'{path} is not readable JSON: {e}') from e


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are all different; JSON's own reader takes the last of each."""
    found = dict(pairs)
    if len(found) < len(pairs):
        [(twice, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f'{twice!r} stands there twice')
    return found


def descriptions(root: Path) -> dict[str, str]:
    """Class name -> description from root/classes.json; empty when there is no such file.

    Two forms are read: {"class": "description", ...}, and a list of objects with "name" and
    "description", at the top or under "classes".

    Raises:
      InputError: not JSON, another form, or a class described twice; names the file and class.
    """
    path = root / 'classes.json' if root.is_dir() else root
    if not path.is_file():
        return {}
    content = read_json(path)
    if isinstance(content, dict) and isinstance(content.get('classes'), list | dict):
        content = content['classes']
    if isinstance(content, dict):
        pairs = list(content.items())
    elif isinstance(content, list) and all(isinstance(c, dict) for c in content):
        pairs = [(c.get('name'), c.get('description')) for c in content]
    else:
        pairs = [(None, None)]
    found: dict[str, str] = {}
    for name, text in pairs:
        if not isinstance(name, str) or not isinstance(text, str):
            raise InputError(
                f'{path}, class {name!r}: expected {{"class": "description"}} or a list of '
                '{"name": "class", "description": "text"}'
            )
        if name in found:
            raise InputError(f'{path} describes class {name!r} twice')
        found[name] = text
    return found


def checked_descriptions(root: Path, names: set[str]) -> dict[str, str]:
    """`descriptions`; refuses those of classes that aren't there (InputError, names them)."""
    found = descriptions(root)
    unknown = sorted(set(found) - names)
    if unknown:
        listed = ', '.join(map(repr, unknown[:5]))
        raise InputError(
            f'{root}/classes.json describes {len(unknown)} unknown classes: {listed}'
            f'{nearest(unknown[0], names)}'
        )
    return found


def warn_same(texts: Mapping[str, str]) -> None:
    """Warns of classes (name -> description) that their descriptions can't tell apart.

    That are equal ones, and such as are equal but for the class's own name in them.
    """
    names: dict[str, list[str]] = defaultdict(list)
    for name, text in texts.items():
        if text.strip():
            names[_nameless(text, name)].append(name)
    for same in names.values():
        if len(same) > 1:
            equal = len({_words(texts[name]) for name in same}) == 1
            logging.warning(
                'the same description%s for %s: it cannot tell them apart',
                '' if equal else ' but for the name', ', '.join(map(repr, same)),
            )  # fmt: skip


def _words(text: str) -> str:
    return ' '.join(re.findall(r'\w+', text.casefold().replace('_', ' ')))


def _nameless(text: str, name: str) -> str:
    """The words of a text without those of the name where it stands in it."""
    return ' '.join(f' {_words(text)} '.replace(f' {_words(name)} ', ' * ').split())
