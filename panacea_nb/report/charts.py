"""Measures over time as SVG: one mark per night and channel, told apart by colour and shape, flagged ones ringed."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup, escape

from .drawing import CHANNEL_COLORS, INK, SOFT
from .records import channel_order, number

if TYPE_CHECKING:
    from .trends import Measure, Point

WIDTH, HEIGHT = 640, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 30, 34
_MARKS = {"uv": "circle", "orange": "square", "red": "triangle", "farred": "diamond"}


def over_nights(measure: Measure, points: list[Point], says: str) -> Markup:
    """A chart of one measure; ``says`` is what it shows, in words."""
    days = np.array([point.day for point in points])
    first, last = days.min(), days.max()
    room = max(1.0, 0.03 * (last - first))
    values = np.array([point.value for point in points])
    ends = [point.low for point in points] + [point.high for point in points]
    shown = np.concatenate([values, [end for end in ends if np.isfinite(end)]])
    low, high = float(shown.min()), float(shown.max())
    margin = 0.08 * (high - low) or abs(high) * 0.1 or 1.0
    low, high = low - margin, high + margin

    def x(day: float) -> float:
        return _LEFT + (day - first + room) / (last - first + 2 * room) * (WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(says)}" font-family="sans-serif" font-size="11">',
        f"<title>{escape(says)}</title>",
    ]
    for value in _ticks(low, high):
        parts.append(f'<path d="M{_LEFT} {y(value):.1f}H{WIDTH - _RIGHT}" stroke="#e3e7ec"/>')
        parts.append(
            f'<text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end" fill="{SOFT}">{number(value)}</text>'
        )
    for day in _dates(first, last):
        text = dt.date.fromordinal(round(day)).isoformat()
        parts.append(f'<text x="{x(day):.1f}" y="{HEIGHT - 12}" text-anchor="middle" fill="{SOFT}">{text}</text>')
    channels = sorted({point.channel for point in points}, key=channel_order)
    for number_of, name in enumerate(channels):
        mine = sorted((point for point in points if point.channel == name), key=lambda point: point.day)
        color = CHANNEL_COLORS.get(name, INK)
        parts += [_band(mine, x, y, color), _line(mine, x, y, color)]
        for point in mine:
            parts.append(
                _mark(
                    name,
                    x(point.day),
                    y(point.value),
                    color,
                    f"{point.label} {name}: {number(point.value)} {measure.unit} {point.flag}",
                )
            )
            if point.flag:
                place = f'cx="{x(point.day):.1f}" cy="{y(point.value):.1f}"'
                parts.append(f'<circle {place} r="9" fill="none" stroke="#a3213b" stroke-width="2"/>')
        at = _LEFT + 90 * number_of
        parts += [
            _mark(name, at + 6, 14, color, name),
            f'<text x="{at + 16}" y="18" fill="{INK}">{escape(name)}</text>',
        ]
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704 - every text above is escaped, the rest are numbers


def _band(points: list[Point], x, y, color: str) -> str:
    known = [point for point in points if np.isfinite(point.low)]
    if len(known) < 2:
        return ""
    corners = [(x(p.day), y(p.low)) for p in known] + [(x(p.day), y(p.high)) for p in known[::-1]]
    return f'<path d="M{" ".join(f"{a:.1f} {b:.1f}" for a, b in corners)}Z" fill="{color}" fill-opacity="0.09"/>'


def _line(points: list[Point], x, y, color: str) -> str:
    path = " ".join(f"{x(p.day):.1f} {y(p.value):.1f}" for p in points)
    return f'<path d="M{path}" fill="none" stroke="{color}" stroke-opacity="0.45"/>'


def _mark(name: str, x: float, y: float, color: str, says: str) -> str:
    shapes = {
        "circle": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6"',
        "square": f'<rect x="{x - 3.3:.1f}" y="{y - 3.3:.1f}" width="6.6" height="6.6"',
        "triangle": f'<path d="M{x:.1f} {y - 4.4:.1f}l4.2 7.4h-8.4Z"',
        "diamond": f'<path d="M{x:.1f} {y - 5:.1f}l4.6 5l-4.6 5l-4.6 -5Z"',
    }
    shape = _MARKS.get(name, "circle")
    return f'{shapes[shape]} fill="{color}"><title>{escape(says.strip())}</title>{_CLOSE[shape]}'


_CLOSE = {"circle": "</circle>", "square": "</rect>", "triangle": "</path>", "diamond": "</path>"}


def _ticks(low: float, high: float) -> list[float]:
    step = 10 ** np.floor(np.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (factor * step) <= 5)
    return [float(round(value / step) * step) for value in np.arange(np.ceil(low / step) * step, high, step)]


def _dates(first: float, last: float) -> list[float]:
    count = min(5, round(last - first) + 1)
    return sorted({float(round(day)) for day in np.linspace(first, last, count)})
