"""Finds defects in the images of a folder, having seen normal ones: `predict --good=DIR`.

    python -m anyshot_jax.predict --good=DIR [--types=DIR] --query=DIR --out=OUT

Writes OUT/predictions.csv and OUT/report.html. --types is a folder <type>/<image> of examples of
known types of defects, one of each or more.
"""

import csv
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from absl import logging

from anyshot_jax.data.readers import masks
from anyshot_jax.data.readers.folder_tree import ROLE_OF, find_classes, find_files
from anyshot_jax.data.readers.images import SUFFIXES, NotRead, span_of
from anyshot_jax.data.readers.kinds import has_unread_suffix
from anyshot_jax.data.readers.notes import Notes, of_suffix
from anyshot_jax.detect import model_file, settings
from anyshot_jax.detect.detector import AnomalyDetector
from anyshot_jax.detect.inputs import MAX_PIXELS, content
from anyshot_jax.detect.verdicts import DEFECT, NORMAL, Verdict
from anyshot_jax.predict.defects_page import Answer, Tally, page
from anyshot_jax.predict.table import Outputs, check_save, harmless
from anyshot_jax.storage.folders import user_path
from anyshot_jax.types import InputError

COLUMNS = (
    'path', 'score', 'threshold', 'verdict', 'p_value', 'product', 'type', 'type_probability',
    'left', 'top', 'right', 'bottom', 'label', 'error',
)  # fmt: skip
GOOD_NAMES = ('good', 'normal', 'ok')  # folders of the query that hold images without a defect


class Request(NamedTuple):
    """A request; the flags of the same names say more."""

    query: str = ''
    out: str = ''
    good: str = ''
    types: str = ''
    model: str = ''
    products: bool = False
    encoder: str = 'efficientnet_lite0'
    size: int = 256
    tile: int = 0
    turns: int = 0
    foreground: str = 'none'
    memory: int = 10_000
    false_alarm: float = 0.01
    share: float = 0.0
    cosine: bool = False
    learnt: bool = False
    pretrain: bool = False
    save: str = ''
    on_error: str = 'raise'
    overwrite: bool = False
    crop: str = 'auto'
    range: str = ''
    max_pixels: int = MAX_PIXELS
    follow_links: bool = False


OF_DETECTOR = (
    'encoder', 'size', 'tile', 'turns', 'foreground', 'memory', 'false_alarm', 'share', 'cosine',
    'learnt', 'pretrain', 'crop',
)  # fmt: skip
FITTED = (*OF_DETECTOR, 'range')  # what a fitted detector has


def is_asked(good: str, types: str, model: str) -> bool:
    """True if these flags are about defects, not classes."""
    return bool(good or types) or bool(model and model_file.is_detector(user_path(model)))


def run(ask: Request) -> dict[str, Any]:
    """Writes predictions.csv and report.html into ask.out.

    Returns:
      counts: images, defects, unreadable; seconds; notes (what was passed over or looks odd).
    Raises:
      InputError: flags that don't go together, folders without images, an image that can't be
        read (unless on_error='skip'), a file in the way; says which.
    """
    start = time.monotonic()
    _check(ask)
    root, out = user_path(ask.query), user_path(ask.out)
    notes = Notes()
    paths = images_in(root, ask.follow_links, notes, unread=True)
    with Outputs(out, _settings(ask), ask.overwrite) as outputs:
        return _judge(ask, root, paths, outputs, start, notes)


def _judge(
    ask: Request, root: Path, paths: Sequence[Path], outputs: Outputs, start: float, notes: Notes
) -> dict[str, Any]:
    table, report = outputs.folder / 'predictions.csv', outputs.folder / 'report.html'
    for path in (table, report, *([user_path(ask.save)] if ask.save else [])):
        outputs.check(path)  # before any work
    detector = _detector(ask, notes)
    if ask.save:
        with outputs.replacing(model=user_path(ask.save)) as fresh:
            detector.save(fresh['model'])
    tally = Tally()
    with outputs.replacing(table=table, report=report) as fresh:
        with fresh['table'].open('w', encoding='utf-8', errors='backslashreplace', newline='') as f:
            _writer(f).writerow(COLUMNS)
            for one in judge_files(detector, root, paths, ask.on_error, notes):
                _writer(f).writerow(row(one))
                tally.add(one)
        if not tally.total:
            raise InputError(f'{root} holds no image that can be read')
        seconds = time.monotonic() - start
        shown = {k: str(v) for k, v in ask._asdict().items() if v and k != 'overwrite'}
        text = page(tally, detector, root, shown, seconds, notes)
        fresh['report'].write_bytes(text.encode('utf-8'))
    return {
        'images': tally.total,
        'defects': tally.defects,
        'unreadable': len(tally.errors),
        'seconds': seconds,
        'notes': str(notes),
    }


def judge_files(
    detector: AnomalyDetector, root: Path, paths: Sequence[Path], on_error: str, notes: Notes
) -> Iterator[Answer]:
    """Yields the verdict on each image; of those that can't be read the reason, at the end.

    Raises:
      InputError: a damaged one (unless on_error='skip').
    """
    errors: dict[int, InputError] = {}
    labels = _labels(root, paths, detector.types_)
    inside = [path.relative_to(root).as_posix() for path in paths]
    normal = {group for known in detector.normal_.values() for group in known.group}
    how = detector.reading_

    def check() -> None:
        damaged = [e for e in errors.values() if not isinstance(e, NotRead)]
        if damaged and on_error == 'raise':
            raise InputError(f'{damaged[0]} (--on_error=skip goes on without it)')

    for i, said, found in detector.each(paths, errors=errors, notes=notes):
        check()
        if content(paths[i], inside[i], how) in normal:
            notes.add('queries with the same bytes as a normal image', inside[i])
        yield Answer(inside[i], labels[i], said, found)
    check()
    for i, error in sorted(errors.items()):
        yield Answer(inside[i], labels[i], error=str(error))


