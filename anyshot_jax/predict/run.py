"""Classifies the images of a folder, and writes what was found: the work of `predict`."""

import time
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from anyshot_jax.classify.classifier import AnyShotClassifier
from anyshot_jax.classify.feature_store import FeatureStore
from anyshot_jax.classify.trained import import_code
from anyshot_jax.data.readers import descriptions as texts
from anyshot_jax.data.readers.folder_tree import find_files
from anyshot_jax.data.readers.images import MAX_PIXELS, SUFFIXES, Reading, span_of
from anyshot_jax.data.readers.notes import Notes
from anyshot_jax.data.splits import plain
from anyshot_jax.predict.answers import Tally, answers
from anyshot_jax.predict.page import page
from anyshot_jax.predict.page_classes import Support
from anyshot_jax.predict.support import LAYOUT, Found, read_support
from anyshot_jax.predict.table import Outputs, check_save, write_head, write_rows
from anyshot_jax.runtime.bars import bar
from anyshot_jax.storage.folders import user_path
from anyshot_jax.types import InputError


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
    crop: str = 'auto'
    range: str = ''
    max_pixels: int = MAX_PIXELS
    follow_links: bool = False
    allow_code: bool = False


def run(ask: Request) -> dict[str, Any]:
    """Writes predictions.csv and report.html into ask.out.

    While it works, the rows so far are in .unfinished-.../predictions.csv there.

    Returns:
      counts: images, unreadable, unknown, embedded (in this call), strangers (in folders that are
      no class); accuracy (None without labels), asked (images that it is of), seconds, notes
      (what was passed over or looks odd).
    Raises:
      InputError: flags that don't go together, folders without images, an image that can't be
        read (unless on_error='skip'), a file in the way; says which.
    """
    start = time.monotonic()
    _check(ask)
    root, out = user_path(ask.query), user_path(ask.out)
    notes = Notes()
    paths = _query(root, ask.follow_links, notes)
    with Outputs(out, _settings(ask), ask.overwrite) as outputs:
        tally, store, tells = _classify(ask, root, paths, outputs, start, notes)
    return {
        'images': tally.total,
        'unreadable': tally.failed,
        'unknown': tally.unknown,
        'embedded': store.embedded,
        'accuracy': tally.accuracy,
        'asked': tally.confusion.total(),
        'strangers': tally.strangers,
        'tells': tells,
        'notes': str(notes),
        'seconds': time.monotonic() - start,
    }


def _classify(
    ask: Request, root: Path, paths: Sequence[Path], outputs: Outputs, start: float, notes: Notes
) -> tuple[Tally, FeatureStore, bool]:
    """The answers, which are in the files then, the features, and if anything tells the unknown."""
    table, report = outputs.folder / 'predictions.csv', outputs.folder / 'report.html'
    for path in (table, report, *([user_path(ask.save)] if ask.save else [])):
        outputs.check(path)  # before any work

    classifier, store, known = _classifier(ask, notes)
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
                unknown=ask.unknown, on_error=ask.on_error, seen=shown.update, notes=notes,
                examples=known,
            )  # fmt: skip
            for some in told:
                write_rows(f, some, support.names)
                f.flush()
                for answer in some:
                    tally.add(answer)
        if not tally.total:
            raise InputError(f'none of the {len(paths)} files in {root} is an image')
        for label, number in tally.stranger_labels.items():
            notes.add(_stranger(label, names), label, number)
        seconds = time.monotonic() - start
        text = page(tally, classifier, support, root, _shown(ask), seconds, notes)
        fresh['report'].write_bytes(text.encode('utf-8'))
    return tally, store, classifier.threshold_ is not None


def _check(ask: Request) -> None:
    for name in ('query', 'out'):
        if not getattr(ask, name):
            raise InputError(f'--{name}=DIR is missing')
    if ask.model and (ask.support or ask.descriptions):
        raise InputError('--model is fitted already: leave --support and --descriptions out')
    if ask.model and (ask.crop != 'auto' or ask.range):
        raise InputError('--model says how images are read: leave --crop and --range out')
    if not (ask.model or ask.support or ask.descriptions):
        raise InputError(
            f'nothing to learn from: give --support=DIR (a folder {LAYOUT}), '
            '--descriptions=FILE, or a fitted --model=FILE'
        )
    if ask.on_error not in ('raise', 'skip'):
        raise InputError(f"--on_error={ask.on_error}: need 'raise' or 'skip'")
    _reading(ask)
    if ask.save:
        check_save(user_path(ask.save))


