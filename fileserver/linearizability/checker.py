"""Judges a history: linearizable, or not, or too much work to tell.

Theory of operation
    A history is linearizable if its operations can be put in one order that keeps real time (what returned before
    another was called comes first) and in which each outcome is what the sequential object would give (Herlihy & Wing
    1990). The property is local, so each file is searched for by itself (:mod:`fileserver.linearizability.search`);
    versions count the changes of the whole cluster, which no one file shows, so there are rules over all files besides
    (:mod:`fileserver.linearizability.cluster_facts`).

    The clock. Expiry goes by cluster time, the history by the observer's. They may differ by a bounded slack; with more
    of it more is allowed. What is read from simulated clocks needs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fileserver.linearizability.cluster_facts import contradictions, shown_version
from fileserver.linearizability.history import Operation
from fileserver.linearizability.model import Model
from fileserver.linearizability.prepare import prepare
from fileserver.linearizability.report import Report, Violation, violation_of
from fileserver.linearizability.search import Search, Verdict

CLOCK_SLACK_US: Final = 2_000_000
"""Right for real processes on one machine."""
WORK_LIMIT: Final = 5_000_000
"""Some minutes of work."""


def check(
    operations: Sequence[Operation],
    clock_slack_us: int = CLOCK_SLACK_US,
    work_limit: int = WORK_LIMIT,
    late_slack_us: int | None = None,
) -> Report:
    """Judge a history that begins with no files.

    Args:
        operations: the history, in any order.
        clock_slack_us: how much earlier, and later, than by the observer's clock a file may expire.
        work_limit: how many configurations may be entered, over all files.
        late_slack_us: how much later, if that differs: cluster time stands still while no majority is up.

    Returns:
        A report. ``VIOLATION`` if any file's history can't be put in order or a rule over all files is broken; else
        ``UNDECIDED`` if the limit was reached; else ``LINEARIZABLE``.
    """
    by_file: dict[str, list[Operation]] = {}
    for operation in operations:
        by_file.setdefault(operation.file, []).append(operation)
    elsewhere = {version for operation in operations if (version := shown_version(operation)) is not None}
    facts = tuple(contradictions(operations))
    violations: list[Violation] = []
    undecided = []
    configurations = 0
    for file, its_operations in by_file.items():
        model = Model(clock_slack_us, clock_slack_us if late_slack_us is None else late_slack_us)
        history = prepare(its_operations, elsewhere)
        search = Search(history, model, work_limit - configurations)
        verdict = search.run()
        configurations += search.configurations
        if verdict is Verdict.VIOLATION:
            violations.append(violation_of(file, history, search.dead_end))
        elif verdict is Verdict.UNDECIDED:
            undecided.append(file)
    verdict = Verdict.LINEARIZABLE
    if violations or facts:
        verdict = Verdict.VIOLATION
    elif undecided:
        verdict = Verdict.UNDECIDED
    return Report(verdict, len(operations), len(by_file), configurations, tuple(violations), facts, tuple(undecided))
