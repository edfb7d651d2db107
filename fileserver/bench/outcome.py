"""What came of a load: every latency, by tenths of a second; and the course of it, point by point. Pure."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence

import attrs

from fileserver.bench.figures import Figures, figures_of, nearest_rank
from fileserver.bench.load import Kind

INTERVAL_US = 100_000
POINTS_MAX = 300
_SECOND_US = 1_000_000


def _no_latencies() -> tuple[array[int], array[int]]:
    return array("L"), array("L")


@attrs.define(slots=True)
class Interval:
    """About a tenth of a second."""

    at_us: int
    """When it began, from the beginning of the measurement."""
    latencies_us: tuple[array[int], array[int]] = attrs.field(factory=_no_latencies)
    """By the number of the kind of request, in the order of the replies."""
    errors: int = 0

    @property
    def operations(self) -> int:
        """How many requests were answered as they should be."""
        return len(self.latencies_us[Kind.WRITE]) + len(self.latencies_us[Kind.READ])


@attrs.frozen(slots=True)
class Point:
    """A while within a measurement, for people to look at."""

    at_us: int
    """When it began."""
    operations: int
    per_second: float
    p50_us: int
    p99_us: int
    errors: int

    def to_json(self) -> dict[str, float]:
        """As a JSON object, whose keys name the unit."""
        return {
            "at_s": round(self.at_us / _SECOND_US, 3),
            "operations": self.operations,
            "per_second": round(self.per_second, 1),
            "p50_us": self.p50_us,
            "p99_us": self.p99_us,
            "errors": self.errors,
        }


@attrs.define(slots=True)
class Outcome:
    """What came of a load, of its warm-up only the errors."""

    seconds: float = 0.0
    """From the end of the warm-up to the last reply."""
    intervals: list[Interval] = attrs.field(factory=list)
    errors: Counter[str] = attrs.field(factory=Counter)
    """By the reply's first word, or by what happened to a connection."""
    unsent: int = 0
    """Requests that were due while all clients waited for replies, and for which no client came free in time."""
    longest_gap_us: int = 0
    """The longest time without a good reply to any client."""
    server_cpu_us: int | None = None
    """Processor time of the servers, if they are known."""
    generator_cpu_us: int = 0

    @property
    def operations(self) -> int:
        """How many requests were answered as they should be."""
        return sum(interval.operations for interval in self.intervals)

    def latencies_us(self, *kinds: Kind) -> array[int]:
        """The latencies of these kinds of requests, of all of them if none is named."""
        latencies = array("L")
        for interval in self.intervals:
            for kind in kinds or Kind:
                latencies.extend(interval.latencies_us[kind])
        return latencies

    def figures(self, *kinds: Kind) -> Figures:
        """The figures of these kinds of requests, of all of them if none is named."""
        return figures_of(self.latencies_us(*kinds), self.seconds)

    def figures_by_kind(self) -> dict[str, Figures]:
        """The figures of every kind of request that there was."""
        every = {kind.name.lower(): self.figures(kind) for kind in reversed(Kind)}
        return {name: figures for name, figures in every.items() if figures.operations}

    def server_us_per_operation(self) -> float | None:
        """Processor time of all servers together for one operation, if it is known."""
        operations = self.operations
        return self.server_cpu_us / operations if self.server_cpu_us is not None and operations else None

    def generator_us_per_operation(self) -> float:
        """Processor time of the load generator for one operation."""
        return self.generator_cpu_us / max(self.operations, 1)

    def points(self) -> list[Point]:
        """The course of it: tenths of a second if these aren't too many, else seconds, or tens of them, and so on."""
        length_us = INTERVAL_US
        while self.seconds * _SECOND_US > POINTS_MAX * length_us:
            length_us *= 10
        end_us = round(self.seconds * _SECOND_US)
        begins = range(0, max(end_us - length_us // 2, 1), length_us)  # what is left over belongs to the last one
        groups: list[list[Interval]] = [[] for _ in begins]
        for interval in self.intervals:
            # An interval begins a little late when the generator was busy.
            groups[min((interval.at_us + INTERVAL_US // 2) // length_us, len(groups) - 1)].append(interval)
        ends = [*begins[1:], max(end_us, 1)]
        return [point_of(begin, group, end - begin) for begin, end, group in zip(begins, ends, groups, strict=True)]


def point_of(at_us: int, intervals: Iterable[Interval], length_us: int) -> Point:
    """One point out of some intervals in a row that are together so long."""
    intervals = list(intervals)
    ordered = _ordered_latencies(intervals)
    return Point(
        at_us=at_us,
        operations=len(ordered),
        per_second=len(ordered) * _SECOND_US / length_us,
        p50_us=nearest_rank(ordered, 50.0),
        p99_us=nearest_rank(ordered, 99.0),
        errors=sum(interval.errors for interval in intervals),
    )


def _ordered_latencies(intervals: Iterable[Interval]) -> Sequence[int]:
    return sorted(latency for interval in intervals for each in interval.latencies_us for latency in each)
