"""A measurement as a picture: throughput and latency over time, one panel above the other, as one SVG. Pure.

Latencies have a logarithmic axis, since their tails are what one looks for, and those lie far above the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape

import attrs

from fileserver.bench.outcome import Point

WIDTH = 960
PANEL_HEIGHT = 220
LEFT = 90
RIGHT = 30
TOP = 70
BETWEEN = 60
BOTTOM = 60
HEIGHT = TOP + PANEL_HEIGHT + BETWEEN + PANEL_HEIGHT + BOTTOM
TICKS_WANTED = 5
_COLOURS = {"throughput": "#1f6fb4", "p50": "#2a9d4a", "p99": "#d17b0f", "errors": "#c0392b"}
_STYLE = (
    "text{font-family:sans-serif;font-size:12px;fill:#333}.title{font-size:16px;font-weight:bold}"
    ".settings{fill:#666}.grid{stroke:#ddd}.axis{stroke:#333}.line{fill:none;stroke-width:1.5;stroke-linecap:round}"
)


@attrs.frozen(slots=True)
class _Panel:
    """A rectangle with two axes."""

    top: float
    seconds_max: float
    place_of: Callable[[float], float]
    """From a value to a fraction of the height, 0 at the bottom."""

    def x(self, seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * seconds / self.seconds_max

    def y(self, value: float) -> float:
        return self.top + PANEL_HEIGHT * (1 - min(max(self.place_of(value), 0.0), 1.0))

    def line(self, name: str, values: Sequence[tuple[float, float]]) -> str:
        # A line of one point is none, unless it is drawn twice with round ends.
        drawn = [*values, *values] if len(values) == 1 else values
        places = " ".join(f"{self.x(seconds):.1f},{self.y(value):.1f}" for seconds, value in drawn)
        return f'<polyline class="line" stroke="{_COLOURS[name]}" points="{places}"/>'


def draw(points: Sequence[Point], title: str, settings: str) -> str:
    """The whole picture.

    Args:
        points: the course of the measurement, in order; there may be none.
        title: the line above it.
        settings: a smaller line below that one: what was measured, and how.
    """
    seconds_max = (points[-1].at_us + _length_us(points)) / 1e6 if points else 1.0
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text class="title" x="{LEFT}" y="26">{escape(title)}</text>',
        f'<text class="settings" x="{LEFT}" y="46">{escape(settings)}</text>',
        *_throughput(points, seconds_max),
        *_latency(points, seconds_max),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _length_us(points: Sequence[Point]) -> int:
    return points[1].at_us - points[0].at_us if len(points) > 1 else 1_000_000


def _middle(point: Point, length_us: int) -> float:
    return (point.at_us + length_us / 2) / 1e6


def _throughput(points: Sequence[Point], seconds_max: float) -> Iterator[str]:
    """The upper panel; errors are marks on its floor."""
    ticks = linear_ticks(max((point.per_second for point in points), default=0.0))
    panel = _Panel(TOP, seconds_max, lambda value: value / ticks[-1])
    yield from _axes(panel, ticks, [f"{tick:,.0f}" if ticks[-1] >= TICKS_WANTED else f"{tick:g}" for tick in ticks])
    yield _label(panel, "operations a second")
    length_us = _length_us(points)
    if points:
        yield panel.line("throughput", [(_middle(point, length_us), point.per_second) for point in points])
    for point in points:
        if point.errors:
            yield (
                f'<circle cx="{panel.x(_middle(point, length_us)):.1f}" cy="{panel.y(0):.1f}" r="4" '
                f'fill="{_COLOURS["errors"]}"><title>{point.errors} errors</title></circle>'
            )
    if any(point.errors for point in points):
        yield from _legend(panel, ("errors",))


def _latency(points: Sequence[Point], seconds_max: float) -> Iterator[str]:
    """The lower panel."""
    seen = [point for point in points if point.operations]
    ticks = logarithmic_ticks([value / 1000 for point in seen for value in (point.p50_us, point.p99_us)])
    low, high = math.log10(ticks[0]), math.log10(ticks[-1])
    panel = _Panel(
        TOP + PANEL_HEIGHT + BETWEEN, seconds_max, lambda value: (math.log10(max(value, ticks[0])) - low) / (high - low)
    )
    yield from _axes(panel, ticks, [f"{tick:g}" for tick in ticks])
    yield _label(panel, "latency, milliseconds")
    yield f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 16}" text-anchor="middle">time, seconds</text>'
    length_us = _length_us(points)
    for run in _runs(points):
        middles = [_middle(point, length_us) for point in run]
        yield panel.line("p99", list(zip(middles, [point.p99_us / 1000 for point in run], strict=True)))
        yield panel.line("p50", list(zip(middles, [point.p50_us / 1000 for point in run], strict=True)))
    yield from _legend(panel, ("p50", "p99"))


def _runs(points: Sequence[Point]) -> Iterator[list[Point]]:
    """Points in a row that have operations: where nothing was answered, there is no latency to draw."""
    run: list[Point] = []
    for point in points:
        if point.operations:
            run.append(point)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _axes(panel: _Panel, ticks: Sequence[float], names: Sequence[str]) -> Iterator[str]:
    right, bottom = WIDTH - RIGHT, panel.top + PANEL_HEIGHT
    for tick, name in zip(ticks, names, strict=True):
        y = f"{panel.y(tick):.1f}"
        yield f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y}" y2="{y}"/>'
        yield f'<text x="{LEFT - 8}" y="{y}" dy="4" text-anchor="end">{name}</text>'
    for tick in linear_ticks(panel.seconds_max):
        if tick <= panel.seconds_max:
            x = f"{panel.x(tick):.1f}"
            yield f'<line class="axis" x1="{x}" x2="{x}" y1="{bottom}" y2="{bottom + 4}"/>'
            yield f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{tick:g}</text>'
    yield f'<path class="axis" fill="none" d="M{LEFT} {panel.top}V{bottom}H{right}"/>'


def _label(panel: _Panel, text: str) -> str:
    """What a panel's upright axis shows."""
    middle = panel.top + PANEL_HEIGHT / 2
    return f'<text transform="translate(18 {middle:g}) rotate(-90)" text-anchor="middle">{escape(text)}</text>'


def _legend(panel: _Panel, names: Sequence[str]) -> Iterator[str]:
    for place, name in enumerate(reversed(names)):
        x = WIDTH - RIGHT - 70 * (place + 1)
        yield f'<rect x="{x}" y="{panel.top - 18:g}" width="12" height="12" fill="{_COLOURS[name]}"/>'
        yield f'<text x="{x + 17}" y="{panel.top - 8:g}">{name}</text>'


def linear_ticks(most: float) -> list[float]:
    """Round numbers from 0 on, about five of them, the last not less than the greatest value."""
    if most <= 0:
        return [0.0, 1.0]
    rough = most / TICKS_WANTED
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * (1 - 1e-9))
    return [round(number * step, 10) for number in range(math.ceil(most / step - 1e-9) + 1)]


def logarithmic_ticks(values: Sequence[float]) -> list[float]:
    """Powers of ten around all values, which are milliseconds; if these are few, with twos and fives."""
    least = max(min(values, default=1.0), 0.001)
    most = max([*values, least])
    first = math.floor(math.log10(least) + 1e-9)
    last = max(math.ceil(math.log10(most) - 1e-9), first + 1)
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    ticks = [round(10.0**power * factor, 10) for power in range(first, last) for factor in factors]
    return [*ticks, round(10.0**last, 10)]
