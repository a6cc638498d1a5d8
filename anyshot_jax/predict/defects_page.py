"""The page of `predict --good`: which images have a defect, where, and how sure that is."""

import heapq
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from anyshot_jax.data.readers.notes import Notes
from anyshot_jax.detect.heat import explain_worst, heat
from anyshot_jax.detect.inputs import open_item
from anyshot_jax.detect.scores import Comparison
from anyshot_jax.detect.verdicts import Verdict
from anyshot_jax.report import charts, overlay
from anyshot_jax.report.page import document, fields, html, join, name, paragraph, section, table
from anyshot_jax.report.summary import HEADLINE, duration, links
from anyshot_jax.types import Array, InputError

SHOWN = 60  # images of a kind on the page
BINS = 24
ERRORS = 50


class Answer(NamedTuple):
    """The answer to one file."""

    path: str  # inside the query folder
    label: str | None  # the name of its folder, where that tells
    said: Verdict | None = None
    found: Comparison | None = None
    error: str = ''


class Tally:
    """Counts of all answers, and the few that are shown."""

    def __init__(self) -> None:
        self.total = self.defects = self.of_none = 0
        self.errors: list[Answer] = []
        self.types: Counter[str] = Counter()
        self.by_label: dict[str, Counter[str]] = {}
        self.score: list[float] = []  # over the threshold, where there is one
        self._unsure: list[Any] = []
        self._worst: list[Any] = []

    def add(self, one: Answer) -> None:
        """Takes one answer into account."""
        if one.said is None:
            self.errors.append(one)
            return
        v = one.said
        self.total += 1
        self.defects += bool(v.defect)
        self.of_none += v.product is None
        self.score.append(v.score / v.threshold if v.threshold else v.score)
        if v.defect and v.type:
            self.types[v.type] += 1
        if one.label is not None and v.defect is not None:
            self.by_label.setdefault(one.label, Counter())[str(v.defect)] += 1
        sure = abs(np.log(max(v.score, 1e-9) / v.threshold)) if v.threshold else -v.score
        _keep(self._unsure, -sure, self.total, one)
        if v.defect:
            _keep(self._worst, v.score / v.threshold if v.threshold else v.score, self.total, one)

    @property
    def unsure(self) -> list[Answer]:
        """Answers nearest to the threshold first; without one, by falling score."""
        return [one for *_, one in sorted(self._unsure, reverse=True)]

    @property
    def worst(self) -> list[Answer]:
        """The surest defects first, without those above."""
        near = {one.path for one in self.unsure}
        return [one for *_, one in sorted(self._worst, reverse=True) if one.path not in near]


def _keep(heap: list[Any], number: float, count: int, one: Answer) -> None:
    """Keeps the SHOWN of the largest numbers, of equals the first."""
    entry = (number, -count, one)
    if len(heap) < SHOWN:
        heapq.heappush(heap, entry)
    else:
        heapq.heappushpop(heap, entry)


def page(
    tally: Tally, detector: Any, root: Path, settings: dict[str, str], seconds: float, notes: Notes
) -> str:
    """The whole page. root: where the images are; those that are shown are read again."""
    title = f'Defects in {root.name or root}'
    tiles = [
        ('images', f'{tally.total:,}', f'{len(tally.errors):,} unreadable' if tally.errors else ''),
        ('with a defect', f'{tally.defects:,}', ''),
        *([('perhaps another product', f'{tally.of_none:,}', '')] if tally.of_none else []),
        ('normal images', f'{sum(len(n.names) for n in detector.normal_.values()):,}', ''),
        ('time', duration(seconds), ''),
    ]
    said = [str(p) + '.' for p in detector.promise_of_.values() if p is not None]
    said += [f'{t[:1].upper()}{t[1:]}.' for t in detector.notes() if t + '.' not in said]
    if detector.crop == 'centre':
        said.append('The largest centred square of an image is all that is seen of it.')
    if notes:
        said.append(f'Passed over, or worth a word: {notes}.')
    errors = [html('<li><bdi>{{ error }}</bdi></li>', error=a.error) for a in tally.errors]
    unsure = 'The score nearest to the threshold first.'
    parts = [
        _by_label(tally),
        _images('unsure', 'Least sure', unsure, tally.unsure, detector, root),
        _images('defects', 'Surest defects', 'The highest scores first.', tally.worst, detector,
                root),
        _types(tally),
        _scores(tally),
        section('unreadable', 'Unreadable files',
                html('<ul>{{ lines }}</ul>', lines=join(errors[:ERRORS]))) if errors else '',
        section('settings', 'Settings', fields(settings.items())),
    ]  # fmt: skip
    kept = [part for part in parts if isinstance(part, Markup)]
    head = html(
        HEADLINE, kicker='anyshot_jax predictions', title=name(title), tiles=tiles, facts='',
        values='', told=' '.join(said), links=links(kept),
    )  # fmt: skip
    return document(title, head + join(kept))


