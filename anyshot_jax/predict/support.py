"""The examples that `predict` learns from: a folder's, with their features."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from anyshot_jax.classify.feature_store import FeatureStore
from anyshot_jax.data.readers import descriptions as texts
from anyshot_jax.data.readers.classes import COPY, why_not
from anyshot_jax.data.readers.images import NotRead
from anyshot_jax.data.readers.manifest import find_tree
from anyshot_jax.data.readers.notes import Notes, of_suffix
from anyshot_jax.predict.answers import is_other_file
from anyshot_jax.runtime.bars import bar
from anyshot_jax.storage.folders import user_path
from anyshot_jax.types import InputError

LAYOUT = '<class>/<image>'


class Found(NamedTuple):
    """The examples, sorted, and what is said of classes."""

    files: list[Path]
    labels: list[str]
    features: np.ndarray | None
    described: dict[str, str]
    keys: list[bytes]  # digests of the examples' bytes


def read_support(ask: Any, described: dict[str, str], store: FeatureStore, notes: Notes) -> Found:
    root = user_path(ask.support)
    tree = find_tree(root, ask.follow_links)
    notes.add_from(tree.notes)
    if tree.has_roles:
        one = next(p for p in sorted(root.iterdir()) if p.name.lower().startswith('train'))
        raise InputError(f'{root} holds train, val and test: give one of them, as {one}')
    known = {name for _, name in tree.classes}
    described = {**texts.checked_descriptions(root, known), **described}
    names = [name for (_, name), inside in tree.classes.items() for _ in inside]
    files = [file for inside in tree.classes.values() for file in inside]
    kept: list[int] = []
    keys: list[bytes] = []
    features = [np.zeros((0, store.dim), np.float32)]
    first: dict[bytes, int] = {}
    why: dict[str, list[str]] = {}  # class -> what was passed over of it
    seen = 0
    with bar(total=len(files), desc='read examples', leave=False) as shown:
        for chunk in store.chunks(files):
            for row, error in chunk.errors.items():
                path, name = chunk.paths[row], names[seen + row]
                if is_other_file(path, error):
                    notes.add(of_suffix(path.name), _inside(path, root))
                elif isinstance(error, NotRead):
                    notes.add(why_not(path.name, error), _inside(path, root))
                    why.setdefault(name, []).append(str(error))
                elif ask.on_error == 'raise':
                    raise InputError(f'{error} (--on_error=skip goes on without it)') from error
                else:
                    logging.warning('skipped: %s', error)
                    notes.add('examples skipped, damaged or unreadable', _inside(path, root))
                    why.setdefault(name, []).append(str(error))
            for row in range(len(chunk.paths)):
                if row in chunk.errors:
                    continue
                kept.append(seen + row)
                keys.append(chunk.keys[row])
                inside = _inside(chunk.paths[row], root)
                notes.add_all(chunk.odd.get(row, ()), inside)
                before = first.setdefault(chunk.keys[row], seen + row)
                if names[before] != names[seen + row]:
                    two = f'{_inside(files[before], root)} and {inside}'
                    notes.add('examples with the same bytes in two classes', two)
                elif before != seen + row:
                    notes.add(COPY, inside)
            features.append(chunk.features[[r for r in range(len(chunk.paths))
                                            if r not in chunk.errors]])  # fmt: skip
            seen += len(chunk.paths)
            shown.update(len(chunk.paths))
    have = {names[i] for i in kept} | {c for c, text in described.items() if text.strip()}
    empty = [name for _, name in tree.classes if name not in have]
    if empty:
        said = why.get(empty[0], [])
        raise InputError(
            f'class {empty[0]!r} in {root} has no readable image and no description'
            + (f': {said[0]}' + f' (and {len(said) - 1} more)' * (len(said) > 1) if said else '')
            + (f' (passed over in all: {notes})' if notes else '')
        )
    if not have:
        raise InputError(f'{root} holds no class folder with images in it; expected {LAYOUT}')
    return Found(
        [files[i] for i in kept], [names[i] for i in kept], np.concatenate(features), described,
        keys,
    )  # fmt: skip


def _inside(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
