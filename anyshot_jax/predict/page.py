"""The page of `predict`: what the images of a folder are, and how sure that is."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from markupsafe import Markup

from anyshot_jax.classify.picture_input import SEEN
from anyshot_jax.data.readers.images import Reading, read_image, read_images
from anyshot_jax.data.readers.notes import Notes
from anyshot_jax.predict import page_classes, page_examples
from anyshot_jax.predict.answers import EACH, SURE, Answer, Tally
from anyshot_jax.predict.page_classes import Support
from anyshot_jax.report import figures
from anyshot_jax.report.page import (
    document,
    fields,
    html,
    join,
    name,
    note,
    paragraph,
    percent,
    section,
)
from anyshot_jax.report.summary import HEADLINE, duration, links
from anyshot_jax.types import InputError

THUMB = 72  # pixels of an image
SAMPLED = 60  # classes with samples
NO_ITEM = Markup('<span class="item"></span>')


def page(
    tally: Tally,
    classifier: Any,
    support: Support,
    root: Path,
    settings: dict[str, str],
    seconds: float,
    notes: Notes,
) -> str:
    """The whole page.

    Args:
      root: where the images of the tally are, of which those that are shown are read again.
      settings: what was asked. seconds: from start to answers. notes: what was passed over.
    """
    samples = {c: found for c in tally.names if (found := tally.samples(c))}
    kept = dict(list(samples.items())[:SAMPLED])
    groups = [tally.unsure, tally.strange, tally.wrong, *kept.values()]
    shown = [a for group in groups for a in group]
    show = _Cards(root, shown, support, tally.known, classifier.reading_)
    parts = [
        page_examples.held_out(classifier, support),
        page_classes.classes(tally, classifier, support),
        _wrong(tally, show),
        _unsure(tally, show),
        _strange(tally, classifier, show),
        _sampled(kept, len(samples), show),
        page_classes.confusion(tally, support),
        page_examples.suspicious(classifier, support),
        _errors(tally),
        section('settings', 'Settings', fields(settings.items())),
    ]
    title = f'Answers for {root.name or root}'
    head = _headline(title, tally, classifier, seconds, [p for p in parts if p], notes)
    return document(title, head + join(parts))


def _headline(
    title: str, tally: Tally, classifier: Any, seconds: float, parts: list[Markup], notes: Notes
) -> Markup:
    tiles = [
        ('images', f'{tally.total:,}', f'{tally.failed:,} unreadable' if tally.failed else ''),
        ('classes', f'{len(tally.names):,}', ''),
        ('of no known class', f'{tally.unknown:,}', ''),
        ('time', duration(seconds), ''),
    ]
    if tally.accuracy is not None:
        asked = f'of {tally.confusion.total():,} whose class is known'
        tiles.insert(1, ('accuracy', percent(tally.accuracy), asked))
    elif (right := page_examples.accuracy(classifier)) is not None:
        tiles.insert(1, ('examples right', percent(right), 'each held out in turn'))
    said = [page_examples.limit_of_the_unknown(classifier), classifier.told()]
    if tally.unknown and not tally.unknown_name:
        said.append(
            f'{tally.unknown:,} images are unlike every class here: their answer is the nearest '
            'class all the same, and --unknown=LABEL gives them another.'
        )
    if tally.strangers:
        said.append(
            f'{tally.strangers:,} images lie in folders that name no class here; '
            f'{tally.strangers_found:,} of them were found to be of no known class.'
        )
    if tally.copies:
        said.append(
            f'{tally.copies:,} images are examples themselves, or copies: their answers say '
            'nothing about how well others are told.'
        )
    said.append(SEEN[classifier.reading_.crop])
    if notes:
        said.append(f'Passed over, or worth a word: {notes}.')
    return html(
        HEADLINE, kicker='anyshot_jax predictions', title=name(title), tiles=tiles, facts='',
        values='', told=' '.join(filter(None, said)), links=links(parts),
    )  # fmt: skip


class _Cards:
    """Images beside what was said of them."""

    def __init__(
        self, root: Path, shown: Sequence[Answer], support: Support, known: set[str], how: Reading
    ):
        self.support, self.known, self.thumbs = support, known, dict[str, Markup]()
        paths = sorted({a.path for a in shown})
        crop = 'whole' if how.crop == 'tiles' else how.crop
        read = lambda path, name: read_image(path, THUMB, 3, how.max_pixels, name, crop, how.span)
        images = read_images(len(paths), lambda i: (root / paths[i], ''), None, read)
        with closing(images) as found:
            for path, x in zip(paths, found, strict=True):
                gone = isinstance(x, InputError)  # since it was classified
                self.thumbs[path] = NO_ITEM if gone else figures.photo(x, path)

    def of(self, found: Sequence[Answer]) -> Markup:
        """A card for each answer."""
        return html('<div class="answers">{{ cards }}</div>', cards=join(map(self._card, found)))

    def _card(self, a: Answer) -> Markup:
        # What no class stands for is rightly called unknown.
        right = True if a.unknown and a.label and a.label not in self.known else a.right
        style, sign = {None: ('', ''), True: (' right', '✓ '), False: (' wrong', '✗ ')}[right]
        near = a.nearest >= 0
        return html(
            '<figure class="answer{{ style }}">{{ image }}{{ nearest }}<figcaption>'
            '<b>{{ sign }}<bdi>{{ a.prediction }}</bdi> {{ percent(a.probability) }}</b>'
            '{% if a.label and not a.right %}is <bdi>{{ a.label }}</bdi><br>{% endif %}'
            '{% if a.unknown %}of no known class<br>{% endif %}'
            '{% if a.second %}or <bdi>{{ a.second }}</bdi> {{ percent(a.second_probability) }}<br>'
            '{% endif %}{% if label %}nearest: <bdi>{{ label }}</bdi>, {{ similarity }}<br>'
            '{% endif %}<span class="dim"><bdi>{{ a.path }}</bdi></span></figcaption></figure>',
            a=a, style=style, sign=sign, image=self.thumbs[a.path],
            nearest=self.support.thumb(a.nearest) if near else Markup('<span></span>'),
            label=self.support.labels[a.nearest] if near else '',
            similarity=f'{a.similarity:.2f}', percent=lambda share: f'{share * 100:.0f} %',
        )  # fmt: skip


CARD = (
    'Beside each image: the nearest example, the answer with its probability, the second best, '
    'and the similarity to that example (cosine of features, 1 for the same image).'
)


def _wrong(tally: Tally, show: _Cards) -> Markup:
    if tally.accuracy is None:
        return Markup()
    found = tally.wrong
    total = sum(n for (label, answer), n in tally.confusion.items() if label != answer)
    if not found:
        return section('wrong', 'Wrong answers', note('None.'))
    intro = (
        f'{total:,} answers are not the name of the folder, the surest first{_cut(found, total)}.'
    )
    return section('wrong', 'Wrong answers', paragraph(f'{intro} {CARD}'), show.of(found))


def _cut(found: Sequence[Answer], total: int) -> str:
    left = total - len(found)
    return f'; {left:,} more are not shown' if left > 0 else ''


def _unsure(tally: Tally, show: _Cards) -> Markup:
    found = tally.unsure
    if not found:
        return Markup()
    total = tally.below_sure
    intro = f'Answers below {SURE * 100:.0f} %, the least sure first{_cut(found, total)}. {CARD}'
    return section('unsure', 'Least sure', paragraph(intro), show.of(found))


def _strange(tally: Tally, classifier: Any, show: _Cards) -> Markup:
    found = tally.strange
    if not found:
        return Markup()
    intro = (
        f'{tally.unknown:,} images are less like any class than examples are like their own; '
        f'those least like any example first{_cut(found, tally.unknown)}. The probability is among '
        f'the known classes. {CARD}'
    )
    return section('unknown', 'Of no known class', paragraph(intro), show.of(found))


def _sampled(samples: dict[str, list[Answer]], total: int, show: _Cards) -> Markup:
    if not samples:
        return Markup()
    left = total - len(samples)
    intro = f'Up to {EACH} of the other images of each class, drawn by chance' + (
        f'; {left:,} more classes are not shown.' if left else '.'
    )
    body = html(
        '{% for c, cards in samples %}<h3 class="sub"><bdi>{{ c }}</bdi></h3>{{ cards }}'
        '{% endfor %}',
        samples=[(c, show.of(a)) for c, a in samples.items()],
    )
    return section('samples', 'Samples of each class', paragraph(intro), body)


def _errors(tally: Tally) -> Markup:
    if not tally.failed:
        return Markup()
    left = tally.failed - len(tally.errors)
    body = html(
        '<ul>{% for a in errors %}<li><bdi>{{ a.error }}</bdi></li>{% endfor %}</ul>'
        '{% if left %}<p>{{ left }} more are in predictions.csv.</p>{% endif %}',
        errors=tally.errors, left=f'{left:,}' if left else '',
    )  # fmt: skip
    return section('unreadable', 'Unreadable files', body)
