"""The tables of ``bin/bench suite``: for a terminal, for a page, for a program. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs

from fileserver.bench.cases import CaseResult


@attrs.frozen(slots=True, kw_only=True)
class GrowthResult:
    """One way in which the cost grows, against its limit."""

    name: str
    """For ``--only``."""
    what: str
    value: str
    limit: str
    is_ok: bool
    errors: int = 0


@attrs.frozen(slots=True)
class TextTable:
    """Rows of texts; the columns behind the first ``left`` ones are numbers."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1

    def markdown(self) -> str:
        """As a page has it."""
        rules = ["---" if place < self.left else "---:" for place in range(len(self.header))]
        lines = [self.header, rules, *self.rows]
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def cases_table(title: str, results: Sequence[CaseResult], ceilings: Sequence[CaseResult] = ()) -> TextTable:
    """A row for each case, with the medians of its rounds.

    With ceilings, what a server alone does in the same cases, it also tells how near each case comes to that: its share
    of the throughput, and how many times the processor time an operation takes.
    """
    rows = []
    alone = {ceiling.name: ceiling.median for ceiling in ceilings}
    for result in results:
        median = result.median
        row: tuple[str, ...] = (
            result.name,
            f"{median.per_second:,.0f}",
            f"{median.p50_us / 1000:.2f}",
            f"{median.p99_us / 1000:.2f}",
            f"{median.server_us:.1f}",
            f"{median.generator_us:.1f}",
            f"{median.errors:,}",
        )
        if ceilings:
            ceiling = alone[result.name]
            row += (f"{median.per_second / ceiling.per_second:.0%}", f"{median.server_us / ceiling.server_us:.1f}")
        rows.append(row)
    header: tuple[str, ...] = ("case", "op/s", "p50 ms", "p99 ms", "server CPU us/op", "generator CPU us/op", "errors")
    if ceilings:
        header += ("op/s, of one server alone", "server CPU, times that of one alone")
    return TextTable(title, header, tuple(rows))


def growth_table(title: str, results: Sequence[GrowthResult]) -> TextTable:
    """A row for each limit."""
    rows = tuple(
        (result.what, result.value, result.limit, ("ok" if result.is_ok else "NOT") + _errors(result))
        for result in results
    )
    return TextTable(title, ("what", "value", "limit", "kept"), rows, left=4)


def _errors(result: GrowthResult) -> str:
    return f", {result.errors:,} errors" if result.errors else ""


@attrs.frozen(slots=True)
class SuiteResults:
    """All that a suite has measured; what was left out is empty."""

    servers: int
    cases: tuple[CaseResult, ...]
    growth: tuple[GrowthResult, ...]
    other_counts: tuple[CaseResult, ...]
    ceilings: tuple[CaseResult, ...] = ()
    """Of the same cases, by one server alone."""

    def is_good(self) -> bool:
        """Whether there were no errors and every limit was kept."""
        measured = (*self.cases, *self.other_counts)
        return all(result.is_ok for result in self.growth) and not any(each.median.errors for each in measured)

    def tables(self) -> dict[str, TextTable]:
        """Those that aren't empty, by the names of their parts of a page."""
        every = {
            "suite: cases": cases_table(f"{self.servers} servers, medians", self.cases, self.ceilings),
            "suite: growth": growth_table("how the cost grows", self.growth),
            "suite: other counts": cases_table("other numbers of servers, medians", self.other_counts),
        }
        return {name: table for name, table in every.items() if table.rows}

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, whose keys name the unit."""
        return {
            "servers": self.servers,
            "cases": [result.to_json() for result in self.cases],
            "growth": [attrs.asdict(result) for result in self.growth],
            "other_counts": [result.to_json() for result in self.other_counts],
            "ceilings": [result.to_json() for result in self.ceilings],
        }
