"""The loads that ``bin/bench suite`` measures one after the other, and what came of them. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import attrs

from fileserver.bench.load import READ_PERCENT_MIXED, Load
from fileserver.bench.outcome import Outcome
from fileserver.config import Address


@attrs.frozen(slots=True)
class Case:
    """A load with a name."""

    name: str
    load: Load
    """Its servers are filled in when there are any."""
    any_server: bool = False
    """Whether the clients are spread over all servers, rather than connected to the leader."""

    def at(self, leader: Address, servers: Sequence[Address], seconds: float) -> Load:
        """The load for this cluster and that long."""
        return attrs.evolve(self.load, servers=tuple(servers) if self.any_server else (leader,), seconds=seconds)


WARM_SECONDS = 0.5


def _case(name: str, *, any_server: bool = False, **load: Any) -> Case:
    return Case(name, Load(servers=(), warm_seconds=WARM_SECONDS, **load), any_server)


CASES = (
    _case("write-1", clients=1),
    _case("write-16", clients=16),
    _case("write-64"),
    _case("write-256", clients=256),
    _case("write-64-any-server", any_server=True),
    _case("write-64-pipelined", in_flight=16),
    _case("read-64", read_percent=100),
    _case("read-64-any-server", read_percent=100, any_server=True),
    _case("mixed-64-any-server", read_percent=READ_PERCENT_MIXED, any_server=True),
    _case("write-64-16KiB", size_bytes=16 * 1024, files=1000, folder="bench-16KiB"),
)
"""The table that the project is measured by; 256-byte values and 10,000 names where nothing else is said."""
WRITE_64 = CASES[2]
READ_64 = CASES[6]


@attrs.frozen(slots=True)
class Measured:
    """One round of a case."""

    per_second: float
    p50_us: int
    p99_us: int
    server_us: float
    """Processor time of all servers for one operation."""
    generator_us: float
    """And of the load generator."""
    errors: int

    @classmethod
    def of(cls, outcome: Outcome) -> Measured:
        """What of an outcome goes into the tables."""
        figures = outcome.figures()
        return cls(
            per_second=figures.per_second,
            p50_us=figures.percentiles_us[50.0],
            p99_us=figures.percentiles_us[99.0],
            server_us=outcome.server_us_per_operation() or 0.0,
            generator_us=outcome.generator_us_per_operation(),
            errors=outcome.errors.total(),
        )


def median_of(rounds: Sequence[Measured]) -> Measured:
    """Of every figure its own median; all errors."""
    return Measured(
        per_second=statistics.median(each.per_second for each in rounds),
        p50_us=round(statistics.median(each.p50_us for each in rounds)),
        p99_us=round(statistics.median(each.p99_us for each in rounds)),
        server_us=statistics.median(each.server_us for each in rounds),
        generator_us=statistics.median(each.generator_us for each in rounds),
        errors=sum(each.errors for each in rounds),
    )


@attrs.frozen(slots=True)
class CaseResult:
    """All rounds of a case."""

    name: str
    rounds: tuple[Measured, ...]

    @property
    def median(self) -> Measured:
        """See `median_of`."""
        return median_of(self.rounds)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, whose keys name the unit."""
        return {
            "name": self.name,
            "median": attrs.asdict(self.median),
            "rounds": [attrs.asdict(each) for each in self.rounds],
        }
