"""The parts of the page of `predict` about classes: their table and confusions."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from anyshot_jax.predict.answers import Tally
from anyshot_jax.report import figures, tasks
from anyshot_jax.report.page import (
    html,
    meter,
    name,
    note,
    paragraph,
    percent,
    section,
    table,
)
from anyshot_jax.storage.folders import user_path
from anyshot_jax.types import Array

MATRIX, PAIRS = 40, 40  # classes of the matrix at most; else so many pairs


class Support(NamedTuple):
    """The examples, as the page shows them; M = 0 where there are descriptions only."""

    names: list[str]  # [M] inside the support folder, where there is one
    labels: list[str]  # [M]
    images: Array  # [M, H, W, 3] uint8

    @classmethod
    def of(cls, classifier: Any, folder: str = '') -> 'Support':
        """Classes of a fitted classifier."""
        root = user_path(folder) if folder else None
        named = [Path(text) for text in classifier.support_names_]
        names = [
            (p.relative_to(root) if root and p.is_relative_to(root) else p).as_posix()
            for p in named
        ]
        labels = [str(label) for label in classifier.support_labels_]
        return cls(names, labels, classifier.support_images_)

    def thumb(self, row: int) -> Markup:
        """The image of a row."""
        return figures.photo(self.images[row], f'example of {self.labels[row]}')

    def thumb_of(self, label: str) -> Markup:
        """The first image of a class, if it has one."""
        return self.thumb(self.labels.index(label)) if label in self.labels else Markup()


def classes(tally: Tally, classifier: Any, support: Support) -> Markup:
    """The classes with their counts and descriptions."""
    said = {str(c): text for c, text in classifier.descriptions_.items()}
    head = ['class', 'examples', 'images called so']
    labelled = tally.accuracy is not None
    head += ['recall', 'precision'] if labelled else ['']
    described = any(said.values())
    head += ['description'] if described else []
    most = max(tally.predicted.values(), default=0) or 1
    of_label, of_answer = _sums(tally)
    examples = {c: support.labels.count(c) for c in tally.names}
    rows = []
    for c in [*tally.names, *([tally.unknown_name] if tally.unknown_name else [])]:
        thumb = support.thumb_of(c)
        count = tally.predicted[c]
        who = '<span class="who">{{ thumb }}<span>{{ name }}</span></span>'
        row: list[object] = [html(who, thumb=thumb, name=name(c))]
        row += [f'{examples.get(c, 0):,}', f'{count:,}']
        if labelled:
            hits = tally.confusion[c, c]
            row += [
                percent(hits / n if n else None) for n in (of_label.get(c, 0), of_answer.get(c, 0))
            ]
        else:
            row.append(meter(count / most, None))
        if described:
            text = name(said.get(c, ''))
            row.append(html('<div class="text">{{ text }}</div>', text=text))
        rows.append(row)
    more = paragraph(
        'Recall: how many of the images in the folder of that name were called so. Precision: '
        'how many that were called so lie in that folder, among those whose class is known.'
    )
    return section('classes', 'Classes', more if labelled else '', table(head, rows, 'classes'))


def _sums(tally: Tally) -> tuple[dict[str, int], dict[str, int]]:
    """Counts of images of known class by label, and by answer."""
    of_label: dict[str, int] = {}
    of_answer: dict[str, int] = {}
    for (label, answer), count in tally.confusion.items():
        of_label[label] = of_label.get(label, 0) + count
        of_answer[answer] = of_answer.get(answer, 0) + count
    return of_label, of_answer


def confusion(tally: Tally, support: Support) -> Markup:
    """Confusions of labels and answers, where labels are known."""
    if tally.accuracy is None:
        return Markup()
    title = 'Confusion'
    labels = sorted({text for pair in tally.confusion for text in pair})
    of_label, _ = _sums(tally)
    if len(labels) <= MATRIX:
        at = {c: i for i, c in enumerate(labels)}
        count = np.zeros((len(labels),) * 2, int)
        for (label, answer), n in tally.confusion.items():
            count[at[label], at[answer]] = n
        thumbs = [support.thumb_of(c) for c in labels]
        shares = count / np.maximum(count.sum(1, keepdims=True), 1)
        intro = (
            'A row is the folder that images lie in, a column what they were called, in per cent '
            'of the row. Blue is right, red is wrong; cells without a number are zero.'
        )
        grid = tasks.matrix(labels, thumbs, shares, count)
        return section('confusion', title, paragraph(intro), grid)
    pairs = sorted(((n, *pair) for pair, n in tally.confusion.items() if len(set(pair)) > 1))[::-1]
    if not pairs:
        return section('confusion', title, note('No image was called by a wrong name.'))
    rows = [
        (name(label), name(answer), f'{n:,}', percent(n / of_label[label]))
        for n, label, answer in pairs[:PAIRS]
    ]
    intro = f'{len(labels):,} classes are too many for a matrix: the most frequent confusions of '
    intro += f'{len(pairs):,}.'
    head = ('is', 'called', 'images', 'of the class')
    return section('confusion', title, paragraph(intro), table(head, rows))
