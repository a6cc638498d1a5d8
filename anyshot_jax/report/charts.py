"""Charts as SVG whose colours follow the page's theme: lines, bars, and what both share.

Points on a plane are in maps.py. Drawn here and not by a plotting library, so that a page is the
same bytes on every machine, small, legible in light and dark, and complete in itself.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from anyshot_jax.report.page import html, join

WIDE, HIGH, LEFT, BELOW, TOP = 460, 270, 46, 40, 12
BARS_HIGH = 250


class Series(NamedTuple):
    """A line of a chart."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int  # 0 grey, 1.. the palette of the page
    half: Sequence[float] | None = None  # half width of the band around y
    faint: bool = False
    joined: bool = True  # by a line; else dots only


def svg(
    kind: str, wide: int, high: int, label: str, parts: Iterable[Markup], style: str = ''
) -> Markup:
    """A drawing of its own size; `label` is what a screen reader says."""
    return html(
        '<svg{% if kind %} class="{{ kind }}"{% endif %} viewBox="0 0 {{ wide }} {{ high }}"'
        '{% if style %} style="{{ style }}"{% endif %} role="img" aria-label="{{ label }}">'
        '{{ parts }}</svg>',
        kind=kind, wide=wide, high=high, label=label, parts=join(parts), style=style,
    )  # fmt: skip


def text(x: float, y: float, words: object, anchor: str, extra: str = '') -> Markup:
    """Words at a place; `anchor` is start, middle or end, `extra` a class or style of ours."""
    return html(
        '<text x="{{ x }}" y="{{ y }}" text-anchor="{{ anchor }}"{{ extra }}>{{ words }}</text>',
        x=number(x), y=number(y), anchor=anchor, extra=Markup(extra), words=words,
    )  # fmt: skip


def number(x: float) -> str:
    """A coordinate: one digit after the point, none of a whole number."""
    return str(x) if isinstance(x, int) else f'{x:.1f}'


def key(series: Sequence[Series]) -> Markup:
    """The names of the lines beside their strokes."""
    return html(
        '<ul class="key">{% for s in series if s.name %}<li class="k{{ s.colour }}">'
        '<svg viewBox="0 0 26 10" aria-hidden="true">'
        '{% if s.joined %}<path class="line k{{ s.colour }}" d="M1 5H25"/>'
        '{% else %}<circle class="dot k{{ s.colour }}" cx="13" cy="5" r="4"/>{% endif %}</svg>'
        '<bdi>{{ s.name }}</bdi></li>{% endfor %}</ul>',
        series=series,
    )


def figure(caption: str, *parts: Markup) -> Markup:
    return html(
        '<figure><figcaption>{{ caption }}</figcaption>{{ parts }}</figure>',
        caption=caption, parts=join(parts),
    )  # fmt: skip


def side_by_side(figures: Sequence[Markup]) -> Markup:
    """Figures in as many columns as there is room for."""
    style = Markup('' if len(figures) > 1 else ' style="max-width:36rem"')
    return html('<div class="charts"{{ style }}>{{ all }}</div>', style=style, all=join(figures))


