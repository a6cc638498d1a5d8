"""A classifier's answers to image files, a few at a time, and what is kept of them for a report.

Memory grows with the number of images by a few hundred bytes each, not by their features.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anyshot_jax.classify import alike
from anyshot_jax.classify.feature_store import CHUNK, FeatureStore
from anyshot_jax.data.readers.images import SUFFIXES, NotAnImage, NotRead
from anyshot_jax.data.readers.notes import Notes, of_suffix
from anyshot_jax.types import Array, InputError

TOGETHER = 1024  # images that a transductive method answers in one call: its memory is their square
UNSURE, UNKNOWN, WRONG, EACH, ERRORS = 200, 60, 60, 4, 50  # images kept for a report
SURE = 0.9  # probability from which an answer isn't listed as unsure
COPY = 0.9999  # similarity from which an image is one of the support


class Answer(NamedTuple):
    """To one image file."""

    path: str  # inside the query folder, with / between folders
    label: str | None = None  # true class, where the folder tells
    prediction: str = ''
    probability: float = 0.0
    unknown: bool = False
    second: str = ''
    second_probability: float = 0.0
    nearest: int = -1  # row of the support; -1: it has no images
    similarity: float = 0.0
    error: str = ''  # why there is no prediction

    @property
    def right(self) -> bool | None:
        """True if the prediction is the label; None where no label is known."""
        return None if self.label is None else self.prediction == self.label


def answers(
    classifier: Any,
    store: FeatureStore,
    root: Path,
    paths: Sequence[Path],
    labels: Sequence[str | None],
    *,
    unknown: str = '',
    on_error: str = 'raise',
    seen: Callable[[int], object] = lambda n: None,
    notes: Notes | None = None,
    examples: Sequence[bytes] = (),
) -> Iterator[list[Answer]]:
    """Answers in the order of `paths`, some at a time.

    A transductive method answers up to TOGETHER images in a call. It takes them to be spread over
    the classes, so each call gets images from everywhere, and answers come when all are done.

    Args:
      root: the folder of `paths`. unknown: the prediction for what is of no class, '' for none.
      on_error: raise | skip. seen: is told how many images were just embedded.
      notes: takes what is passed over or looks odd. examples: digests of the examples' bytes.
    Raises:
      InputError: a damaged image (unless on_error='skip'); names it. One of a kind or a size that
        is not read has an answer with its error.
    """
    names = [str(c) for c in classifier.classes_]
    notes = Notes() if notes is None else notes
    known = set(examples)
    looks: list[tuple[str, Array]] = []

    def of(rows: Array) -> Iterator[tuple[int, Answer]]:
        features, kept = [], []
        for chunk in store.chunks([paths[i] for i in rows]):
            at = rows[: len(chunk.paths)]
            rows = rows[len(chunk.paths) :]
            for row, error in chunk.errors.items():
                path = chunk.paths[row]
                if is_other_file(path, error):
                    notes.add(of_suffix(path.name), _inside(path, root))
                    continue
                if on_error == 'raise' and not isinstance(error, NotRead):
                    raise InputError(f'{error} (--on_error=skip goes on without it)') from error
                i = int(at[row])
                yield i, Answer(_inside(path, root), labels[i], error=str(error))
            whole = [row for row in range(len(at)) if row not in chunk.errors]
            for row in whole:
                inside = _inside(chunk.paths[row], root)
                notes.add_all(chunk.odd.get(row, ()), inside)
                if chunk.keys[row] in known:
                    notes.add('queries with the same bytes as an example', inside)
                else:
                    looks.append((inside, chunk.small[row]))
            features.append(chunk.features[whole])
            kept += [int(at[row]) for row in whole]
            seen(len(at))
        for i, told in zip(kept, _told(classifier, np.concatenate(features)), strict=True):
            p, strange, near, similarity = told
            best, second = _two_best(p)
            yield (
                i,
                Answer(
                    _inside(paths[i], root),
                    labels[i],
                    unknown if strange and unknown else names[best],
                    float(p[best]),
                    strange,
                    names[second] if second != best else '',
                    float(p[second]) if second != best else 0.0,
                    near,
                    similarity,
                ),
            )

    num = len(paths)
    if classifier.transductive:
        mixed = np.random.default_rng(0).permutation(num)
        found = [pair for part in np.array_split(mixed, -(-num // TOGETHER)) for pair in of(part)]
        yield [answer for _, answer in sorted(found)]
    else:
        for start in range(0, num, CHUNK):
            rows = np.arange(start, min(start + CHUNK, num))
            yield [answer for _, answer in sorted(of(rows))]
    if looks:
        inside, small = zip(*sorted(looks, key=lambda pair: pair[0]), strict=True)
        shown = alike.smalls(classifier.support_images_)
        alike.note_queries(np.stack(small), inside, shown, notes)


def is_other_file(path: Path, error: InputError) -> bool:
    """True if what couldn't be read is a note or a table among the images."""
    return isinstance(error, NotAnImage) and path.suffix.lower() not in SUFFIXES