def _reading(ask: Request) -> Reading:
    return Reading(ask.crop, span_of(ask.range), ask.max_pixels).check()


def _settings(ask: Request) -> dict[str, Any]:
    """Key of everything that predictions depend on, besides the files inside the folders."""
    place = lambda text: str(user_path(text).resolve()) if text else ''
    made = {name: place(getattr(ask, name)) for name in ('query', 'support', 'model')}
    made |= {'descriptions': place(ask.descriptions), 'unknown': ask.unknown}
    if ask.model:
        return made
    return {**made, 'encoder': ask.encoder, 'method': ask.method, 'crop': ask.crop,
            'range': ask.range}  # fmt: skip


def _shown(ask: Request) -> dict[str, str]:
    """The fields that were given, for people."""
    usual = Request('', '')
    hidden = {'overwrite', 'allow_code'} | ({'encoder', 'method', 'crop'} if ask.model else set())
    own = {'max_pixels', 'follow_links'}  # shown where they are not the default
    fields = ask._asdict().items()
    return {
        k: str(v)
        for k, v in fields
        if v and k not in hidden and not (k in own and v == getattr(usual, k))
    }


# What is learnt from.


def _classifier(ask: Request, notes: Notes) -> tuple[AnyShotClassifier, FeatureStore, list[bytes]]:
    """Fitted, or read from its file; the features that it takes; the examples' digests."""
    if ask.model:
        return *_loaded(user_path(ask.model), ask.max_pixels), []
    described = {}
    if ask.descriptions:
        file = user_path(ask.descriptions)
        if not file.is_file():
            raise InputError(f'--descriptions={file}: there is no such file')
        described = {k: text for k, text in texts.descriptions(file).items() if text.strip()}
        texts.warn_same(described)
    if ask.allow_code and user_path(ask.method).is_dir():
        import_code(ask.method)
    how = _reading(ask)
    classifier = AnyShotClassifier(
        encoder=ask.encoder, method=ask.method, crop=how.crop, range=how.span or None,
        max_pixels=how.max_pixels,
    )  # fmt: skip
    classifier.check_params()
    store = classifier.feature_store()
    found = Found([], [], None, described, [])
    if ask.support:
        found = read_support(ask, described, store, notes)
    try:
        with warnings.catch_warnings():  # it goes to the closing line instead
            warnings.filterwarnings('ignore', message='among the images and classes')
            classifier.fit(
                found.files, found.labels, descriptions=found.described, features=found.features
            )
    except InputError:
        raise
    except ValueError as e:  # scikit-learn's
        raise InputError(f'{ask.support or ask.descriptions}: {e}') from e
    root = user_path(ask.support)
    inside = [f.relative_to(root).as_posix() for f in found.files]
    classifier.alike(notes, inside, found.keys)
    return classifier, store, found.keys


def _loaded(path: Path, max_pixels: int) -> tuple[AnyShotClassifier, FeatureStore]:
    classifier = AnyShotClassifier.load(path).set_params(max_pixels=max_pixels)
    if not classifier.of_images_:
        raise InputError(f'{path} was fitted on feature vectors: it cannot read images')
    try:
        return classifier, classifier.feature_store()
    except InputError as e:
        raise InputError(f'{path}: {e}') from e


# What is asked.


def _query(root: Path, follow_links: bool, notes: Notes) -> list[Path]:
    paths, passed_over = find_files(root, follow_links)
    notes.add_from(passed_over)
    if not paths:
        raise InputError(f'{root} holds no images')
    return paths


def _labels(root: Path, paths: Sequence[Path], names: Sequence[str]) -> list[str | None]:
    """True classes: names of the top folders, if there are no loose images and one is a class.

    A folder is a class, too, if its name is the same in another Unicode form.
    """
    parts = [path.relative_to(root).parts for path in paths]
    loose = any(len(p) == 1 and Path(p[0]).suffix.lower() in SUFFIXES for p in parts)
    same = {unicodedata.normalize('NFC', name): name for name in names}
    normal = [unicodedata.normalize('NFC', p[0]) if len(p) > 1 else None for p in parts]
    labels = [None if name is None else same.get(name, name) for name in normal]
    alike = {plain(name) for name in names}
    known = not loose and any(name is not None and plain(name) in alike for name in labels)
    return labels if known else [None] * len(paths)


def _stranger(label: str, names: Sequence[str]) -> str:
    """The kind of note for a folder of queries that is no class."""
    like = [name for name in names if plain(name) == plain(label)]
    kind = 'queries in folders that are no class, and not in the accuracy'
    return f'{kind}: {label!r} is no {like[0]!r}' if like else kind
