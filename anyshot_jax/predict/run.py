"""Classifies the images of a folder, and writes what was found: the work of `predict`."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from anyshot_jax.classify.classifier import AnyShotClassifier
from anyshot_jax.classify.feature_store import FeatureStore
from anyshot_jax.classify.trained import import_code
from anyshot_jax.data.readers import descriptions as texts
from anyshot_jax.data.readers.folder_tree import find_classes, find_files
from anyshot_jax.data.readers.images import SUFFIXES
from anyshot_jax.predict.answers import Tally, answers, is_other_file
from anyshot_jax.predict.page import page
from anyshot_jax.predict.page_classes import Support
from anyshot_jax.predict.table import Outputs, write_head, write_rows
from anyshot_jax.runtime.bars import bar
from anyshot_jax.storage.folders import user_path
from anyshot_jax.types import InputError

LAYOUT = '<class>/<image>'


class Request(NamedTuple):
    """Options of the command; the flags of the same names say more."""

    query: str
    out: str
    support: str = ''
    model: str = ''
    descriptions: str = ''
    encoder: str = 'efficientnet_lite0'
    method: str = 'prototypes'
    unknown: str = ''
    save: str = ''
    on_error: str = 'raise'
    overwrite: bool = False
    allow_code: bool = False


def run(ask: Request) -> dict[str, Any]:
    """Writes predictions.csv and report.html into ask.out.

    While it works, the rows so far are in .unfinished-.../predictions.csv there.

    Returns:
      counts: images, unreadable, unknown, embedded (in this call); accuracy (None without
      labels), seconds.
    Raises:
      InputError: flags that don't go together, folders without images, an image that can't be
        read (unless on_error='skip'), a file in the way; says which.
    """
    start = time.monotonic()
    _check(ask)
    root, out = user_path(ask.query), user_path(ask.out)
    paths = _query(root)
    with Outputs(out, _settings(ask), ask.overwrite) as outputs:
        tally, embedded = _classify(ask, root, paths, outputs, start)
    return {
        'images': tally.total,
        'unreadable': tally.failed,
        'unknown': tally.unknown,
        'embedded': embedded,
        'accuracy': tally.accuracy,
        'seconds': time.monotonic() - start,
    }


def _classify(
    ask: Request, root: Path, paths: Sequence[Path], outputs: Outputs, start: float
) -> tuple[Tally, int]:
    """The answers, which are in the files then, and the number of images that were embedded."""
    table, report = outputs.folder / 'predictions.csv', outputs.folder / 'report.html'
    for path in (table, report, *([user_path(ask.save)] if ask.save else [])):
        outputs.check(path)  # before any work

    classifier, store = _classifier(ask)
    names = [str(c) for c in classifier.classes_]
    if ask.unknown in names:
        raise InputError(f'--unknown={ask.unknown}: there is a class of that name')
    if ask.save:
        with outputs.replacing(model=user_path(ask.save)) as fresh:
            classifier.save(fresh['model'])
    support = Support.of(classifier, ask.support)
    labels = _labels(root, paths, names)
    tally = Tally(names, ask.unknown)
    with outputs.replacing(table=table, report=report) as fresh:
        with (
            fresh['table'].open('w', encoding='utf-8', errors='backslashreplace', newline='') as f,
            bar(total=len(paths), desc='classify images') as shown,
        ):
            write_head(f)
            told = answers(
                classifier, store, root, paths, labels,
                unknown=ask.unknown, on_error=ask.on_error, seen=shown.update,
            )  # fmt: skip
            for some in told:
                write_rows(f, some, support.names)
                f.flush()
                for answer in some:
                    tally.add(answer)
        if not tally.total:
            raise InputError(f'none of the {len(paths)} files in {root} is an image')
        text = page(tally, classifier, support, root, _shown(ask), time.monotonic() - start)
        fresh['report'].write_bytes(text.encode('utf-8'))
    return tally, store.embedded


def _check(ask: Request) -> None:
    for name in ('query', 'out'):
        if not getattr(ask, name):
            raise InputError(f'--{name}=DIR is missing')
    if ask.model and (ask.support or ask.descriptions):
        raise InputError('--model is fitted already: leave --support and --descriptions out')
    if not (ask.model or ask.support or ask.descriptions):
        raise InputError(
            f'nothing to learn from: give --support=DIR (a folder {LAYOUT}), '
            '--descriptions=FILE, or a fitted --model=FILE'
        )
    if ask.on_error not in ('raise', 'skip'):
        raise InputError(f"--on_error={ask.on_error}: need 'raise' or 'skip'")


def _settings(ask: Request) -> dict[str, Any]:
    """Key of everything that predictions depend on, besides the files inside the folders."""
    place = lambda text: str(user_path(text).resolve()) if text else ''
    made = {name: place(getattr(ask, name)) for name in ('query', 'support', 'model')}
    made |= {'descriptions': place(ask.descriptions), 'unknown': ask.unknown}
    return made if ask.model else {**made, 'encoder': ask.encoder, 'method': ask.method}


def _shown(ask: Request) -> dict[str, str]:
    """The fields that were given, for people."""
    hidden = ('encoder', 'method') if ask.model else ()
    return {
        k: str(v)
        for k, v in ask._asdict().items()
        if v and k not in hidden and k not in ('overwrite', 'allow_code')
    }


# What is learnt from.


def _classifier(ask: Request) -> tuple[AnyShotClassifier, FeatureStore]:
    """Fitted, or read from its file; and the features that it takes."""
    if ask.model:
        return _loaded(user_path(ask.model))
    described = {}
    if ask.descriptions:
        file = user_path(ask.descriptions)
        if not file.is_file():
            raise InputError(f'--descriptions={file}: there is no such file')
        described = {k: text for k, text in texts.descriptions(file).items() if text.strip()}
        texts.warn_same(described)
    if ask.allow_code and user_path(ask.method).is_dir():
        import_code(ask.method)
    classifier = AnyShotClassifier(encoder=ask.encoder, method=ask.method)
    classifier.check_params()
    store = classifier.feature_store()
    found = _support(ask, described, store) if ask.support else ([], [], None)
    images, labels, features = found
    try:
        classifier.fit(images, labels, descriptions=described, features=features)
    except InputError:
        raise
    except ValueError as e:  # scikit-learn's
        raise InputError(f'{ask.support or ask.descriptions}: {e}') from e
    return classifier, store


def _loaded(path: Path) -> tuple[AnyShotClassifier, FeatureStore]:
    classifier = AnyShotClassifier.load(path)
    if not classifier.of_images_:
        raise InputError(f'{path} was fitted on feature vectors: it cannot read images')
    try:
        return classifier, classifier.feature_store()
    except InputError as e:
        raise InputError(f'{path}: {e}') from e


def _support(
    ask: Request, described: dict[str, str], store: FeatureStore
) -> tuple[list[Path], list[str], np.ndarray]:
    """The examples, sorted, their classes, and their features."""
    root = user_path(ask.support)
    tree = find_classes(root)
    if tree.has_roles:
        raise InputError(f'{root} holds train, val and test: give one of them, as {root}/train')
    names = [name for (_, name), inside in tree.classes.items() for _ in inside]
    files = [file for inside in tree.classes.values() for file in inside]
    kept: list[int] = []
    features = [np.zeros((0, store.dim), np.float32)]
    seen = failed = 0
    with bar(total=len(files), desc='read examples', leave=False) as shown:
        for chunk in store.chunks(files):
            for row, error in chunk.errors.items():
                if is_other_file(chunk.paths[row], error):
                    continue
                if ask.on_error == 'raise':
                    raise InputError(f'{error} (--on_error=skip goes on without it)') from error
                logging.warning('skipped: %s', error)
                failed += 1
            whole = [row for row in range(len(chunk.paths)) if row not in chunk.errors]
            kept += [seen + row for row in whole]
            features.append(chunk.features[whole])
            seen += len(chunk.paths)
            shown.update(len(chunk.paths))
    have = {names[i] for i in kept} | described.keys()
    empty = [name for _, name in tree.classes if name not in have]
    if empty:
        raise InputError(
            f'class {empty[0]!r} in {root} has no readable image and no description '
            f'({failed} skipped in all)'
        )
    if not have:
        raise InputError(f'{root} holds no class folder with images in it; expected {LAYOUT}')
    return [files[i] for i in kept], [names[i] for i in kept], np.concatenate(features)


# What is asked.


def _query(root: Path) -> list[Path]:
    paths, _ = find_files(root)
    if not paths:
        raise InputError(f'{root} holds no images')
    return paths


def _labels(root: Path, paths: Sequence[Path], names: Sequence[str]) -> list[str | None]:
    """True classes: names of the top folders, if there are no loose images and one is a class."""
    parts = [path.relative_to(root).parts for path in paths]
    loose = any(len(p) == 1 and Path(p[0]).suffix.lower() in SUFFIXES for p in parts)
    labels = [p[0] if len(p) > 1 else None for p in parts]
    known = not loose and bool(set(labels) & set(names))
    return labels if known else [None] * len(paths)
