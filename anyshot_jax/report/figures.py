"""Images for the page: PNG of items, and charts as SVG whose colours follow the page's theme."""

import base64
import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from anyshot_jax.report.page import escape, name

LARGEST = (
    72  # pixels of a thumbnail; smaller items are sent as they are and enlarged by the browser
)


def png(item: np.ndarray, most: int = LARGEST) -> str:
    """A data URI of an image [H, W, C], at most `most` pixels high and wide."""
    if item.dtype != np.uint8:
        low, high = float(item.min()), float(item.max())
        item = ((item - low) * (255 / (high - low or 1))).astype(np.uint8)
    image = Image.fromarray(item[..., 0] if item.shape[-1] == 1 else item)
    if max(image.size) > most:
        image.thumbnail((most, most), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.save(data, 'png', optimize=True)
    return 'data:image/png;base64,' + base64.b64encode(data.getvalue()).decode()


def item(x: np.ndarray, alt: str) -> str:
    """An item as the page shows it: an image, or for a vector the bars of its first numbers."""
    if x.ndim == 3 and x.shape[-1] in (1, 3):
        small = ' small' if max(x.shape[:2]) < LARGEST else ''
        return f'<img class="item{small}" src="{png(x)}" alt="{escape(alt)}">'
    values = np.nan_to_num(np.asarray(x, np.float64).reshape(-1)[:16])
    unit = 20 / (abs(values).max() or 1)
    bars = ''.join(
        f'<rect x="{i * 3}" y="{20 - max(v, 0):.1f}" width="2" height="{abs(v):.1f}"/>'
        for i, v in enumerate(values * unit)
    )
    return (
        f'<svg class="item bars" viewBox="-1 0 49 40" role="img" aria-label="{escape(alt)}">'
        f'<path d="M-1 20H48"/>{bars}</svg>'
    )


def photo(x: np.ndarray, alt: str) -> str:
    """An image [H, W, 3] uint8 as JPEG: a fifth of PNG's bytes, where there are hundreds."""
    data = io.BytesIO()
    Image.fromarray(x).save(data, 'jpeg', quality=88)
    source = 'data:image/jpeg;base64,' + base64.b64encode(data.getvalue()).decode()
    return f'<img class="item" src="{source}" alt="{escape(alt)}">'


class Series(NamedTuple):
    """A line of a chart."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int  # 0 grey, 1.. the palette of the page
    half: Sequence[float] | None = None  # half width of the band around y
    faint: bool = False
    joined: bool = True  # by a line; else dots only


WIDE, HIGH, LEFT, BELOW, TOP = 460, 270, 46, 40, 12


def key(series: Sequence[Series]) -> str:
    """The names of the lines beside their strokes, as HTML."""
    items = []
    for s in series:
        mark = f'<path class="line k{s.colour}" d="M1 5H25"/>'
        if not s.joined:
            mark = f'<circle class="dot k{s.colour}" cx="13" cy="5" r="4"/>'
        swatch = f'<svg viewBox="0 0 26 10" aria-hidden="true">{mark}</svg>'
        items.append(f'<li class="k{s.colour}">{swatch}{name(s.name)}</li>' if s.name else '')
    return f'<ul class="key">{"".join(items)}</ul>'


def chart(
    series: Sequence[Series],
    *,
    label: str,
    mark: float | None,
    percent: bool,
    axis: str = 'step',
) -> str:
    """A line chart over `axis`; `mark` draws a dashed line at a step."""
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
        text = f'{y * 100:.4g} %' if percent else f'{y:.4g}'
        parts.append(
            f'<path class="grid" d="M{LEFT} {at_y(y):.1f}H{WIDE - 12}"/>'
            f'<text x="{LEFT - 7}" y="{at_y(y) + 4:.1f}" text-anchor="end">{text}</text>'
        )
    parts += [
        f'<text x="{at_x(x):.1f}" y="{HIGH - BELOW + 19}" text-anchor="middle">{short(x)}</text>'
        for x in ticks(x0, x1, 5)
    ]
    parts.append(f'<text x="{WIDE - 12}" y="{HIGH - 3}" text-anchor="end">{axis}</text>')
    if mark is not None:
        side, anchor = (-5, 'end') if at_x(mark) > WIDE / 2 else (5, 'start')
        parts.append(
            f'<path class="mark" d="M{at_x(mark):.1f} {TOP}V{HIGH - BELOW}"/>'
            f'<text x="{at_x(mark) + side:.1f}" y="{HIGH - BELOW - 7}" text-anchor="{anchor}">'
            f'best step {mark:,.0f}</text>'
        )
    for s in series:
        if s.half is not None and len(s.x) > 1:
            up = [(x, y + h) for x, y, h in zip(s.x, s.y, s.half, strict=True)]
            down = [(x, y - h) for x, y, h in zip(s.x, s.y, s.half, strict=True)]
            corners = ' '.join(f'{at_x(x):.1f},{at_y(y):.1f}' for x, y in up + down[::-1])
            parts.append(f'<polygon class="band k{s.colour}" points="{corners}"/>')
        dots = [f'{at_x(x):.1f},{at_y(y):.1f}' for x, y in zip(s.x, s.y, strict=True)]
        style = f'line k{s.colour}' + (' faint' if s.faint else '')
        if s.joined:
            parts.append(f'<polyline class="{style}" points="{" ".join(dots)}"/>')
        if not s.faint and len(s.x) <= 40:  # few points: each one was measured, so it shows
            places = (dot.split(',') for dot in dots)
            parts += [
                f'<circle class="dot k{s.colour}" cx="{x}" cy="{y}" r="3"/>' for x, y in places
            ]
    return _svg('chart', WIDE, HIGH, label, parts)


def scatter(
    points: Sequence[np.ndarray], thumbs: Sequence[np.ndarray] | None, *, label: str
) -> str:
    """Points of K classes, each tied to its centre, where the number 1..K and a thumb stand."""
    wide, high, edge, size = 560, 460, 30, 34
    every = np.concatenate(points)
    low, span = every.min(0), np.ptp(every, axis=0)
    # One scale for both axes: distances on the map are distances in the plane.
    unit = min((wide - 2 * edge) / (span[0] or 1), (high - 2 * edge) / (span[1] or 1))
    middle = np.array([wide, high]) / 2
    places = [((p - low - span / 2) * unit * [1, -1] + middle) for p in points]
    centres = np.stack([p.mean(0) for p in places])
    signs = _apart(centres, size + 6 if thumbs is not None else 24, [wide, high])

    parts, top = [], []
    for k, (p, c, sign) in enumerate(zip(places, centres, signs, strict=True)):
        colour = f'c{k % 12}'
        spokes = ''.join(f'M{c[0]:.1f} {c[1]:.1f}L{x:.1f} {y:.1f}' for x, y in p)
        parts.append(f'<path class="spoke {colour}" d="{spokes}"/>')
        parts += [f'<circle class="spot {colour}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>' for x, y in p]
        x, y = sign
        top.append(f'<path class="lead {colour}" d="M{c[0]:.1f} {c[1]:.1f}L{x:.1f} {y:.1f}"/>')
        if thumbs is not None:
            corner = f'x="{x - size / 2:.1f}" y="{y - size / 2:.1f}" width="{size}" height="{size}"'
            top.append(
                f'<image {corner} href="{png(thumbs[k])}" preserveAspectRatio="none"/>'
                f'<rect class="frame {colour}" {corner} rx="3"/>'
            )
            x, y = x - size / 2, y - size / 2
        top.append(
            f'<circle class="sign {colour}" cx="{x:.1f}" cy="{y:.1f}" r="9.5"/>'
            f'<text class="sign" x="{x:.1f}" y="{y + 4.5:.1f}" text-anchor="middle">{k + 1}</text>'
        )
    return _svg('map', wide, high, label, parts + top)


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


def _svg(kind: str, wide: int, high: int, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg class="{kind}" viewBox="0 0 {wide} {high}" role="img" aria-label="{escape(label)}">'
        + ''.join(parts)
        + '</svg>'
    )


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


def _apart(places: np.ndarray, gap: float, size: Sequence[float]) -> np.ndarray:
    """Places pushed apart until none overlap, inside the image."""
    places = places + np.arange(len(places))[:, None] * [1e-3, 2e-3]  # no two at the same place
    for _ in range(200):
        delta = places[:, None] - places[None]
        # Overlap of squares: both axes are too close; they part along the axis that is nearly free.
        overlap = gap - abs(delta)
        axis = overlap.argmin(-1)
        amount = np.take_along_axis(overlap, axis[..., None], -1)[..., 0]
        np.fill_diagonal(amount, 0)
        if (amount <= 0).all():
            break
        push = np.maximum(amount, 0)[..., None] * np.eye(2)[axis] * np.sign(delta) * 0.3
        places = np.clip(places + push.sum(1), gap / 2 + 4, np.array(size) - gap / 2 - 4)
    return places
