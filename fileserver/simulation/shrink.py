"""Makes a run that fails smaller: a search over what a run is like, with the run itself as a function.

Each step takes one thing away (a kind of fault, a server, a client, bad weather, time) and keeps what still fails in
the same way. Taking anything away changes what is drawn afterwards, so each smaller run is tried with a few seeds more.
What was taken away never comes back, so the search ends: when nothing at all can be taken away, or after so many runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import attrs

from fileserver.simulation import settings
from fileserver.simulation.options import FaultKind
from fileserver.simulation.run import Failure, Trial
from fileserver.simulation.settings import BadSetting, Value

Fails = Callable[[Trial], Failure | None]
"""Runs a trial."""
SEEDS_TRIED = 8
SECOND_US = 1_000_000
CALM: Mapping[str, Value] = {
    "loss": 0.0,
    "repeats": 0.0,
    "long-delays": 0.0,
    "in-order": True,
    "delay-us-max": 1_000,
    "big": 0.0,
    "pipelined": 0.0,
    "expires": 0.0,
    "files": 1,
    "snapshot-log-bytes": 64 << 20,
    "snapshot-chunk-bytes": 240 << 10,
    "append-bytes": 1 << 20,
    "inflight-messages": 256,
    "spare-us": 0,
    "segment-bytes": None,
    "pass-us": 0,
    "notices-crashes": 1.0,
}
"""What a run without anything unusual has."""


@attrs.define(slots=True)
class Search:
    """One search; ``run`` is called ``runs_max`` times at most."""

    run: Fails
    runs_max: int = 1_000
    progress: Callable[[int, Trial], None] = lambda runs, smallest: None
    """Told after each run how many there were, and the smallest trial so far."""
    runs: int = 0

    def smallest(self, trial: Trial, failure: Failure) -> tuple[Trial, Failure]:
        """The smallest trial found that fails like this one, with how it fails."""
        best, why = attrs.evolve(trial, values=settings.values_of(trial.scenario())), failure
        in_vain: set[str] = set()
        """What can't be taken away, as far as is known."""
        is_smaller = False
        while self.runs < self.runs_max:
            found = self._smaller(best, why, in_vain)
            if found is not None:
                best, why = found
                is_smaller = True
            elif is_smaller:
                # What couldn't be taken away before other things were may be now.
                in_vain.clear()
                is_smaller = False
            else:
                break
        return attrs.evolve(best, values=settings.differences(settings.draw(best.seed), best.scenario())), why

    def _smaller(self, trial: Trial, failure: Failure, in_vain: set[str]) -> tuple[Trial, Failure] | None:
        """The first of the smaller ones that fails alike; those before it go to ``in_vain``."""
        for what, candidate in candidates(trial, failure):
            if what in in_vain:
                continue
            try:
                candidate.scenario()
            except BadSetting:
                continue
            for more in range(SEEDS_TRIED):
                if self.runs >= self.runs_max:
                    return None
                attempt = attrs.evolve(candidate, seed=candidate.seed + more)
                self.runs += 1
                why = self.run(attempt)
                self.progress(self.runs, trial)
                if why is not None and why.kind == failure.kind:
                    return attempt, why
            in_vain.add(what)
        return None


def candidates(trial: Trial, failure: Failure) -> Iterator[tuple[str, Trial]]:
    """Trials with something less than one whose values are all given, the boldest first; each with what is less."""
    for shorter in _shorter(trial, failure):
        yield f"{shorter.duration_us} us", shorter
    values = dict(trial.values)
    for changes in _fewer(values):
        if any(values[name] != value for name, value in changes.items()):
            yield settings.show(changes), attrs.evolve(trial, values=values | changes)


def _shorter(trial: Trial, failure: Failure) -> Iterator[Trial]:
    seconds = -(-trial.duration_us // SECOND_US)
    failed_in = failure.at_us // SECOND_US + 1
    for fewer in sorted({failed_in, seconds // 2, seconds * 3 // 4} - {0}):
        if fewer < seconds:
            yield attrs.evolve(trial, duration_us=fewer * SECOND_US)


def _fewer(values: Mapping[str, Value]) -> Iterator[dict[str, Value]]:
    faults = values["faults"]
    assert isinstance(faults, tuple), "kinds of faults"
    kinds = [kind for kind in faults if isinstance(kind, FaultKind)]
    if len(kinds) > 1:
        yield {"faults": ()}
    for kind in kinds:
        yield {"faults": tuple(other for other in kinds if other is not kind)}
    yield dict(CALM)
    for name, calm in CALM.items():
        yield {name: calm}
    for name in ("servers", "clients"):
        number = values[name]
        assert isinstance(number, int), "a number of servers or clients"
        for fewer in range(1, number):
            yield {name: fewer}
    weights = values["weights"]
    assert isinstance(weights, tuple), "numbers"
    for position, weight in enumerate(weights):
        rest = (*weights[:position], 0, *weights[position + 1 :])
        if weight and any(rest):
            yield {"weights": rest}
