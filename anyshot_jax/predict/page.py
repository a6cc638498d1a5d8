"""The page of `predict`: what the images of a folder are, and how sure that is."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from anyshot_jax.classify.picture_input import SEEN
from anyshot_jax.data.readers.images import Reading, read_image, read_images
from anyshot_jax.data.readers.notes import Notes
from anyshot_jax.predict import page_classes
from anyshot_jax.predict.answers import EACH, Answer, Tally
from anyshot_jax.predict.page_classes import Support
from anyshot_jax.report import figures
from anyshot_jax.report.page import (
    document,
    escape,
    fields,
    name,
    note,
    percent,
    section,
)
from anyshot_jax.report.summary import duration
from anyshot_jax.types import InputError

THUMB = 72  # pixels of an image
SAMPLED = 60  # classes with samples


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
        page_classes.classes(tally, classifier, support),
        _wrong(tally, show),
        _unsure(tally, show),
        _strange(tally, classifier, show),
        _sampled(kept, len(samples), show),
        page_classes.confusion(tally, support),
        page_classes.suspicious(classifier, support),
        _errors(tally),
        section('settings', 'Settings', fields(settings.items())),
    ]
    title = f'Images of {root.name or root}'
    head = _headline(title, tally, classifier, seconds, [p for p in parts if p], notes)
    return document(title, head + ''.join(parts))


def _headline(
    title: str, tally: Tally, classifier: Any, seconds: float, parts: list[str], notes: Notes
) -> str:
    tiles = [
        ('images', f'{tally.total:,}', f'{tally.failed:,} unreadable' if tally.failed else ''),
        ('classes', f'{len(tally.names):,}', ''),
        ('of no known class', f'{tally.unknown:,}', ''),
        ('time', duration(seconds), ''),
    ]
    if tally.accuracy is not None:
        asked = f'of {tally.confusion.total():,} whose class is known'
        tiles.insert(1, ('accuracy', percent(tally.accuracy), asked))
    items = ''.join(
        f'<li><span>{escape(what)}</span><b>{value}</b><span>{escape(more)}</span></li>'
        for what, value, more in tiles
    )
    said = []
    if classifier.threshold_ is None:
        said.append('No class has two examples, so nothing tells what is of no known class.')
    elif classifier.false_alarm_ is not None:
        said.append(
            f'About {classifier.false_alarm_ * 100:.1f} % of images of the known classes may be '
            'called of no known class, by the examples themselves, each held out in turn.'
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
    links = ''.join(_link(part) for part in parts)
    return (
        f'<header><p class="kicker">anyshot_jax predictions</p><h1>{name(title)}</h1>'
        f'<ul class="tiles">{items}</ul><p>{escape(" ".join(said))}</p><nav>{links}</nav></header>'
    )


def _link(part: str) -> str:
    anchor = part.split('"', 2)[1]
    title = part.split('<h2>', 1)[1].split('</h2>', 1)[0]
    return f'<a href="#{anchor}">{title}</a>'


class _Cards:
    """Images beside what was said of them."""

    def __init__(
        self, root: Path, shown: Sequence[Answer], support: Support, known: set[str], how: Reading
    ):
        self.support, self.known, self.thumbs = support, known, dict[str, str]()
        paths = sorted({a.path for a in shown})
        crop = 'whole' if how.crop == 'tiles' else how.crop
        read = lambda path, name: read_image(path, THUMB, 3, how.max_pixels, name, crop, how.span)
        images = read_images(len(paths), lambda i: (root / paths[i], ''), None, read)
        with closing(images) as found:
            for path, x in zip(paths, found, strict=True):
                gone = isinstance(x, InputError)  # since it was classified
                self.thumbs[path] = '<span class="item"></span>' if gone else figures.photo(x, path)

    def of(self, found: Sequence[Answer]) -> str:
        """A card for each answer."""
        return f'<div class="answers">{"".join(self._card(a) for a in found)}</div>'

    def _card(self, a: Answer) -> str:
        # What no class stands for is rightly called unknown.
        right = True if a.unknown and a.label and a.label not in self.known else a.right
        style, sign = {None: ('', ''), True: (' right', '✓ '), False: (' wrong', '✗ ')}[right]
        lines = [f'<b>{sign}{name(a.prediction)} {a.probability * 100:.0f} %</b>']
        if a.label and not a.right:
            lines.append(f'is {name(a.label)}<br>')
        if a.unknown:
            lines.append('of no known class<br>')
        if a.second:
            lines.append(f'or {name(a.second)} {a.second_probability * 100:.0f} %<br>')
        if a.nearest >= 0:
            label = self.support.labels[a.nearest]
            lines.append(f'nearest: {name(label)}, {a.similarity:.2f}<br>')
        lines.append(f'<span class="dim">{name(a.path)}</span>')
        near = self.support.thumb(a.nearest) if a.nearest >= 0 else '<span></span>'
        return (
            f'<figure class="answer{style}">{self.thumbs[a.path]}{near}'
            f'<figcaption>{"".join(lines)}</figcaption></figure>'
        )


CARD = (
    'Beside each image: the nearest example, the answer with its probability, the second best, '
    'and the similarity to that example (cosine).'
)


def _wrong(tally: Tally, show: _Cards) -> str:
    if tally.accuracy is None:
        return ''
    found = tally.wrong
    total = sum(n for (label, answer), n in tally.confusion.items() if label != answer)
    if not found:
        return section('wrong', 'Wrong answers', note('None.'))
    intro = (
        f'{total:,} answers are not the name of the folder, the surest first{_cut(found, total)}.'
    )
    return section('wrong', 'Wrong answers', f'<p>{intro} {CARD}</p>', show.of(found))


def _cut(found: Sequence[Answer], total: int) -> str:
    left = total - len(found)
    return f'; {left:,} more are not shown' if left > 0 else ''


def _unsure(tally: Tally, show: _Cards) -> str:
    found, total = tally.unsure, tally.total - tally.failed - tally.unknown
    if not found:
        return ''
    intro = f'The answers of the lowest probability first{_cut(found, total)}. {CARD}'
    return section('unsure', 'Least sure', f'<p>{intro}</p>', show.of(found))


def _strange(tally: Tally, classifier: Any, show: _Cards) -> str:
    found = tally.strange
    if not found:
        return ''
    intro = (
        f'{tally.unknown:,} images are less like any class than examples are like their own; '
        f'those least like any example first{_cut(found, tally.unknown)}. The probability is among '
        f'the known classes. {CARD}'
    )
    return section('unknown', 'Of no known class', f'<p>{intro}</p>', show.of(found))


def _sampled(samples: dict[str, list[Answer]], total: int, show: _Cards) -> str:
    if not samples:
        return ''
    left = total - len(samples)
    intro = f'Up to {EACH} of the other images of each class, drawn by chance' + (
        f'; {left:,} more classes are not shown.' if left else '.'
    )
    body = ''.join(f'<h3 class="sub">{name(c)}</h3>{show.of(a)}' for c, a in samples.items())
    return section('samples', 'Samples of each class', f'<p>{intro}</p>', body)


def _errors(tally: Tally) -> str:
    if not tally.failed:
        return ''
    left = tally.failed - len(tally.errors)
    lines = ''.join(f'<li>{name(a.error)}</li>' for a in tally.errors)
    more = f'<p>{left:,} more are in predictions.csv.</p>' if left else ''
    return section('unreadable', 'Unreadable files', f'<ul>{lines}</ul>', more)
