"""The tables and trees of ``bin/bench profile``: for a terminal, for a page, for a program. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from fileserver.bench.call_tree import draw, tree_of
from fileserver.bench.results import TextTable
from fileserver.bench.stacks import Profile, function_shares

OWN_MIN = 0.02
TREE_SHARE_MIN = 0.03
TREE_LINES_MAX = 30
SAMPLES_MIN = 5
"""What was seen less often than that may be chance, whatever its share."""


@attrs.frozen(slots=True, kw_only=True)
class ServerProfile:
    """Where the time of one server went."""

    role: str
    server_id: int
    on_processor: float
    """Processor time of all its threads by the kernel's clock, divided by the time that passed."""
    samples: int
    """How often it was looked at, as far as that is known."""
    profile: Profile

    def share(self, samples: int) -> str:
        """So many of its samples, in percent."""
        return f"{100 * samples / self.samples:.0f}%" if self.samples else "-"

    def functions(self) -> TextTable:
        """A row for each function that takes much by itself."""
        rows = tuple(
            (share.label, f"{100 * share.own:.1f}", f"{100 * share.with_callees:.1f}")
            for share in function_shares(self.profile, OWN_MIN, SAMPLES_MIN)
        )
        return TextTable("functions", ("function", "own %", "with callees %"), rows)

    def tree(self) -> list[str]:
        """Which calls the time went to."""
        return draw(
            tree_of(self.profile.stacks),
            share_min=TREE_SHARE_MIN,
            lines_max=TREE_LINES_MAX,
            samples_min=SAMPLES_MIN,
        )

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "role": self.role,
            "server_id": self.server_id,
            "on_processor": round(self.on_processor, 4),
            "samples": self.samples,
            **self.profile.to_json(),
        }


@attrs.frozen(slots=True, kw_only=True)
class CaseProfile:
    """Where the time went under one load."""

    name: str
    per_second: float
    errors: int
    servers: tuple[ServerProfile, ...]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "name": self.name,
            "per_second": round(self.per_second, 1),
            "errors": self.errors,
            "servers": [server.to_json() for server in self.servers],
        }


@attrs.frozen(slots=True)
class Section:
    """What is told of one server under one load."""

    title: str
    functions: TextTable
    tree: list[str]


def sections(cases: Sequence[CaseProfile]) -> Iterator[Section]:
    """For each case its servers."""
    for case in cases:
        for server in case.servers:
            yield Section(f"{case.name}, {server.role}", server.functions(), server.tree())


def times_table(cases: Sequence[CaseProfile]) -> TextTable:
    """What the servers did with the time: a row for each case and server."""
    rows = []
    for case in cases:
        for server in case.servers:
            profile = server.profile
            asleep = max(server.samples - profile.ran - profile.gave_way - profile.woken, 0)
            counts = (profile.ran, profile.gave_way, profile.woken, asleep, profile.helpers_ran)
            rows.append(
                (
                    case.name,
                    server.role,
                    f"{case.per_second:,.0f}",
                    f"{100 * server.on_processor:.0f}%",
                    *map(server.share, counts),
                    f"{profile.ran:,}",
                )
            )
    header = (
        *("case", "server", "op/s", "on a processor"),
        *("ran", "gave way", "woken", "asleep", "helpers ran", "samples that ran"),
    )
    return TextTable("what the servers did with the time", header, tuple(rows), left=2)


def markdown(cases: Sequence[CaseProfile]) -> str:
    """All of it as a page has it."""
    parts = [times_table(cases).markdown()]
    for section in sections(cases):
        tree = "\n".join(section.tree)
        parts.append(f"### {section.title}\n\n{section.functions.markdown()}\n\n```\n{tree}\n```")
    return "\n\n".join(parts)
