"""The parts of the page of `predict` about the examples: how right they are, which are doubtful."""

from typing import Any

import numpy as np
from markupsafe import Markup

from anyshot_jax.predict.page_classes import MATRIX, PAIRS, Support
from anyshot_jax.report import tasks
from anyshot_jax.report.page import html, join, name, note, paragraph, percent, section, table

SUSPICIOUS, SUSPECT = 0.5, 40  # from which an example is listed; at most so many


def accuracy(classifier: Any) -> float | None:
    """Share of examples that were called right while they were held out; None: none could be."""
    count = classifier.held_out_confusion()
    return float(np.trace(count) / count.sum()) if count.sum() else None


def held_out(classifier: Any, support: Support) -> Markup:
    """Held-out accuracy of the examples themselves: the first thing to look at."""
    right = accuracy(classifier)
    if right is None:
        return Markup()
    count = classifier.held_out_confusion()
    labels = [str(c) for c in classifier.classes_]
    intro = paragraph(
        f'{np.trace(count):,} of {count.sum():,} examples ({percent(right)}) are called right by '
        'the others, each held out in turn. New images can expect as much if they look like these.'
    )
    title = 'The examples, each held out'
    if len(labels) <= MATRIX:
        shares = count / np.maximum(count.sum(1, keepdims=True), 1)
        thumbs = [support.thumb_of(c) for c in labels]
        return section('examples', title, intro, tasks.matrix(labels, thumbs, shares, count))
    wrong = [(int(n), *at) for at, n in np.ndenumerate(count) if n and at[0] != at[1]]
    if not wrong:
        return section('examples', title, intro, note('None was called by a wrong name.'))
    rows = [
        (name(labels[i]), name(labels[j]), f'{n:,}')
        for n, i, j in sorted(wrong, reverse=True)[:PAIRS]
    ]
    return section('examples', title, intro, table(('is', 'called', 'examples'), rows))


def limit_of_the_unknown(classifier: Any) -> str:
    """A sentence on what the rejection threshold is worth."""
    if classifier.threshold_ is None:
        return 'No class has two examples, so nothing tells what is of no known class.'
    if classifier.false_alarm_ is None:
        return ''
    said = (
        f'About {classifier.false_alarm_ * 100:.1f} % of images of the known classes may be called '
        'of no known class, by the examples themselves, each held out in turn'
    )
    if classifier.unseen_detected_ is None:
        return f'{said}.'
    share = classifier.unseen_detected_ * 100
    return (
        f'{said}; of images of other classes about {share:.0f} % would be noticed, by each class '
        'left out in turn, and the rest would get the name of a class here.'
    )


def suspicious(classifier: Any, support: Support) -> Markup:
    """Examples that are likely to have a wrong label or, where none is, those that are hard."""
    noise, number = classifier.label_errors(), np.asarray(classifier.suspicion())
    errors = bool((noise.wrong >= SUSPICIOUS).any())
    number = noise.wrong if errors else number
    rows = np.argsort(-number, kind='stable')
    rows = rows[number[rows] >= SUSPICIOUS]
    if not len(rows):
        return Markup()
    near = classifier.explain(classifier.support_features_[rows[:SUSPECT]], k=len(number))
    cards = []
    for row, found in zip(rows[:SUSPECT], near, strict=True):
        label = support.labels[row]
        other = next((n for n in found if support.labels[n.row] != label), None)
        near_by = '' if other is None else support.thumb(other.row)
        cards.append(
            html(
                '<figure class="answer">{{ image }}{{ other or no_image }}<figcaption>'
                '<b>{{ label }}{{ mark }}</b>{% if other %}most like {{ like }} of {{ of }}, '
                '{{ similarity }}<br>{% endif %}{{ what }} {{ share }} %<br>'
                '<span class="dim">{{ file }}</span></figcaption></figure>',
                image=support.thumb(row),
                other=near_by,
                no_image=Markup('<span></span>'),
                label=name(label),
                mark='?' if errors else '',
                what='wrong label:' if errors else 'its own class gets',
                share=f'{(number[row] if errors else 1 - number[row]) * 100:.0f}',
                file=name(support.names[row]),
                like='' if other is None else name(support.names[other.row]),
                of='' if other is None else name(support.labels[other.row]),
                similarity='' if other is None else f'{other.similarity:.2f}',
            )
        )
    left = len(rows) - len(cards)
    if errors:
        title = 'Possible label errors among the examples'
        intro = (
            f'Some {noise.share * 100:.1f} % of the labels seem to be wrong. Of these '
            f'{len(rows):,} of {len(number):,} examples about {noise.wrong[rows].sum():.0f} are '
            'expected to be; the others are unusual images.'
        )
    else:
        title = 'Examples that are hard'
        intro = (
            f'{len(rows):,} of {len(number):,} examples would get less than half of the '
            'probability for their own class if they were no examples. Nothing speaks for wrong '
            'labels: as many are to be expected where classes are this alike.'
        )
    intro += ' Beside each: the nearest example of another class.'
    intro += f' {left:,} more are not shown.' if left else ''
    body = html('<div class="answers">{{ cards }}</div>', cards=join(cards))
    return section('suspicious', title, paragraph(intro), body)
