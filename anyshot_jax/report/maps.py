"""Points: items of classes on a plane, the edges between them, and paths of class centres."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from anyshot_jax.ops.graph import largest
from anyshot_jax.report.charts import svg, text
from anyshot_jax.report.figures import png
from anyshot_jax.report.page import html

WIDE, HIGH, EDGE = 460, 400, 34
# Okabe and Ito's colours, told apart by colour-blind readers, and what is legible on them. Of more
# classes some share a colour, so that they also have numbers.
PALETTE = (
    ('#0072b2', '#fff'), ('#e69f00', '#000'), ('#009e73', '#fff'),
    ('#cc79a7', '#000'), ('#56b4e9', '#000'), ('#d55e00', '#fff'),
)  # fmt: skip
SHOT, MADE = 'm-5-5l10 10m0-10l-10 10', 'm0-5.5l5 9h-10z'
DOT = '<circle class="spot" cx="13" cy="5" r="4"/>'
KEY = {
    'query': DOT,
    'real item': DOT,
    'shot': '<path d="M13 5m-4-4l8 8m0-8l-8 8" style="stroke:var(--c);stroke-width:2"/>',
    'synthesised item': '<path d="M13 5m0-5l4.5 8h-9z" style="stroke:var(--c);fill:none"/>',
    'answered wrongly': '<circle cx="13" cy="5" r="4.3" '
    'style="fill:none;stroke:var(--red);stroke-width:1.8"/>',
    "path of a class's centre, from the ring to the number": '<path d="M3 5H23" '
    'style="stroke:var(--c);stroke-width:2.5"/><circle cx="4" cy="5" r="3.2" '
    'style="fill:var(--page);stroke:var(--c);stroke-width:2"/>',
    'among the most similar': '<path d="M1 5H25" style="stroke:var(--dim);opacity:.6"/>',
}


class Items(NamedTuple):
    """Items on a plane."""

    place: np.ndarray  # [N, 2]
    label: np.ndarray  # [N], relative
    kind: np.ndarray  # [N]: 0 query or real, 1 shot, 2 synthesised
    edges: np.ndarray  # [E, 2], items that are joined
    share: np.ndarray  # [2], of the variance on each axis


def plane(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean [D], the two principal axes [2, D], and their shares of the variance [2]."""
    middle = x.mean(0)
    _, s, vt = np.linalg.svd((x - middle).astype(np.float64), full_matrices=False)
    axes, share = np.zeros((2, x.shape[1])), np.zeros(2)
    axes[: len(vt[:2])], share[: len(s[:2])] = vt[:2], s[:2] ** 2 / max((s**2).sum(), 1e-30)
    # The sign of a singular vector is arbitrary; fixed here, so that the page is reproducible.
    axes *= np.where(axes[[0, 1], abs(axes).argmax(1)] < 0, -1, 1)[:, None]
    return middle, axes, share


def edges(x: np.ndarray, neighbours: int) -> np.ndarray:
    """Pairs [E, 2] of which one is among the `neighbours` most similar to the other, by cosine."""
    x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    sim = x @ x.T
    np.fill_diagonal(sim, 0)  # competes, as in ops/graph.py
    near = np.asarray(largest(sim, neighbours))
    return np.argwhere(np.triu(near | near.T, 1))


def _style(label: int) -> str:
    colour, on = PALETTE[label % len(PALETTE)]
    return f'style="--c:{colour};--on:{on}"'


def keys(kinds: Sequence[str], labels: Sequence[str]) -> Markup:
    """The meaning of shapes and colours."""
    return html(
        '<ul class="key">{% for kind in kinds %}<li style="--c:var(--dim)">'
        '<svg viewBox="0 0 26 10" style="stroke:none" aria-hidden="true">{{ shapes[kind] }}</svg>'
        '{{ kind }}</li>{% endfor %}</ul><ul class="key">{% for label in labels %}'
        '<li><span class="number c" {{ styles[loop.index0] }}>{{ loop.index }}</span>'
        '<bdi>{{ label }}</bdi></li>{% endfor %}</ul>',
        kinds=kinds, labels=labels, shapes={k: Markup(v) for k, v in KEY.items()},
        styles=[Markup(_style(w)) for w in range(len(labels))],
    )  # fmt: skip