def _by_label(tally: Tally) -> Markup | str:
    if not tally.by_label:
        return ''
    rows = []
    for label, count in sorted(tally.by_label.items()):
        bad, every = count['True'], count.total()
        rows.append([name(label), f'{every:,}', f'{bad:,}', f'{bad / every * 100:.1f} %'])
    head = ('folder', 'images', 'called a defect', 'share')
    return section('folders', 'By folder', table(head, rows))


def _types(tally: Tally) -> Markup | str:
    if not tally.types:
        return ''
    rows = [[name(kind), f'{n:,}'] for kind, n in tally.types.most_common()]
    return section('types', 'Types of defects', table(('type', 'images'), rows))


def _scores(tally: Tally) -> Markup:
    score = np.array(tally.score)
    top = float(score.max()) * 1.001 + 1e-9
    drawn = charts.bars(
        [np.histogram(score, np.linspace(0, top, BINS + 1))[0]], [2], top=top,
        label=f'Images by score over the threshold; median {np.median(score):.3g}.',
        axis='score over the threshold: a defect above 1',
    )  # fmt: skip
    return section('scores', 'Scores', charts.side_by_side([charts.figure('images', drawn)]))


def _images(
    anchor: str, title: str, intro: str, some: list[Answer], detector: Any, root: Path
) -> Markup | str:
    if not some:
        return ''
    more = ' Colour: how far a place is from all normal ones; outlined: above the threshold.'
    cards = join(_card(one, detector, root) for one in some)
    return section(
        anchor, title, paragraph(intro + more), html('<div class="finds">{{ c }}</div>', c=cards)
    )


def _card(one: Answer, detector: Any, root: Path) -> Markup:
    v = one.said
    assert v is not None and one.found is not None
    try:
        x = np.asarray(open_item(root / one.path, one.path, detector.reading_)[0])
    except InputError:  # gone since it was judged
        return html('<figure class="find"><figcaption>{{ p }}</figcaption></figure>', p=one.path)
    view, cells = detector._looks().view, detector._eye().cells
    map_ = heat(one.found, view, cells)
    limit = v.threshold if v.threshold else float(map_.max())
    plain = overlay.on_page(x)
    hot = overlay.with_heat(plain, map_, limit / 2, 1.5 * limit)
    if v.threshold and (map_ > limit).any():
        hot = overlay.with_outline(hot, map_ > limit)
    patches = [overlay.img(_around(x, v.place), 'the worst patch')]
    if v.product is not None:
        near = explain_worst(one.found, detector.normal_[v.product], view, cells)
        patches += _normal_patch(near.normal, near.normal_place, detector)
    lines = [f'score {v.score:.3g}' + (f' of {v.threshold:.3g}' if v.threshold else '')]
    if v.p_value is not None:
        lines.append(f'{v.p_value * 100:.1f} % of normal images score as high')
    if v.defect and v.type:
        lines.append(f'{v.type} {v.type_probability * 100:.0f} %')
    if v.product is None:
        lines.append('as a whole unlike the normal images: another product?')
    elif v.product:
        lines.append(f'product {v.product}')
    if one.label is not None:
        lines.append(f'in folder {one.label}')
    return html(
        '<figure class="find">{{ plain }}{{ hot }}<div>{{ patches }}</div><figcaption>'
        '<b>{{ verdict }}</b>{% for line in lines %}<br><bdi>{{ line }}</bdi>{% endfor %}'
        '<br><span class="dim"><bdi>{{ path }}</bdi></span></figcaption></figure>',
        plain=overlay.img(plain, one.path), hot=overlay.img(hot, 'how unlike normal images'),
        patches=join(patches), lines=lines, path=one.path,
        verdict={None: 'no threshold', True: 'defect', False: 'normal'}[v.defect],
    )  # fmt: skip


def _normal_patch(path: str, place: tuple[int, int, int, int], detector: Any) -> list[Markup]:
    """The nearest normal patch, where its image is still there."""
    if not Path(path).is_file():
        return []
    try:
        x = np.asarray(open_item(path, path, detector.reading_)[0])
    except InputError:
        return []
    return [overlay.img(_around(x, place), 'the nearest normal patch')]


def _around(x: Array, place: tuple[int, int, int, int]) -> np.ndarray:
    """Surroundings of a place of an image [H, W, 3]: three times as wide, inside of it."""
    left, top, right, bottom = place
    ends = []
    for first, last, length in ((top, bottom, x.shape[0]), (left, right, x.shape[1])):
        ends.append(slice(max(2 * first - last, 0), min(2 * last - first, length)))
    return overlay.on_page(x[ends[0], ends[1]], 96)
