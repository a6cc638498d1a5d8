"""The page of `predict --good`: which images have a defect, where, and how sure that is."""

import heapq
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anyshot_jax.detect.heat import explain_worst, heat
from anyshot_jax.detect.inputs import open_item
from anyshot_jax.detect.scores import Comparison
from anyshot_jax.detect.verdicts import Verdict
from anyshot_jax.report import figures, overlay
from anyshot_jax.report.page import document, escape, fields, name, section, table
from anyshot_jax.report.summary import duration
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

    def __init__(self, other: int):
        """other: files that are no images."""
        self.other, self.total, self.defects, self.of_none = other, 0, 0, 0
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
        """Those whose score is nearest to the threshold first; without one the highest scores."""
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


def page(tally: Tally, detector: Any, root: Path, settings: dict[str, str], seconds: float) -> str:
    """The whole page. root: where the images are; those that are shown are read again."""
    title = f'Defects in {root.name or root}'
    tiles = [
        ('images', f'{tally.total:,}', f'{len(tally.errors):,} unreadable' if tally.errors else ''),
        ('with a defect', f'{tally.defects:,}', ''),
        *([('of no known product', f'{tally.of_none:,}', '')] if tally.of_none else []),
        ('normal images', f'{sum(len(n.names) for n in detector.normal_.values()):,}', ''),
        ('time', duration(seconds), ''),
    ]
    items = ''.join(
        f'<li><span>{escape(what)}</span><b>{value}</b><span>{escape(more)}</span></li>'
        for what, value, more in tiles
    )
    said = [str(p) + '.' for p in detector.promise_of_.values() if p is not None]
    said += [f'{text}.' for text in detector.notes() if text + '.' not in said]
    if tally.other:
        said.append(f'Passed over: {tally.other:,} files that are no images.')
    head = (
        f'<header><p class="kicker">anyshot_jax predictions</p><h1>{name(title)}</h1>'
        f'<ul class="tiles">{items}</ul>{"".join(f"<p>{escape(s)}</p>" for s in said)}</header>'
    )
    errors = ''.join(f'<li>{name(one.error)}</li>' for one in tally.errors[:ERRORS])
    parts = [
        _by_label(tally),
        _images('unsure', 'Least sure', 'The score nearest to the threshold first.', tally.unsure,
                detector, root),
        _images('defects', 'Surest defects', 'The highest scores first.', tally.worst, detector,
                root),
        _types(tally),
        _scores(tally),
        section('unreadable', 'Unreadable files', f'<ul>{errors}</ul>') if errors else '',
        section('settings', 'Settings', fields(settings.items())),
    ]  # fmt: skip
    return document(title, head + ''.join(parts))


def _by_label(tally: Tally) -> str:
    if not tally.by_label:
        return ''
    rows = []
    for label, count in sorted(tally.by_label.items()):
        bad, all_ = count['True'], count.total()
        rows.append([name(label), f'{all_:,}', f'{bad:,}', f'{bad / all_ * 100:.1f} %'])
    head = ('folder', 'images', 'called a defect', 'share')
    return section('folders', 'By folder', table(head, rows))


def _types(tally: Tally) -> str:
    if not tally.types:
        return ''
    rows = [[name(kind), f'{n:,}'] for kind, n in tally.types.most_common()]
    return section('types', 'Types of defects', table(('type', 'images'), rows))


def _scores(tally: Tally) -> str:
    score = np.array(tally.score)
    edges = np.linspace(0, float(score.max()) * 1.001 + 1e-9, BINS + 1)
    share = (np.histogram(score, edges)[0] / len(score)).tolist()
    middle = ((edges[1:] + edges[:-1]) / 2).tolist()
    label = f'Shares of the images by score over the threshold; median {np.median(score):.3g}.'
    drawn = figures.chart(
        [figures.Series('images', middle, share, 2)], label=label, mark=None, percent=True,
        axis='score over the threshold: a defect above 1',
    )  # fmt: skip
    return section(
        'scores', 'Scores', f'<div class="charts"><figure>{drawn}</figure><figure></figure></div>'
    )


def _images(anchor: str, title: str, intro: str, found: list[Answer], detector, root: Path) -> str:
    if not found:
        return ''
    cards = ''.join(_card(one, detector, root) for one in found)
    more = ' Colour: how far a place is from all normal ones; outlined: above the threshold.'
    return section(anchor, title, f'<p>{intro}{more}</p>', f'<div class="finds">{cards}</div>')


def _card(one: Answer, detector, root: Path) -> str:
    v = one.said
    assert v is not None and one.found is not None
    try:
        x = np.asarray(open_item(root / one.path, one.path)[0])
    except InputError:  # gone since it was judged
        return f'<figure class="find"><figcaption>{name(one.path)}</figcaption></figure>'
    view, cells = detector._looks().view, detector._eye().cells
    map_ = heat(one.found, view, cells)
    limit = v.threshold if v.threshold else float(map_.max())
    plain = overlay.on_page(x)
    hot = overlay.with_heat(plain, map_, limit / 2, 1.5 * limit)
    if v.threshold and (map_ > limit).any():
        hot = overlay.with_outline(hot, map_ > limit)
    patches = overlay.img(_around(x, v.place), 'the worst patch')
    near = (
        None
        if v.product is None
        else explain_worst(one.found, detector.normal_[v.product], view, cells)
    )
    if near and Path(near.normal).is_file():
        try:
            other = np.asarray(open_item(near.normal, near.normal)[0])
            patches += overlay.img(_around(other, near.normal_place), 'the nearest normal patch')
        except InputError:
            near = None
    verdict = {None: 'no threshold', True: 'defect', False: 'normal'}[v.defect]
    lines = [f'<b>{verdict}</b>, score {v.score:.3g}' + (
        f' of {v.threshold:.3g}' if v.threshold else ''
    )]  # fmt: skip
    if v.p_value is not None:
        lines.append(f'{v.p_value * 100:.1f} % of normal images score as high')
    if v.defect and v.type:
        lines.append(f'{name(v.type)} {v.type_probability * 100:.0f} %')
    if v.product is None:
        lines.append('like no known product')
    elif v.product:
        lines.append(f'product {name(v.product)}')
    if one.label is not None:
        lines.append(f'in folder {name(one.label)}')
    lines.append(f'<span class="dim">{name(one.path)}</span>')
    return (
        f'<figure class="find">{overlay.img(plain, one.path)}{overlay.img(hot, "heat")}'
        f'<div>{patches}</div><figcaption>{"<br>".join(lines)}</figcaption></figure>'
    )


def _around(x: Array, place: tuple[int, int, int, int]) -> np.ndarray:
    """Surroundings of a place of an image [H, W, 3]: three times as wide, inside of it."""
    left, top, right, bottom = place
    ends = []
    for first, last, length in ((top, bottom, x.shape[0]), (left, right, x.shape[1])):
        ends.append(slice(max(2 * first - last, 0), min(2 * last - first, length)))
    return overlay.on_page(x[ends[0], ends[1]], 96)