def lines(
    series: Sequence[Series],
    *,
    label: str,
    mark: float | None,
    percent: bool,
    axis: str = 'step',
) -> Markup:
    """Lines over `axis`; `mark` draws a dashed line at a step."""
    xs = [x for s in series for x in s.x] + ([] if mark is None else [mark])
    ys = [y + d for s in series for y, h in _ends(s) for d in (-h, h)]
    if not percent:  # a value that diverged is drawn at the edge, so that the others are seen
        ys = [y for y in ys if abs(y) <= 50 * np.median(np.abs(ys))] or ys
    x0, x1 = min(0, min(xs)), max(xs) or 1
    # Losses that fall by orders of magnitude are told apart by their logarithm only.
    log = not percent and min(ys) > 0 and max(ys) > 20 * min(ys)
    scale = math.log10 if log else float
    if percent:
        ys = [min(max(y, 0.0), 1.0) for y in ys]
    y0, y1 = scale(min(ys)), scale(max(ys))
    pad = (y1 - y0) * 0.05 or 0.05
    y0, y1 = y0 - pad, y1 + pad
    if percent:
        y0, y1 = max(y0, 0.0), min(y1, 1.0 + pad / 2)

    def at_x(x):
        return LEFT + (x - x0) / (x1 - x0) * (WIDE - LEFT - 12)

    def at_y(y):
        return HIGH - BELOW - (min(max(scale(y), y0), y1) - y0) / (y1 - y0) * (HIGH - BELOW - TOP)

    parts = []
    for y in log_ticks(y0, y1) if log else ticks(y0, y1, 5):
        words = f'{y * 100:.4g} %' if percent else f'{y:.4g}'
        parts += [_rule(at_y(y)), text(LEFT - 7, at_y(y) + 4, words, 'end')]
    parts += [text(at_x(x), HIGH - BELOW + 19, short(x), 'middle') for x in ticks(x0, x1, 5)]
    parts.append(text(WIDE - 12, HIGH - 3, axis, 'end'))
    if mark is not None:
        side, anchor = (-5, 'end') if at_x(mark) > WIDE / 2 else (5, 'start')
        parts += [
            Markup(f'<path class="mark" d="M{at_x(mark):.1f} {TOP}V{HIGH - BELOW}"/>'),
            text(at_x(mark) + side, HIGH - BELOW - 7, f'best step {mark:,.0f}', anchor),
        ]
    for s in series:
        if s.half is not None and len(s.x) > 1:
            up = [(x, y + h) for x, y, h in zip(s.x, s.y, s.half, strict=True)]
            down = [(x, y - h) for x, y, h in zip(s.x, s.y, s.half, strict=True)]
            corners = ' '.join(f'{at_x(x):.1f},{at_y(y):.1f}' for x, y in up + down[::-1])
            parts.append(Markup(f'<polygon class="band k{s.colour}" points="{corners}"/>'))
        dots = [f'{at_x(x):.1f},{at_y(y):.1f}' for x, y in zip(s.x, s.y, strict=True)]
        style = f'line k{s.colour}' + (' faint' if s.faint else '')
        if s.joined:
            parts.append(Markup(f'<polyline class="{style}" points="{" ".join(dots)}"/>'))
        if not s.faint and len(s.x) <= 40:  # few points: each one was measured, so it shows
            places = (dot.split(',') for dot in dots)
            parts += [
                Markup(f'<circle class="dot k{s.colour}" cx="{x}" cy="{y}" r="3"/>')
                for x, y in places
            ]
    return svg('chart', WIDE, HIGH, label, parts)


def bars(
    counts: Sequence[np.ndarray],
    colours: Sequence[int],
    *,
    top: float,
    label: str,
    axis: str,
) -> Markup:
    """A histogram of several kinds, side by side in each bin.

    Args:
      counts: of each kind, [bins]. colours: of each kind. top: the right end of the axis, which
        begins at 0.
    """
    high, most = BARS_HIGH, max(int(c.max()) for c in counts) or 1
    step = (WIDE - LEFT - 12) / len(counts[0])
    wide = step / len(counts) - 1
    tall = lambda n: n / most * (high - BELOW - TOP)
    parts = [
        text(LEFT + f * (WIDE - LEFT - 12), high - BELOW + 19, f'{f * top:.2g}', 'middle')
        for f in (0, 0.25, 0.5, 0.75, 1)
    ]
    for n in (0, most):
        y = high - BELOW - tall(n)
        parts += [_rule(y), text(LEFT - 7, y + 4, n, 'end')]
    for k, (count, colour) in enumerate(zip(counts, colours, strict=True)):
        parts += [
            Markup(
                f'<rect class="bar k{colour}" x="{LEFT + i * step + k * (wide + 1):.1f}" '
                f'y="{high - BELOW - tall(n):.1f}" width="{wide:.1f}" height="{tall(n):.1f}" '
                'style="fill:var(--k)"/>'
            )
            for i, n in enumerate(count)
            if n
        ]
    parts.append(text(WIDE - 12, high - 3, axis, 'end'))
    return svg('chart', WIDE, high, label, parts)


def _rule(y: float) -> Markup:
    return Markup(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDE - 12}"/>')


def smooth(y: Sequence[float], window: int) -> list[float]:
    """Mean over a centred window, narrower at the ends."""
    total = np.concatenate([[0], np.cumsum(y)])
    at = np.arange(len(y))
    half = np.minimum(np.minimum(at, len(y) - 1 - at), window // 2)
    return ((total[at + half + 1] - total[at - half]) / (2 * half + 1)).tolist()


def thin(values: Sequence[float], most: int) -> list[float]:
    """Means of neighbours, so that at most `most` are left."""
    if len(values) <= most:
        return list(values)
    return [float(part.mean()) for part in np.array_split(np.asarray(values), most)]


def short(x: float) -> str:
    """1500 -> '1.5k'."""
    return next((f'{x / n:g}{s}' for n, s in ((1e6, 'M'), (1e3, 'k')) if abs(x) >= n), f'{x:g}')


def _ends(s: Series) -> list[tuple[float, float]]:
    return list(zip(s.y, s.half if s.half is not None else [0.0] * len(s.y), strict=True))


def ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers in low..high."""
    rough = (high - low) / most
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    return [round(i * step, 12) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    ticks = [m * 10.0**p for p in range(math.floor(low), math.ceil(high)) for m in (1, 2, 5)]
    ticks = [t for t in ticks if low <= math.log10(t) <= high]
    return ticks if len(ticks) <= 7 else [t for t in ticks if f'{t:e}'[0] == '1']
