"""What came of a run: what was seen, and everything that is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import attrs

from fileserver.linearizability.report import Report as Judgement
from fileserver.torture.clients import Record
from fileserver.torture.nemesis import Happening
from fileserver.torture.plan import Plan


@attrs.frozen(slots=True)
class Load:
    """What clients did while there were faults; the reading back afterwards isn't part of it."""

    seconds: float
    answered: int
    """Operations with a reply that says what became of them."""
    by_server: Mapping[int, int]
    """The same by the position of the server that gave it, with those refused."""

    @property
    def rate(self) -> float:
        """Answered operations a second, over the whole run."""
        return self.answered / self.seconds


@attrs.frozen(slots=True, kw_only=True)
class Report:
    """See the module's docstring."""

    plan: Plan
    record: Record
    happenings: tuple[Happening, ...]
    skipped: tuple[str, ...]
    """Faults that can't be had on this machine, each with the reason."""
    problems: tuple[str, ...]
    """What is wrong apart from the history and the faults."""
    judgement: Judgement
    judged_in_seconds: float
    load: Load
    rate_min: float
    """Operations a second below which a run is worth nothing."""
    state_hash: str
    """Of all servers at the end; empty if they didn't agree."""

    @property
    def fault_counts(self) -> list[tuple[str, str, int, int]]:
        """Of each kind and variant of fault that was planned: how many were, and how many happened."""
        planned: Counter[tuple[str, str]] = Counter()
        happened: Counter[tuple[str, str]] = Counter()
        for fault in self.plan.faults:
            planned[fault.kind.value, fault.variant] += 1
        for happening in self.happenings:
            if happening.is_real:
                happened[happening.fault.kind.value, happening.fault.variant] += 1
        return [(*key, count, happened[key]) for key, count in sorted(planned.items())]

    def findings(self) -> Iterator[str]:
        """Everything that is wrong, in lines; a good run has none."""
        if not self.judgement.is_good:
            yield from self.judgement.lines()
        yield from self.problems
        done = {happening.fault.number for happening in self.happenings}
        for fault in self.plan.faults:
            if fault.number not in done:
                yield f"not carried out: {fault}"
        for happening in self.happenings:
            if not happening.is_real:
                yield str(happening)
        if self.load.rate < self.rate_min:
            yield f"{self.load.rate:.0f} operations a second, fewer than {self.rate_min:.0f}: the run shows too little"

    @property
    def is_good(self) -> bool:
        """Whether there is nothing wrong at all."""
        return not any(True for _ in self.findings())
