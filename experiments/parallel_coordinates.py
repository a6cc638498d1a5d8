"""Parallel coordinates: an axis a field, a line a trial, the last axis the value that ranks them.

The lines' colours follow the page's theme like those of report/pictures.py.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from anyshot_jax.report import pictures
from anyshot_jax.report.page import escape

APART, HIGH, SIDE, TOP, BELOW = 190, 330, 74, 40, 16
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
        return pictures.log_ticks(low, high) if self.log else pictures.ticks(low, high, 5)

    def share(self, value: Any) -> float:
        """0 at the bottom, 1 at the top."""
        return 0.5 if self._alone else (self._place(value) - self._low) / self._span


def draw(axes: Sequence[str], lines: Sequence[Polyline], *, label: str, best_low: bool) -> str:
    """The picture as SVG; the better a trial, the nearer its colour to the page's first."""
    scales = [_Axis([line.values[i] for line in lines]) for i in range(len(axes))]
    wide = 2 * SIDE + APART * (len(axes) - 1)
    parts = []
    at_y = lambda scale, v: HIGH - BELOW - scale.share(v) * (HIGH - BELOW - TOP)
    for line in sorted(lines, key=lambda x: x.values[-1], reverse=best_low):  # the best on top
        dots = ' '.join(
            f'{SIDE + APART * i:.1f},{at_y(s, v):.1f}'
            for i, (s, v) in enumerate(zip(scales, line.values, strict=True))
        )
        good = scales[-1].share(line.values[-1]) * 100
        good = 100 - good if best_low else good
        style = f'--k:color-mix(in oklab,var(--k1) {good:.0f}%,var(--k2))'
        dash = ';stroke-dasharray:3 5' if line.dashed else ''
        said = ', '.join(f'{a} {v}' for a, v in zip(axes, line.values, strict=True))
        parts.append(
            f'<polyline class="line" style="{style}{dash}" points="{dots}">'
            f'<title>{escape(line.name)}: {escape(said)}</title></polyline>'
        )
    for i, (axis, scale) in enumerate(zip(axes, scales, strict=True)):
        x = SIDE + APART * i
        log = ', log' if scale.log else ''
        short = axis if len(axis) <= LETTERS else f'…{axis[-LETTERS:]}'
        parts.append(
            f'<path class="grid" d="M{x} {TOP}V{HIGH - BELOW}"/>'
            f'<text x="{x}" y="{TOP - 18}" text-anchor="middle">'
            f'<title>{escape(axis)}</title>{escape(short)}{log}</text>'
        )
        for tick in scale.ticks:
            text = f'{tick:.4g}' if isinstance(tick, float) else str(tick)
            text = text if len(text) <= 12 else f'{text[:11]}…'
            parts.append(
                f'<text x="{x - 7}" y="{at_y(scale, tick) + 4:.1f}" text-anchor="end">'
                f'{escape(text)}</text>'
            )
    return pictures.svg('parallel', wide, HIGH, label, parts)
