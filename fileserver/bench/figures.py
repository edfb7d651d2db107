"""What a measurement amounts to: rates and percentiles, computed from every single latency."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

PERCENTILES = (50.0, 90.0, 99.0, 99.9)


@attrs.frozen(slots=True)
class Figures:
    """The latencies of one kind of operation, and how many of them there were in a second."""

    operations: int
    per_second: float
    percentiles_us: Mapping[float, int]
    """By percent; 0 throughout where there were no operations."""
    max_us: int

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, whose keys name the unit."""
        percentiles = {f"p{percent:g}_us": value for percent, value in self.percentiles_us.items()}
        return {
            "operations": self.operations,
            "per_second": round(self.per_second, 1),
            **percentiles,
            "max_us": self.max_us,
        }


def figures_of(latencies_us: array[int], seconds: float) -> Figures:
    """The figures of so many operations in so many seconds."""
    ordered = sorted(latencies_us)
    return Figures(
        operations=len(ordered),
        per_second=len(ordered) / seconds if seconds > 0 else 0.0,
        percentiles_us={percent: nearest_rank(ordered, percent) for percent in PERCENTILES},
        max_us=ordered[-1] if ordered else 0,
    )


def nearest_rank(ordered: Sequence[int], percent: float) -> int:
    """The least value that at least that many percent of all values don't exceed; 0 if there are none."""
    if not ordered:
        return 0
    # Whole numbers, because 99.9 / 100 * 1000 is a bit more than 999 in binary fractions.
    rank = -(-len(ordered) * round(percent * 1000) // 100_000)
    return ordered[max(rank, 1) - 1]