def _told(classifier: Any, x: Array) -> Iterator[tuple[Array, bool, int, float]]:
    """(probabilities [C], whether unknown, nearest row, similarity) of each of the features."""
    if not len(x):
        return
    for row, far, near in zip(*classifier.answer(x, k=1), strict=True):
        yield row, bool(far), *((near[0].row, near[0].similarity) if near else (-1, 0.0))


def _two_best(p: Array) -> tuple[int, int]:
    order = np.argsort(-p, kind='stable')
    return int(order[0]), int(order[min(1, len(order) - 1)])


def _inside(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


# What a report shows.


class Tally:
    """Counts of all answers, and the few that a report shows."""

    def __init__(self, names: Sequence[str], unknown: str = ''):
        """names: the classes. unknown: the prediction for what is of no class, if there is one."""
        self.names, self.unknown_name = list(names), unknown
        self.known = {*names, unknown} - {''}
        self.total = self.unknown = self.failed = self.copies = self.below_sure = 0
        self.predicted: Counter[str] = Counter()
        self.confusion: Counter[tuple[str, str]] = Counter()  # (label, prediction)
        self.stranger_labels: Counter[str] = Counter()
        self.strangers = self.strangers_found = 0  # of labels that are no class; called unknown
        self.errors: list[Answer] = []
        self._unsure: _Least = _Least(UNSURE)
        self._unknown: _Least = _Least(UNKNOWN)
        self._wrong: _Least = _Least(WRONG)
        self._samples: dict[str, _Least] = {}

    def add(self, a: Answer) -> None:
        """Takes one answer into account."""
        self.total += 1
        if a.error:
            self.failed += 1
            if len(self.errors) < ERRORS:
                self.errors.append(a)
            return
        self.predicted[a.prediction] += 1
        self.unknown += a.unknown
        self.copies += a.similarity > COPY
        if a.label is not None and a.label in self.known:
            self.confusion[a.label, a.prediction] += 1
            if not a.right:
                self._wrong.add(-a.probability, a)
        elif a.label is not None:
            self.strangers += 1
            self.stranger_labels[a.label] += 1
            self.strangers_found += a.unknown
        if a.unknown:
            self._unknown.add(a.similarity, a)
            return
        self.below_sure += a.probability < SURE
        if a.probability < SURE:
            self._unsure.add(a.probability, a)
        # The same sample in whatever order they come.
        drawn = hashlib.blake2b(a.path.encode('utf-8', 'replace'), digest_size=8).hexdigest()
        self._samples.setdefault(a.prediction, _Least(EACH)).add(int(drawn, 16), a)

    @property
    def accuracy(self) -> float | None:
        """Share of right answers among images whose class is known, if there are any."""
        asked = self.confusion.total()
        return sum(n for (y, p), n in self.confusion.items() if y == p) / asked if asked else None

    @property
    def unsure(self) -> list[Answer]:
        """The least sure first, without the unknown."""
        return self._unsure.sorted()

    @property
    def strange(self) -> list[Answer]:
        """The unknown, those unlike all of the support first."""
        return self._unknown.sorted()

    @property
    def wrong(self) -> list[Answer]:
        """Answers whose label is another class, the surest first."""
        return self._wrong.sorted()

    def samples(self, name: str) -> list[Answer]:
        """A few of the other images that were given this class."""
        shown = {a.path for a in self.unsure}
        found = self._samples[name].sorted() if name in self._samples else []
        return [a for a in found if a.path not in shown]


class _Least:
    """The answers of the smallest numbers."""

    def __init__(self, most: int):
        self.most, self.heap = most, list[tuple[float, int, Answer]]()
        self.count = 0

    def add(self, number: float, answer: Answer) -> None:
        self.count += 1
        entry = (-number, -self.count, answer)  # of equals the first
        if len(self.heap) < self.most:
            heapq.heappush(self.heap, entry)
        else:
            heapq.heappushpop(self.heap, entry)

    def sorted(self) -> list[Answer]:
        return [answer for *_, answer in sorted(self.heap, reverse=True)]