def drawn_map(
    items: Items,
    label: str,
    *,
    edges: bool = True,
    path: np.ndarray | None = None,
    wrong: np.ndarray | None = None,
    dashed: bool = False,
) -> Markup:
    """Items by class and kind, the edges between them and paths [R, W, 2] of the centres."""
    every = items.place if path is None else np.concatenate([items.place, path.reshape(-1, 2)])
    low, span = every.min(0), np.ptp(every, axis=0)
    # One scale for both axes: distances on the map are distances in the plane.
    unit = min((WIDE - 2 * EDGE) / (span[0] or 1), (HIGH - 2 * EDGE) / (span[1] or 1))
    at = lambda p: (p - low - span / 2) * unit * [1, -1] + [WIDE / 2, HIGH / 2]
    spot = at(items.place)
    places = [f'{x:.1f} {y:.1f}' for x, y in spot]
    drawn = []
    if edges and len(items.edges):
        lines = ''.join(
            f'M{spot[a, 0]:.0f} {spot[a, 1]:.0f}L{spot[b, 0]:.0f} {spot[b, 1]:.0f}'
            for a, b in items.edges
        )
        drawn.append(
            f'<path class="edges" d="{lines}" style="fill:none;stroke:var(--dim);opacity:.4"/>'
        )
    for w in np.unique(items.label):
        of = lambda kind, w=w: np.flatnonzero((items.label == w) & (items.kind == kind))
        marks = [
            f'<circle class="spot" cx="{spot[i, 0]:.1f}" cy="{spot[i, 1]:.1f}" r="4"/>'
            for i in of(0)
        ]
        if len(rows := of(2)):
            d = ''.join(f'M{places[i]}{MADE}' for i in rows)
            marks.append(f'<path class="made" d="{d}" style="fill:none;stroke:var(--c)"/>')
        if len(rows := of(1)):
            d = ''.join(f'M{places[i]}{SHOT}' for i in rows)
            marks.append(f'<path class="shot" d="{d}" style="stroke:var(--c);stroke-width:3"/>')
        drawn.append(f'<g {_style(w)}>{"".join(marks)}</g>')
    if wrong is not None and wrong.any():
        rings = ''.join(
            f'<circle class="wrong" cx="{spot[i, 0]:.1f}" cy="{spot[i, 1]:.1f}" r="7"/>'
            for i in np.flatnonzero(wrong)
        )
        drawn.append(f'<g style="fill:none;stroke:var(--red);stroke-width:1.8">{rings}</g>')
    for w, way in enumerate([] if path is None else np.moveaxis(at(path), 1, 0)):
        drawn.append(_way(w, way, dashed))
    first, second = (f'{share * 100:.0f} % of the variance' for share in items.share)
    drawn.append(
        f'{text(WIDE - 8, HIGH - 8, f"first axis: {first} →", "end")}'
        f'<text transform="translate(16 {HIGH - 28})rotate(-90)">second axis: {second} →</text>'
    )
    return svg('map', WIDE, HIGH, label, map(Markup, drawn))


def _way(w: int, way: np.ndarray, dashed: bool) -> str:
    """A line from a ring to a number, that stands out from the items below it."""
    points = ' '.join(f'{x:.1f},{y:.1f}' for x, y in way)
    (x0, y0), (x, y) = way[0], way[-1]
    line = 'stroke-width:1.5;stroke-dasharray:4 3' if dashed else 'stroke-width:3'
    halo = f'<polyline points="{points}" style="fill:none;stroke:var(--soft);stroke-width:6"/>'
    ring = 'style="fill:var(--soft);stroke:var(--c);stroke-width:2.5"'
    start = f'<circle cx="{x0:.1f}" cy="{y0:.1f}" r="5" {ring}/>'
    under, start = ('', '') if dashed else (halo, start)
    sign = _sign(x, y, 'class="sign" style="stroke:var(--soft)"', w + 1)
    return (
        f'<g {_style(w)}>{under}<polyline class="walk" points="{points}" '
        f'style="fill:none;stroke:var(--c);{line}"/>{start}'
        f'{sign}</g>'
    )


def _sign(x: float, y: float, style: str, count: int) -> Markup:
    """A number in a disc."""
    disc = Markup(f'<circle {style} cx="{x:.1f}" cy="{y:.1f}" r="9.5"/>')
    return disc + text(x, y + 4.5, count, 'middle', ' class="sign"')


def scatter(
    points: Sequence[np.ndarray], thumbs: Sequence[np.ndarray] | None, *, label: str
) -> Markup:
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
        parts.append(Markup(f'<path class="spoke {colour}" d="{spokes}"/>'))
        parts += [
            Markup(f'<circle class="spot {colour}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>') for x, y in p
        ]
        x, y = sign
        lead = f'<path class="lead {colour}" d="M{c[0]:.1f} {c[1]:.1f}L{x:.1f} {y:.1f}"/>'
        top.append(Markup(lead))
        if thumbs is not None:
            corner = f'x="{x - size / 2:.1f}" y="{y - size / 2:.1f}" width="{size}" height="{size}"'
            top.append(
                Markup(
                    f'<image {corner} href="{png(thumbs[k])}" preserveAspectRatio="none"/>'
                    f'<rect class="frame {colour}" {corner} rx="3"/>'
                )
            )
            x, y = x - size / 2, y - size / 2
        top += [_sign(x, y, f'class="sign {colour}"', k + 1)]
    return svg('map', wide, high, label, parts + top)


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
