"""Many runs on several processes, and what they came to.

Runs share nothing, so each process takes one after the other. Every hundredth seed is run again, in a process that does
nothing else (its hashes of strings are other ones then, and its memory lies elsewhere): the rolling hashes of all that
happened must be the same. A run that takes far more processor time than any should is a failure too.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack

import attrs

from fileserver.simulation.run import Failure, Outcome, Trial, run
from fileserver.simulation.workers import workers

REPEATED_EVERY = 100
_WAITING_PER_PROCESS = 4
"""Trials that are laid in ahead of time."""
CPU_SECONDS_PER_SIMULATED = 1.0
CPU_SECONDS_MORE = 60.0


@attrs.define(slots=True)
class Totals:
    """What some runs came to."""

    seeds: int = 0
    repeated: int = 0
    simulated_us: int = 0
    cpu_seconds: float = 0.0
    faults: Counter[str] = attrs.Factory(Counter)
    replies: int = 0
    unknown: int = 0
    messages: int = 0
    elections: int = 0
    crashes: int = 0
    failed: list[Outcome] = attrs.Factory(list)

    @property
    def operations(self) -> int:
        """Requests of clients."""
        return self.replies + self.unknown

    @property
    def speed(self) -> float:
        """Simulated seconds in a second of processor time."""
        return self.simulated_us / 1e6 / self.cpu_seconds if self.cpu_seconds else 0.0

    def add(self, outcome: Outcome) -> None:
        """One more."""
        self.seeds += 1
        self.repeated += is_repeated(outcome.trial)
        self.simulated_us += outcome.simulated_us
        self.cpu_seconds += outcome.cpu_seconds
        self.faults.update(outcome.faults)
        self.replies += outcome.replies
        self.unknown += outcome.unknown
        self.messages += outcome.messages
        self.elections += outcome.elections
        self.crashes += outcome.crashes
        if outcome.failure is not None:
            self.failed.append(outcome)

    def by_kind(self) -> str:
        """One line of the faults that there were, the most frequent first."""
        return "faults: " + (", ".join(f"{kind} {count:,}" for kind, count in self.faults.most_common()) or "none")

    def __str__(self) -> str:
        """One line that sums up."""
        return (
            f"{self.seeds:,} seeds ({self.repeated:,} of them twice), "
            f"{self.simulated_us / 3.6e9:,.1f} simulated hours, "
            f"{self.faults.total():,} faults, {self.crashes:,} crashes, {self.elections:,} elections, "
            f"{self.operations:,} operations ({self.unknown:,} of unknown outcome), {self.messages:,} messages, "
            f"{self.speed:,.0f} simulated seconds per CPU second, {len(self.failed):,} failures"
        )


def is_repeated(trial: Trial) -> bool:
    """Whether a campaign runs it twice."""
    return trial.seed % REPEATED_EVERY == 0


def campaign(trials: Iterable[Trial], jobs: int) -> Iterator[Outcome]:
    """Run them all on so many processes; what comes of them, as it comes."""
    trials = iter(trials)
    with ExitStack() as stack:
        executor, other = (stack.enter_context(workers(count)) for count in (jobs, 1))
        waiting: dict[Future[Outcome], Future[Outcome] | None] = {}
        """Each run, with the same one in the other process if it is to be done twice."""
        more = True
        while more or waiting:
            while more and len(waiting) < jobs * _WAITING_PER_PROCESS:
                trial = next(trials, None)
                if trial is None:
                    more = False
                else:
                    again = other.submit(run_bounded, trial) if is_repeated(trial) else None
                    waiting[executor.submit(run_bounded, trial)] = again
            for done in wait(waiting, return_when=FIRST_COMPLETED).done:
                again = waiting.pop(done)
                yield done.result() if again is None else compared(done.result(), again.result())


def compared(outcome: Outcome, again: Outcome) -> Outcome:
    """A failure if the same trial came to something else."""
    if outcome.failure is not None or outcome.digest == again.digest:
        return outcome
    message = f"the rolling hashes of two runs are {outcome.digest} and {again.digest}"
    return attrs.evolve(outcome, failure=Failure("not deterministic", message, outcome.simulated_us))


def run_bounded(trial: Trial) -> Outcome:
    """Run it, but not for ever."""
    try:
        return run(trial, cpu_seconds_max=CPU_SECONDS_MORE + trial.duration_us / 1e6 * CPU_SECONDS_PER_SIMULATED)
    finally:
        gc.collect()  # a world is one great cycle
