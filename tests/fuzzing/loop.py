"""Our own fuzzing loop: changes inputs, has them judged, keeps those that get somewhere new.

Theory of operation
    The corpus begins with the target's examples. Each input is one of the corpus, changed
    (:mod:`tests.fuzzing.mutation`), in half of the cases with its checksums made right again. Two things make an input
    worth keeping: a trail that no other left (what the target returned, or where it raised), which every input
    is asked for, and lines reached for the first time, for which one input in `WATCHED_EVERY` is traced, and
    each with a new trail.

Invariants
    What is run depends on the target, the seed and the count alone: not on the time, nor on what is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from random import Random
from typing import Final

import attrs

from tests.fuzzing.judging import Judge, Summary
from tests.fuzzing.line_coverage import LineCoverage
from tests.fuzzing.mutation import mutate
from tests.fuzzing.target import Target

WATCHED_EVERY: Final = 16
PROGRESS_EVERY: Final = 1024
CORPUS_COUNT_MAX: Final = 2000
_NEWEST_COUNT: Final = 24


@attrs.define(eq=False)
class Fuzzer:
    """The loop over one target; see the module's docstring."""

    target: Target
    seed: str
    judge: Judge = attrs.field(init=False)
    _random: Random = attrs.field(init=False)
    _coverage: LineCoverage = attrs.field(init=False)
    _corpus: list[bytes] = attrs.Factory(list)
    _trails: set[Hashable] = attrs.Factory(set)

    def __attrs_post_init__(self) -> None:
        """Begins before the first input."""
        self.judge = Judge(self.target)
        self._random = Random(f"{self.target.name} {self.seed}")
        self._coverage = LineCoverage(self.target.modules)

    def run(
        self,
        inputs_count: int | None = None,
        seconds: float | None = None,
        on_progress: Callable[[Summary], None] | None = None,
        *,
        stops_at_finding: bool = False,
    ) -> Summary:
        """Runs so many inputs, the examples among them, or for so long, whichever ends first."""
        started = time.monotonic()
        summary = self.judge.summary
        with self.target.environment(), self.judge.watchdog.watching():
            for example in self.target.examples():
                self._corpus.append(example)
                self._try(example, watched=True)
            while inputs_count is None or summary.inputs_count < inputs_count:
                count = summary.inputs_count
                self._try(self._next_input(), watched=count % WATCHED_EVERY == 0)
                if count % PROGRESS_EVERY == 0:
                    summary.seconds = time.monotonic() - started
                    if on_progress is not None:
                        on_progress(summary)
                    if seconds is not None and summary.seconds >= seconds:
                        break
                if stops_at_finding and summary.findings:
                    break
        summary.seconds = time.monotonic() - started
        return summary

    def _next_input(self) -> bytes:
        random, corpus = self._random, self._corpus
        if random.random() < 0.3:
            base = corpus[-1 - int(random.random() * min(len(corpus), _NEWEST_COUNT))]
        else:
            base = corpus[int(random.random() * len(corpus))]
        return changed(self.target, base, corpus[int(random.random() * len(corpus))], random)

    def _try(self, data: bytes, *, watched: bool) -> None:
        """Has an input judged, and keeps it if it is new in some way and nothing is wrong with it."""
        findings_count = len(self.judge.summary.findings)
        trail = self.judge.judge(data)
        is_new = trail not in self._trails
        self._trails.add(trail)
        if len(self.judge.summary.findings) > findings_count:
            return
        if watched or is_new:
            is_new |= self._reaches_new_lines(data)
        if is_new:
            self.judge.weigh(data)
            if len(self._corpus) < CORPUS_COUNT_MAX:
                self._corpus.append(data)
                self.judge.summary.corpus_count = len(self._corpus)

    def _reaches_new_lines(self, data: bytes) -> bool:
        before = self._coverage.reached_count
        with self._coverage.watching():
            self.judge.run(data)
        self.judge.summary.lines_count = self._coverage.reached_count
        return self._coverage.reached_count > before


def changed(target: Target, base: bytes, other: bytes, random: Random) -> bytes:
    """An input made of two: changed, and in half of the cases with its checksums made right."""
    data = mutate(base, other, random, target.tokens, target.size_bytes_max)
    if target.repair is not None and random.random() < 0.5:
        data = target.repair(data, random)
    return data
