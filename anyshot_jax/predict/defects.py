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

from anyshot_jax.data.readers.folder_tree import find_classes, find_files
from anyshot_jax.data.readers.images import SUFFIXES
from anyshot_jax.detect import model_file, settings
from anyshot_jax.detect.detector import AnomalyDetector
from anyshot_jax.detect.verdicts import DEFECT, NORMAL, Verdict
from anyshot_jax.predict.defects_page import Answer, Tally, page
from anyshot_jax.predict.table import Outputs, harmless
from anyshot_jax.types import InputError

COLUMNS = (
    'path', 'score', 'threshold', 'verdict', 'p_value', 'product', 'type', 'type_probability',
    'left', 'top', 'right', 'bottom', 'label', 'error',
)  # fmt: skip
GOOD_NAMES = ('good', 'normal', 'ok')  # folders of the query that hold images without a defect


class Request(NamedTuple):
    """A request; the flags of the same names say more."""

    query: str
    out: str
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
    save: str = ''
    on_error: str = 'raise'
    overwrite: bool = False


OF_DETECTOR = (
    'encoder', 'size', 'tile', 'turns', 'foreground', 'memory', 'false_alarm', 'share', 'cosine',
)  # fmt: skip


def is_asked(good: str, types: str, model: str) -> bool:
    """True if these flags are about defects, not classes."""
    return bool(good or types) or bool(model and model_file.is_detector(Path(model).expanduser()))


def run(ask: Request) -> dict[str, Any]:
    """Writes predictions.csv and report.html into ask.out.

    Returns:
      counts: images, defects, unreadable, other (files that are no images); seconds.
    Raises:
      InputError: flags that don't go together, folders without images, an image that can't be
        read (unless on_error='skip'), a file in the way; says which.
    """
    start = time.monotonic()
    _check(ask)
    root, out = Path(ask.query).expanduser(), Path(ask.out).expanduser()
    paths, other = images_in(root)
    outputs = Outputs(out, _settings(ask), ask.overwrite)
    table, report = out / 'predictions.csv', out / 'report.html'
    for path in (table, report, *([Path(ask.save).expanduser()] if ask.save else [])):
        outputs.check(path)  # before any work
    detector = _detector(ask)
    if ask.save:
        with outputs.replacing(model=Path(ask.save).expanduser()) as fresh:
            detector.save(fresh['model'])
    tally = Tally(other)
    with outputs.replacing(table=table, report=report) as fresh:
        with fresh['table'].open('w', encoding='utf-8', errors='backslashreplace', newline='') as f:
            _writer(f).writerow(COLUMNS)
            for one in judge_files(detector, root, paths, ask.on_error):
                _writer(f).writerow(row(one))
                tally.add(one)
        if not tally.total:
            raise InputError(f'{root} holds no image that can be read')
        seconds = time.monotonic() - start
        shown = {k: str(v) for k, v in ask._asdict().items() if v and k != 'overwrite'}
        text = page(tally, detector, root, shown, seconds)
        fresh['report'].write_bytes(text.encode('utf-8'))
    return {
        'images': tally.total,
        'defects': tally.defects,
        'unreadable': len(tally.errors),
        'other': other,
        'seconds': seconds,
        'notes': detector.notes(),
    }


def judge_files(
    detector: AnomalyDetector, root: Path, paths: Sequence[Path], on_error: str
) -> Iterator[Answer]:
    """Yields the verdict on each image; of those that can't be read the reason, at the end."""
    errors: dict[int, InputError] = {}
    labels = _labels(root, paths, detector.types_)
    inside = [path.relative_to(root).as_posix() for path in paths]
    told = detector.each(paths, errors=errors if on_error == 'skip' else None)
    try:
        for i, said, found in told:
            yield Answer(inside[i], labels[i], said, found)
    except InputError as e:
        raise InputError(f'{e} (--on_error=skip goes on without it)') from e
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


def images_in(root: Path) -> tuple[list[Path], int]:
    """Files that are called like images, and how many others there are.

    Raises:
      InputError: no such folder, or no image in it.
    """
    files, notes = find_files(root)
    paths = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not paths:
        raise InputError(f'{root} holds no images ({", ".join(SUFFIXES[:4])}, ...)')
    return paths, sum(notes.count.values()) + len(files) - len(paths)


def _labels(root: Path, paths: Sequence[Path], types: Sequence[str]) -> list[str | None]:
    """Names of the top folders, where one of them says normal, or names a known type."""
    parts = [path.relative_to(root).parts for path in paths]
    labels = [p[0] if len(p) > 1 else None for p in parts]
    known = {*GOOD_NAMES, *types}
    return labels if None not in labels and known & set(labels) else [None] * len(paths)


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


def _settings(ask: Request) -> dict[str, Any]:
    """Settings that predictions depend on, besides the files inside the folders."""
    place = lambda text: str(Path(text).expanduser().resolve()) if text else ''
    made = {name: place(getattr(ask, name)) for name in ('query', 'good', 'types', 'model')}
    if ask.model:
        return made
    return made | {name: getattr(ask, name) for name in (*OF_DETECTOR, 'products')}


def _detector(ask: Request) -> AnomalyDetector:
    """Fitted, or read from its file; with the types."""
    if ask.model:
        detector = AnomalyDetector.load(Path(ask.model).expanduser())
    else:
        detector = AnomalyDetector(**{name: getattr(ask, name) for name in OF_DETECTOR})
        settings.check(detector)
        root = Path(ask.good).expanduser()
        paths, other = images_in(root)
        if other:
            logging.warning('%s: %d files are no images and were passed over', root, other)
        labels = None
        if ask.products:
            inside = [path.relative_to(root).parts for path in paths]
            if loose := [p for p in inside if len(p) < 2]:
                raise InputError(
                    f'{root}: --products wants a folder for each product, {loose[0][0]!r} is in '
                    'none'
                )
            labels = [p[0] for p in inside]
        detector.fit(paths, product=labels)
    if ask.types:
        root = Path(ask.types).expanduser()
        for (_, name), files in find_classes(root).classes.items():
            if name.lower() in GOOD_NAMES:
                logging.warning('%s/%s is no type of defect: passed over', root, name)
                continue
            images = [path for path in files if path.suffix.lower() in SUFFIXES]
            if not images:
                raise InputError(f'{root}/{name} holds no image of that type of defect')
            detector.add_type(name, images)
    return detector
