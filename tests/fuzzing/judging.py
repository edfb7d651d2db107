"""Runs a target on inputs and judges each: what it raises, how long it takes, how much memory.

Whoever chooses the inputs, our loop or atheris, has them judged here, so both find the same.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from typing import Final

import attrs

from tests.fuzzing.findings import Finding, FindingKind, finding_of_exception, place_of
from tests.fuzzing.measuring import (
    TIME_LIMIT_US,
    Hang,
    Watchdog,
    least_cpu_us,
    memory_limit_bytes,
    peak_bytes,
)
from tests.fuzzing.target import Target

WEIGHED_EVERY: Final = 200
FINDINGS_COUNT_MAX: Final = 20
"""Of one target, each at another place; those that come later are dropped."""
_HANG: Final = "hang"
_TIME_LIMIT_NS: Final = TIME_LIMIT_US * 1000


@attrs.define
class Summary:
    """What was run, and what was found."""

    target: str
    inputs_count: int = 0
    weighed_count: int = 0
    """Inputs whose memory was measured."""
    corpus_count: int = 0
    """Inputs that got somewhere new, and are kept to be changed again."""
    lines_count: int = 0
    """Lines of the target's modules that were reached; 0 if nobody counted them."""
    seconds: float = 0.0
    slowest_us: int = 0
    """The longest time of one input, by the wall clock."""
    findings: list[Finding] = attrs.Factory(list)


@attrs.define(eq=False)
class Judge:
    """Judges the inputs of one target. To be used within the target's environment."""

    target: Target
    summary: Summary = attrs.field(init=False)
    watchdog: Watchdog = attrs.Factory(Watchdog)
    _places: set[tuple[FindingKind, str]] = attrs.Factory(set)

    def __attrs_post_init__(self) -> None:
        """Begins with nothing run."""
        self.summary = Summary(self.target.name)

    def judge(self, data: bytes) -> Hashable:
        """Runs an input; returns its trail."""
        summary = self.summary
        summary.inputs_count += 1
        self.watchdog.count += 1
        started_ns = time.perf_counter_ns()
        trail = self.run(data)
        taken_ns = time.perf_counter_ns() - started_ns
        if taken_ns > summary.slowest_us * 1000:
            summary.slowest_us = taken_ns // 1000
        if trail == _HANG:
            return trail
        if taken_ns > _TIME_LIMIT_NS:
            self._check_time(data)
        if summary.inputs_count % WEIGHED_EVERY == 0:
            self.weigh(data)
        return trail

    def run(self, data: bytes) -> Hashable:
        """Runs an input once more, without counting it; what is no declared exception becomes a finding."""
        try:
            return self.target.run(data)
        except self.target.declared as error:
            return place_of(error)
        except KeyboardInterrupt:
            raise
        except Hang as error:
            self._add(Finding(self.target.name, FindingKind.SLOW, f"hang: {place_of(error)}", str(error), data))
            return _HANG
        except BaseException as error:  # noqa: BLE001 - any exception but the declared ones is what is looked for
            self._add(finding_of_exception(self.target.name, data, error))
            return place_of(error)

    def weigh(self, data: bytes) -> None:
        """Runs an input once more and measures the memory that takes."""
        self.summary.weighed_count += 1
        limit = memory_limit_bytes(data)
        peak = peak_bytes(lambda: self.run(data))
        if peak > limit:
            # Once in millions of runs a table of the interpreter's own grows meanwhile.
            peak = min(peak, peak_bytes(lambda: self.run(data)))
        if peak > limit:
            text = f"{peak} bytes of memory for {len(data)}, the limit is {limit}"
            self._add(Finding(self.target.name, FindingKind.MEMORY, "memory", text, data))

    def _check_time(self, data: bytes) -> None:
        cpu_us = least_cpu_us(lambda: self.run(data))
        if cpu_us > TIME_LIMIT_US:
            text = f"{cpu_us / 1000:.1f} ms of CPU for {len(data)} bytes, the limit is {TIME_LIMIT_US / 1000:g}"
            self._add(Finding(self.target.name, FindingKind.SLOW, "slow", text, data))

    def _add(self, finding: Finding) -> None:
        key = (finding.kind, finding.place)
        if key not in self._places and len(self._places) < FINDINGS_COUNT_MAX:
            self._places.add(key)
            self.summary.findings.append(finding)


def replay(target: Target, data: bytes) -> list[Finding]:
    """Runs one input with everything measured; returns what is wrong with it."""
    judge = Judge(target)
    with target.environment(), judge.watchdog.watching():
        if judge.judge(data) != _HANG:
            judge.weigh(data)
    return judge.summary.findings
