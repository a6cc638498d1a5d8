"""Parallel coordinates: an axis a field, a line a trial, the last axis the value that ranks them.

The lines' colours follow the page's theme like those of report/charts.py.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from anyshot_jax.report import charts
from anyshot_jax.report.page import html

APART, HIGH, SIDE, TOP, BELOW = 220, 330, 100, 40, 16
HALO = 'paint-order:stroke;stroke:var(--page);stroke-width:5px'  # lines pass behind
LETTERS = 24  # of an axis' name; all of it is in its title


class Polyline(NamedTuple):
    """A trial: its values of the axes in order, the ranking value last."""

    name: str
    values: Sequence[Any]
    dashed: bool = False  # it has not come to its end


class _Axis:
    """Places of values between bottom and top: by number, by its logarithm, or one by one."""

    def __init__(self, values: Sequence[Any]):
        distinct = list(dict.fromkeys(values))
        self._names: dict[Any, int] = {}
        self.log = False
        if any(isinstance(v, bool) or not isinstance(v, int | float) for v in distinct):
            distinct.sort(key=str)
            self._names = {v: i for i, v in enumerate(distinct)}
            self.ticks = distinct
        else:
            self.log = min(distinct) > 0 and max(distinct) > 10 * min(distinct)
        places = [self._place(v) for v in distinct]
        self._low, self._span = min(places), (max(places) - min(places)) or 1.0
        self._alone = max(places) == min(places)
        if not self._names:
            self.ticks = distinct if len(distinct) <= 6 else self._round(min(places), max(places))

    def _place(self, value: Any) -> float:
        if self._names:
            return self._names[value]
        return math.log10(value) if self.log else value

    def _round(self, low: float, high: float) -> list[float]:
        return charts.log_ticks(low, high) if self.log else charts.ticks(low, high, 5)

    def share(self, value: Any) -> float:
        """0 at the bottom, 1 at the top."""
        return 0.5 if self._alone else (self._place(value) - self._low) / self._span


def draw(
    axes: Sequence[str], lines: Sequence[Polyline], *, label: str, best_low: bool, percent: bool
) -> Markup:
    """The image as SVG; the better a trial, the nearer its colour to the page's first.

    Args:
      percent: the ranking value is a share, told in per cent.
    """
    scales = [_Axis([line.values[i] for line in lines]) for i in range(len(axes))]
    wide = 2 * SIDE + APART * (len(axes) - 1)
    parts = []
    for line in sorted(lines, key=lambda x: x.values[-1], reverse=best_low):  # the best on top
        dots = ' '.join(
            f'{SIDE + APART * i:.1f},{_at_y(scale, v):.1f}'
            for i, (scale, v) in enumerate(zip(scales, line.values, strict=True))
        )
        good = scales[-1].share(line.values[-1]) * 100
        good = 100 - good if best_low else good
        style = f'--k:color-mix(in oklab,var(--k1) {good:.0f}%,var(--k2))'
        dash = ';stroke-dasharray:3 5' if line.dashed else ''
        said = ', '.join(f'{a} {v}' for a, v in zip(axes, line.values, strict=True))
        parts.append(
            html(
                '<polyline class="line" style="{{ style }}" points="{{ dots }}">'
                '<title>{{ name }}: {{ said }}</title></polyline>',
                style=style + dash,
                dots=dots,
                name=line.name,
                said=said,
            )
        )
    for i, (axis, scale) in enumerate(zip(axes, scales, strict=True)):
        last = i == len(axes) - 1
        parts += _axis(SIDE + APART * i, axis, scale, percent=percent and last, right=last)
    # In its own size: many axes are scrolled to, not made small.
    return charts.svg('', wide, HIGH, label, parts, style=f'width:{wide}px')


def _at_y(scale: _Axis, value: Any) -> float:
    return HIGH - BELOW - scale.share(value) * (HIGH - BELOW - TOP)


def _axis(x: int, name: str, scale: _Axis, *, percent: bool, right: bool) -> list[Markup]:
    """The axis, its name and its ticks, on whose right or left side."""
    short = name if len(name) <= LETTERS else f'…{name[-LETTERS:]}'
    words = html(
        '<title>{{ name }}</title>{{ short }}{{ log }}',
        name=name, short=short, log=', log' * scale.log,
    )  # fmt: skip
    parts = [
        Markup(f'<path class="grid" d="M{x} {TOP}V{HIGH - BELOW}"/>'),
        charts.text(x, TOP - 18, words, 'middle'),
    ]
    side, anchor = (8, 'start') if right else (-8, 'end')
    for tick in scale.ticks:
        text = f'{tick:.4g}' if isinstance(tick, float) else str(tick)
        text = f'{tick * 100:.4g} %' if percent else text
        text = text if len(text) <= 12 else f'{text[:11]}…'
        y = _at_y(scale, tick) + 4
        parts.append(charts.text(x + side, y, text, anchor, f' style="{HALO}"'))
    return parts
