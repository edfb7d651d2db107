"""A run as a space-time diagram: one page of HTML with one SVG in it, and nothing from elsewhere.

Time goes downwards. Every server has a lane, and right of them every client; a message is an arrow from lane to lane,
from when it left to when it came, and a short dashed one if it was lost. Where the pointer rests, a box says what
that is. Boxes above the picture take kinds of things out of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

import attrs

from fileserver.simulation.describe import describe_message
from fileserver.simulation.recording import Condition, Cut, End, Exchange, Flight, Recording, Span
from raftnode import codec
from raftnode.codec import BadMessage
from raftnode.proposals import Proposals
from statemachine.messages import (
    AppendEntries,
    AppendEntriesResult,
    InstallSnapshot,
    InstallSnapshotResult,
    ReadIndex,
    ReadIndexResult,
)

HEAD = 40
LEFT = 330
"""For times and faults."""
SERVER_LANE = 170
CLIENT_LANE = 42
LOST_AFTER = 70
"""How far the arrow of a lost message goes: not to any lane."""
PIXELS_PER_EVENT = 4
HEIGHT_MIN, HEIGHT_MAX = 800, 40_000
PIXELS_BETWEEN_TICKS = 60
PIXELS_BETWEEN_NAMES = 600
LABEL_HEIGHT = 11

_KINDS = {
    "votes": "#8e44ad",
    "entries": "#1f6fb4",
    "heartbeats": "#b9c4cf",
    "answers": "#7fb38a",
    "snapshots": "#d17b0f",
    "reads": "#0aa3a3",
    "proposals": "#b5446e",
}
_CONDITIONS = {Condition.DOWN: "#5b5b5b", Condition.PAUSED: "#e7c93d", Condition.LEADING: "#7bc67b"}
_ENDS = {End.DONE: "#3a9d4a", End.REFUSED: "#d9a514", End.UNKNOWN: "#c0392b"}
_OTHERS = ("faults", "cuts", "clients")


@attrs.frozen(slots=True)
class _Scale:
    """From times and numbers to places."""

    from_us: int
    to_us: int
    height: float
    servers: int

    def y(self, at_us: int) -> float:
        inside_us = min(max(at_us, self.from_us), self.to_us) - self.from_us
        return HEAD + inside_us * self.height / max(self.to_us - self.from_us, 1)

    def server(self, server_id: int) -> float:
        return LEFT + SERVER_LANE * (server_id - 0.5)

    def client(self, number: int) -> float:
        return LEFT + SERVER_LANE * self.servers + CLIENT_LANE * (number - 0.5)


def draw(recording: Recording, title: str, servers: int, clients: int) -> str:
    """The whole page for a recording that is finished."""
    assert recording.to_us is not None, "the recording isn't finished"
    from_us, to_us = recording.from_us, max(recording.to_us, recording.from_us + 1)
    events = len(recording.flights) + len(recording.exchanges)
    height = min(max(events * PIXELS_PER_EVENT, HEIGHT_MIN), HEIGHT_MAX)
    scale = _Scale(from_us, to_us, height, servers)
    width = scale.client(clients + 1)
    body = [
        *_lanes(scale, servers, clients),
        *_ticks(scale, width),
        *(_cut(scale, cut) for cut in recording.cuts if _is_seen(scale, cut.from_us, cut.to_us)),
        *(_span(scale, span) for span in recording.spans if _is_seen(scale, span.from_us, span.to_us)),
        *(_flight(scale, flight) for flight in recording.flights),
        *(_exchange(scale, exchange) for exchange in recording.exchanges),
        *_notes(scale, recording, width),
    ]
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{HEAD + height + 20:.0f}">\n'
        + "\n".join(body)
        + "\n</svg>"
    )
    return _page(title, _legend(), svg)


def _is_seen(scale: _Scale, from_us: int, to_us: int) -> bool:
    return from_us <= scale.to_us and to_us >= scale.from_us


def _ms(at_us: int) -> str:
    return f"{at_us / 1_000:.3f} ms"


def _titled(element: str, title: str, attributes: str) -> str:
    return f"<{element} {attributes}><title>{escape(title)}</title></{element}>"


# What is drawn, from the back to the front


def _lanes(scale: _Scale, servers: int, clients: int) -> Iterator[str]:
    lanes = [(scale.server(each), f"server {each}") for each in range(1, servers + 1)]
    lanes += [(scale.client(each), f"c{each}") for each in range(1, clients + 1)]
    for x, name in lanes:
        yield f'<text class="lane" x="{x:.0f}" y="{HEAD - 14}">{name}</text>'
        yield f'<line class="lane" x1="{x:.0f}" x2="{x:.0f}" y1="{HEAD}" y2="{HEAD + scale.height:.0f}"/>'
        for y in range(HEAD + PIXELS_BETWEEN_NAMES, round(HEAD + scale.height), PIXELS_BETWEEN_NAMES):
            yield f'<text class="again" x="{x:.0f}" y="{y}">{name}</text>'


def _ticks(scale: _Scale, width: float) -> Iterator[str]:
    window_us = scale.to_us - scale.from_us
    least_us = window_us * PIXELS_BETWEEN_TICKS / scale.height
    step_us = next(step * 10**power for power in range(14) for step in (1, 2, 5) if step * 10**power >= least_us)
    at_us = -(-scale.from_us // step_us) * step_us
    while at_us <= scale.to_us:
        y = scale.y(at_us)
        yield f'<line class="tick" x1="0" x2="{width:.0f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="tick" x="4" y="{y - 2:.1f}">{_ms(at_us)}</text>'
        at_us += step_us


def _cut(scale: _Scale, cut: Cut) -> str:
    links = ", ".join(f"{sender} to {receiver}" for sender, receiver in sorted(cut.links))
    top, bottom = scale.y(cut.from_us), scale.y(cut.to_us)
    place = f'x="{LEFT}" y="{top:.1f}" width="{SERVER_LANE * scale.servers}" height="{max(bottom - top, 1):.1f}"'
    return _titled("rect", f"cut from {_ms(cut.from_us)} to {_ms(cut.to_us)}: {links}", f'class="cuts" {place}')


def _span(scale: _Scale, span: Span) -> str:
    top, bottom = scale.y(span.from_us), scale.y(span.to_us)
    x = scale.server(span.server_id)
    what = f"server {span.server_id} {span.condition.value}: {span.what}, {_ms(span.from_us)} to {_ms(span.to_us)}"
    half = 14 if span.condition is Condition.LEADING else 9
    place = f'x="{x - half:.0f}" y="{top:.1f}" width="{2 * half}" height="{max(bottom - top, 1):.1f}"'
    drawn = _titled("rect", what, f'class="{span.condition.value}" {place}')
    if bottom - top > LABEL_HEIGHT:
        drawn += f'<text class="state" x="{x + half + 3:.0f}" y="{top + LABEL_HEIGHT:.1f}">{escape(span.what)}</text>'
    return drawn


def _flight(scale: _Scale, flight: Flight) -> str:
    kind, what = _kind_and_words(flight.message)
    x1, x2 = scale.server(flight.sender), scale.server(flight.receiver)
    y1, y2 = scale.y(flight.left_us), scale.y(flight.ended_us)
    lost = ""
    took = f"left {_ms(flight.left_us)}, took {(flight.ended_us - flight.left_us) / 1_000:.1f} ms"
    if flight.is_lost:
        x2 = x1 + LOST_AFTER * (1 if x2 > x1 else -1)
        y2, lost, took = max(y2, y1 + 2), " lost", f"lost, left {_ms(flight.left_us)}"
    place = f'x1="{x1:.0f}" y1="{y1:.1f}" x2="{x2:.0f}" y2="{y2:.1f}"'
    arrow = f'marker-end="url(#{"x" if flight.is_lost else "to"}-{kind})"'
    return _titled(
        "line", f"{flight.sender} to {flight.receiver}: {what} ({took})", f'class="{kind}{lost}" {place} {arrow}'
    )


def _exchange(scale: _Scale, exchange: Exchange) -> str:
    top, bottom = scale.y(exchange.from_us), scale.y(exchange.to_us)
    took = f"{_ms(exchange.from_us)}, took {(exchange.to_us - exchange.from_us) / 1_000:.1f} ms"
    place = f'x="{scale.client(exchange.client) - 6:.0f}" y="{top:.1f}" width="12" height="{max(bottom - top, 2):.1f}"'
    return _titled("rect", f"{exchange.what} ({took})", f'class="clients {exchange.end.value}" {place}')


def _notes(scale: _Scale, recording: Recording, width: float) -> Iterator[str]:
    free_y = 0.0
    for note in recording.notes:
        if not scale.from_us <= note.at_us <= scale.to_us:
            continue
        y = scale.y(note.at_us)
        free_y = max(free_y + LABEL_HEIGHT, y + LABEL_HEIGHT / 3)
        yield f'<line class="faults" x1="{LEFT}" x2="{width:.0f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<line class="faults" x1="{LEFT - 8}" x2="{LEFT}" y1="{free_y - 4:.1f}" y2="{y:.1f}"/>'
        title = f"<title>{escape(_ms(note.at_us))}: {escape(note.what)}</title>"
        yield f'<text class="faults" x="{LEFT - 10}" y="{free_y:.1f}">{title}{escape(note.what)}</text>'


def _kind_and_words(data: bytes) -> tuple[str, str]:
    try:
        message = codec.decode(data).message
    except BadMessage as error:
        return "answers", f"no message: {error}"
    match message:
        case AppendEntries():
            kind = "entries" if message.entries else "heartbeats"
        case AppendEntriesResult():
            kind = "answers"
        case InstallSnapshot() | InstallSnapshotResult():
            kind = "snapshots"
        case ReadIndex() | ReadIndexResult():
            kind = "reads"
        case Proposals():
            kind = "proposals"
        case _:
            kind = "votes"
    return kind, describe_message(message)


# The page around it


def _legend() -> str:
    boxes = [(kind, f"color:{colour}") for kind, colour in _KINDS.items()] + [(other, "") for other in _OTHERS]
    kinds = "".join(
        f'<label style="{style}"><input type="checkbox" id="see-{name}" checked> {name}</label>'
        for name, style in boxes
    )
    states: list[tuple[str, str]] = [(condition.value, colour) for condition, colour in _CONDITIONS.items()]
    states += [(f"request {end.value}", colour) for end, colour in _ENDS.items()]
    return kinds + "".join(f'<span><i style="background:{colour}"></i>{name}</span>' for name, colour in states)


def _style() -> str:
    rules = [
        "body{font:13px sans-serif;margin:12px;background:#fff;color:#222}",
        "header{position:sticky;top:0;background:#fffe;padding:4px;border-bottom:1px solid #ccc;z-index:1}",
        "label,span{margin-right:12px;white-space:nowrap} i{display:inline-block;width:10px;height:10px;margin:0 4px}",
        "text{font:10px sans-serif} text.lane{font-weight:bold;text-anchor:middle}",
        "text.tick{fill:#888} text.again{fill:#888;text-anchor:middle}",
        "line.lane{stroke:#aaa} line.tick{stroke:#eee} line{stroke-width:1.2} rect:hover,line:hover{stroke:#000}",
        "text.faults{fill:#a11;text-anchor:end} line.faults{stroke:#a11;stroke-width:.6;stroke-dasharray:2 3}",
        ".cuts{fill:#e74c3c;opacity:.10} .lost{stroke-dasharray:4 3}",
        *(f".{kind}{{stroke:{colour}}} .fill-{kind}{{fill:{colour}}}" for kind, colour in _KINDS.items()),
        *(f".{condition.value}{{fill:{colour};opacity:.75}}" for condition, colour in _CONDITIONS.items()),
        *(f".{end.value}{{fill:{colour}}}" for end, colour in _ENDS.items()),
        *(f"body:has(#see-{name}:not(:checked)) svg .{name}{{display:none}}" for name in (*_KINDS, *_OTHERS)),
    ]
    return "\n".join(rules)


def _markers() -> str:
    """The heads of arrows, and the crosses of lost messages, in each colour."""
    return "".join(
        f'<marker id="to-{kind}" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0,0L8,4L0,8z" class="fill-{kind}" stroke="none"/></marker>'
        f'<marker id="x-{kind}" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="8" markerHeight="8">'
        f'<path d="M0,0L8,8M8,0L0,8" class="{kind}" fill="none" stroke-width="1.5"/></marker>'
        for kind in _KINDS
    )


def _page(title: str, legend: str, svg: str) -> str:
    svg = svg.replace("\n", f"\n<defs>{_markers()}</defs>\n", 1)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f"<style>\n{_style()}\n</style></head>\n"
        f"<body><header><b>{escape(title)}</b><br>{legend}</header>\n{svg}\n</body></html>\n"
    )