def row(one: Answer) -> list[Any]:
    """A line of predictions.csv."""
    path, label = harmless(one.path, './'), harmless(one.label or '')
    if one.said is None:
        return [path, *[''] * (len(COLUMNS) - 3), label, harmless(one.error)]
    v: Verdict = one.said
    return [
        path,
        round(v.score, 4),
        '' if v.threshold is None else round(v.threshold, 4),
        {None: '', True: DEFECT, False: NORMAL}[v.defect],
        '' if v.p_value is None else round(v.p_value, 4),
        'none' if v.product is None else harmless(v.product),
        harmless(v.type) if v.defect else '',
        round(v.type_probability, 4) if v.defect and v.type else '',
        *v.place,
        label,
        '',
    ]


def _writer(file: TextIO) -> Any:
    return csv.writer(file, quoting=csv.QUOTE_NONNUMERIC, lineterminator='\n')


def images_in(root: Path, follow_links: bool, notes: Notes, unread: bool = False) -> list[Path]:
    """Files that are called like images.

    Args:
      notes: takes the others. unread: takes images of kinds that are not read, too.
    Raises:
      InputError: no such folder, or no image in it.
    """
    files, passed_over = find_files(root, follow_links)
    notes.add_from(passed_over)
    paths = images_of(root, files, notes, unread)
    if not paths:
        raise InputError(f'{root} holds no images ({", ".join(SUFFIXES[:4])}, ...)')
    return paths


def images_of(root: Path, files: Sequence[Path], notes: Notes, unread: bool = False) -> list[Path]:
    """Files of a folder that are called like images; see `images_in`."""
    paths = []
    for path in files:
        if path.suffix.lower() in SUFFIXES or (unread and has_unread_suffix(path.name)):
            paths.append(path)
        else:
            notes.add(of_suffix(path.name), path.relative_to(root).as_posix())
    return paths


def _labels(root: Path, paths: Sequence[Path], types: Sequence[str]) -> list[str | None]:
    """Names of the top folders, where one of them says normal, or names a known type."""
    parts = [path.relative_to(root).parts for path in paths]
    labels = [p[0] if len(p) > 1 else None for p in parts]
    known = {*GOOD_NAMES, *types}
    told = {label if label in known else (label or '').casefold() for label in labels}
    return labels if None not in labels and known & told else [None] * len(paths)


def _check(ask: Request) -> None:
    for name in ('query', 'out'):
        if not getattr(ask, name):
            raise InputError(f'--{name}=DIR is missing')
    if ask.model and ask.good:
        raise InputError('--model is fitted already: leave --good out')
    if not ask.good and not ask.model:
        raise InputError(
            '--types names types of defects, but there are no normal images to compare them with: '
            'give --good=DIR'
        )
    if ask.save:
        check_save(user_path(ask.save))


def _settings(ask: Request) -> dict[str, Any]:
    """Settings that predictions depend on, besides the files inside the folders."""
    place = lambda text: str(user_path(text).resolve()) if text else ''
    made = {name: place(getattr(ask, name)) for name in ('query', 'good', 'types', 'model')}
    if ask.model:
        return made
    return made | {name: getattr(ask, name) for name in (*FITTED, 'products')}


def _check_good(root: Path, folders: set[str]) -> None:
    """Refuses (InputError) a folder that has more in it than normal images, by its folders' names.

    A data set's own folder would teach its defects as normal.
    """
    told = {name for name in folders if name.casefold() in (*GOOD_NAMES, *ROLE_OF, *masks.FOLDERS)}
    if told and len(folders) > 1:
        raise InputError(
            f'{root} holds the folders {", ".join(sorted(folders))}: give the one of normal images '
            f'only, such as {root / min(told)}, or say --products if each holds those of a product'
        )


def _detector(ask: Request, notes: Notes) -> AnomalyDetector:
    """Fitted, or read from its file; with the types."""
    if ask.model:
        detector = AnomalyDetector.load(user_path(ask.model)).set_params(max_pixels=ask.max_pixels)
    else:
        span = span_of(ask.range) or None
        fields = {name: getattr(ask, name) for name in OF_DETECTOR}
        detector = AnomalyDetector(**fields, range=span, max_pixels=ask.max_pixels)
        settings.check(detector)
        root = user_path(ask.good)
        paths = images_in(root, ask.follow_links, notes)
        inside = [path.relative_to(root).parts for path in paths]
        labels = None
        if ask.products:
            if loose := [p for p in inside if len(p) < 2]:
                raise InputError(
                    f'{root}: --products wants a folder for each product, {loose[0][0]!r} is in '
                    'none'
                )
            labels = [p[0] for p in inside]
        else:
            _check_good(root, {p[0] for p in inside if len(p) > 1})
        detector.fit(paths, product=labels)
    if ask.types:
        root = user_path(ask.types)
        tree = find_classes(root, ask.follow_links)
        notes.add_from(tree.notes)
        for (_, name), files in tree.classes.items():
            if name.lower() in GOOD_NAMES:
                logging.warning('%s/%s is no type of defect: passed over', root, name)
                continue
            images = images_of(root, files, notes)
            if not images:
                raise InputError(f'{root}/{name} holds no image of that type of defect')
            detector.add_type(name, images)
    return detector
