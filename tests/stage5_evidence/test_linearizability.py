"""Histories that are known to be good, and minimal bad ones: each kind of violation by its name."""

from __future__ import annotations

import pytest

from fileserver.linearizability.checker import check
from fileserver.linearizability.history import (
    Action,
    Append,
    Cas,
    Delete,
    Deleted,
    Found,
    NotFound,
    Operation,
    Outcome,
    Read,
    Refused,
    Stat,
    Touch,
    VersionMismatch,
    Write,
    Written,
    digest_of,
    found,
    found_by_stat,
)
from fileserver.linearizability.report import describe
from fileserver.linearizability.search import Verdict
from tests.stage5_evidence.brute_force import is_linearizable

SECOND_US = 1_000_000
A, B, C = Write(b"a"), Write(b"b"), Write(b"c")
READ, STAT = Read(), Stat()
GONE = NotFound()
UNKNOWN = None


def at(
    called: float, returned: float | None, action: Action, outcome: Outcome | None, client: int = 0, file: str = "f"
) -> Operation:
    """An operation, its instants in seconds."""
    returned_us = None if returned is None else round(returned * SECOND_US)
    return Operation(client, file, action, round(called * SECOND_US), returned_us, outcome)


def ok(version: int) -> Written:
    return Written(version)


def in_turn(*steps: tuple[Action, Outcome | None], file: str = "f") -> list[Operation]:
    """Operations that don't overlap, a second each, two apart; those of unknown outcome go on for ever."""
    return [
        at(2 * place, None if outcome is None else 2 * place + 1, action, outcome, client=place, file=file)
        for place, (action, outcome) in enumerate(steps)
    ]


FOR_1_S, FOR_3_S = Write(b"a", 1 * SECOND_US), Write(b"a", 3 * SECOND_US)

GOOD: dict[str, list[Operation]] = {
    "nothing happened": [],
    "no file at first": in_turn((READ, GONE), (STAT, GONE), (Delete(), GONE), (Touch(), GONE), (Cas(3, b"a"), GONE)),
    "read what was written": in_turn((A, ok(1)), (READ, found(1, b"a")), (STAT, found_by_stat(1, 1))),
    "overwritten": in_turn((A, ok(1)), (B, ok(2)), (READ, found(2, b"b"))),
    "other files take versions": in_turn((A, ok(7)), (B, ok(12)), (READ, found(12, b"b"))),
    "cas makes a file": in_turn((Cas(0, b"a"), ok(1)), (READ, found(1, b"a"))),
    "cas replaces": in_turn((A, ok(1)), (Cas(1, b"b"), ok(2)), (Cas(1, b"c"), VersionMismatch(2))),
    "cas finds a file": in_turn((A, ok(1)), (Cas(0, b"b"), VersionMismatch(1)), (READ, found(1, b"a"))),
    "deleted": in_turn((A, ok(1)), (Delete(), Deleted()), (READ, GONE), (B, ok(3)), (READ, found(3, b"b"))),
    "deleted by version": in_turn((A, ok(1)), (Delete(2), VersionMismatch(1)), (Delete(1), Deleted()), (READ, GONE)),
    "appended": in_turn((Append(b"a"), ok(1)), (Append(b"b"), ok(2)), (READ, found(2, b"ab"))),
    "touched": in_turn((A, ok(1)), (Touch(), ok(1)), (READ, found(1, b"a"))),
    "refused without a trace": in_turn((A, ok(1)), (B, Refused()), (READ, found(1, b"a"))),
    "unknown, never took effect": in_turn((A, ok(1)), (B, UNKNOWN), (READ, found(1, b"a"))),
    "unknown, took effect": in_turn((A, ok(1)), (B, UNKNOWN), (READ, found(2, b"b"))),
    "unknown, took effect late": in_turn((A, ok(1)), (B, UNKNOWN), (READ, found(1, b"a")), (READ, found(2, b"b"))),
    "unknown deletion": in_turn((A, ok(1)), (Delete(), UNKNOWN), (READ, found(1, b"a")), (READ, GONE)),
    "unknown write for a deletion": in_turn((A, UNKNOWN), (Delete(), Deleted()), (READ, GONE)),
    "unknown append between": in_turn(
        (A, ok(1)), (Append(b"b"), UNKNOWN), (Append(b"c"), ok(3)), (READ, found(3, b"abc"))
    ),
    "unknown read": in_turn((A, ok(1)), (READ, UNKNOWN), (STAT, UNKNOWN), (B, ok(2))),
    "unknown touch where nothing expires": in_turn((A, ok(1)), (Touch(), UNKNOWN), (READ, found(1, b"a"))),
    "concurrent reads see either": [
        at(0, 1, A, ok(1)),
        at(2, 9, B, ok(2)),
        at(3, 4, READ, found(1, b"a"), 1),
        at(3, 4, READ, found(2, b"b"), 2),
    ],
    "concurrent writes in either order": [
        at(0, 9, A, ok(2)),
        at(0, 9, B, ok(1), 1),
        at(10, 11, READ, found(2, b"a")),
    ],
    "concurrent deletions of two files one after the other": [
        at(0, 1, A, ok(1)),
        at(2, 9, Delete(), Deleted(), 1),
        at(2, 6, Delete(), Deleted(), 2),
        at(2, 6, B, ok(3), 3),
        at(10, 11, READ, GONE),
    ],
    "what touches in time may be in either order": [at(0, 1, A, ok(1)), at(1, 2, READ, GONE, 1)],
    "there until it expires": [at(0, 0, FOR_3_S, ok(1)), at(1, 1, READ, found(1, b"a", 2)), at(4, 4, READ, GONE)],
    "an expiry takes a version": [at(0, 0, FOR_1_S, ok(1)), at(2, 2, B, ok(3)), at(3, 3, READ, found(3, b"b"))],
    "never expires any more": [at(0, 0, FOR_1_S, ok(1)), at(0.5, 0.5, Touch(), ok(1)), at(9, 9, READ, found(1, b"a"))],
    "append keeps the expiry": [
        at(0, 0, FOR_3_S, ok(1)),
        at(1, 1, Append(b"b"), ok(2)),
        at(2, 2, READ, found(2, b"ab", 1)),
        at(4, 4, READ, GONE),
    ],
    "append sets an expiry": [
        at(0, 0, A, ok(1)),
        at(1, 1, Append(b"b", 1 * SECOND_US, keep_expiry=False), ok(2)),
        at(3, 3, READ, GONE),
    ],
    "unknown touch lets it live": [
        at(0, 0, FOR_1_S, ok(1)),
        at(0.5, None, Touch(), UNKNOWN),
        at(5, 5, READ, found(1, b"a")),
    ],
    "unknown expiring write ends it": [
        at(0, 0, A, ok(1)),
        at(1, None, Write(b"b", 1 * SECOND_US), UNKNOWN),
        at(5, 5, READ, GONE),
    ],
    "either while the write may have been early or late": [
        at(0, 5, FOR_1_S, ok(1)),
        at(5.5, 5.5, READ, found(1, b"a", 1), 1),
        at(5.7, 5.7, READ, GONE, 1),
    ],
}

BAD: dict[str, list[Operation]] = {
    "stale read": in_turn((A, ok(1)), (B, ok(2)), (READ, found(1, b"a"))),
    "stale stat": in_turn((A, ok(1)), (Append(b"b"), ok(2)), (STAT, found_by_stat(1, 1))),
    "stale read of no file": in_turn((A, ok(1)), (READ, GONE)),
    "stale version in an error": in_turn((A, ok(1)), (B, ok(2)), (Cas(7, b"c"), VersionMismatch(1))),
    "lost write": in_turn((A, ok(1)), (B, ok(2)), (Cas(1, b"c"), ok(3))),
    "lost deletion": in_turn((A, ok(1)), (Delete(), Deleted()), (Delete(), Deleted())),
    "lost append": in_turn(
        (Append(b"a"), ok(1)), (Append(b"b"), ok(2)), (Append(b"c"), ok(3)), (READ, found(3, b"ac"))
    ),
    "write applied twice": in_turn((A, ok(1)), (B, ok(2)), (READ, found(3, b"a"))),
    "append applied twice": in_turn((Append(b"a"), ok(1)), (READ, found(2, b"aa"))),
    "append applied twice in one": in_turn((Append(b"a"), ok(1)), (READ, found(1, b"aa"))),
    "unknown append applied twice": in_turn((A, ok(1)), (Append(b"b"), UNKNOWN), (READ, found(3, b"abb"))),
    "unknown write applied twice": in_turn(
        (A, UNKNOWN), (READ, found(1, b"a")), (Delete(), Deleted()), (READ, found(3, b"a"))
    ),
    "unknown deletion applied twice": in_turn(
        (A, ok(1)), (Delete(), UNKNOWN), (READ, GONE), (B, ok(3)), (READ, found(3, b"b")), (READ, GONE)
    ),
    "cas on the wrong version": in_turn((A, ok(1)), (Cas(3, b"b"), ok(2))),
    "cas on a deleted version": in_turn((A, ok(1)), (Delete(), Deleted()), (Cas(1, b"b"), ok(3))),
    "cas makes a file that is there": in_turn((A, ok(1)), (Cas(0, b"b"), ok(2))),
    "two cas win": [at(0, 1, A, ok(1)), at(2, 9, Cas(1, b"b"), ok(2), 1), at(2, 9, Cas(1, b"c"), ok(3), 2)],
    "two make the file": [at(0, 9, Cas(0, b"b"), ok(1), 1), at(0, 9, Cas(0, b"c"), ok(2), 2)],
    "cas refused on the right version": in_turn((A, ok(1)), (Cas(1, b"b"), VersionMismatch(1))),
    "cas to make a file finds none": in_turn((Cas(0, b"a"), GONE)),
    "cas finds no file where one is": in_turn((A, ok(1)), (Cas(1, b"b"), GONE)),
    "failed cas that took effect": in_turn((A, ok(1)), (Cas(4, b"b"), VersionMismatch(1)), (READ, found(2, b"b"))),
    "refused write that took effect": in_turn((A, ok(1)), (B, Refused()), (READ, found(2, b"b"))),
    "version reused after delete": in_turn((A, ok(1)), (Delete(), Deleted()), (B, ok(1))),
    "version of the deletion reused": in_turn((A, ok(1)), (Delete(), Deleted()), (B, ok(2))),
    "version of the expiry reused": [at(0, 0, FOR_1_S, ok(1)), at(2, 2, B, ok(2))],
    "version given twice": [at(0, 9, A, ok(1)), at(0, 9, B, ok(1), 1)],
    "version goes back": in_turn((A, ok(2)), (B, ok(1))),
    "version stays at a write": in_turn((A, ok(1)), (READ, found(1, b"a")), (B, ok(1))),
    "version changed by a touch": in_turn((A, ok(1)), (Touch(), ok(2)), (READ, found(2, b"a"))),
    "version 0": in_turn((A, ok(0))),
    "phantom contents": in_turn((A, ok(1)), (READ, found(1, b"x"))),
    "phantom version": in_turn((A, ok(1)), (READ, found(5, b"a"))),
    "phantom file": in_turn((READ, found(1, b""))),
    "phantom size": in_turn((A, ok(1)), (STAT, found_by_stat(1, 2))),
    "phantom file of version 0": in_turn((STAT, Found(0, 0, None))),
    "error with version 0": in_turn((Cas(3, b"a"), VersionMismatch(0))),
    "contents of another version": in_turn((A, ok(1)), (B, ok(2)), (READ, found(2, b"a"))),
    "read before it was written": in_turn((READ, found(1, b"a")), (A, ok(1))),
    "read before an unknown write": in_turn((READ, found(1, b"a")), (A, UNKNOWN)),
    "non-monotonic reads across clients": [
        at(0, 1, A, ok(1)),
        at(2, 9, B, ok(2)),
        at(3, 4, READ, found(2, b"b"), 1),
        at(5, 6, READ, found(1, b"a"), 2),
    ],
    "non-monotonic reads of an unknown write": in_turn(
        (A, ok(1)), (B, UNKNOWN), (READ, found(2, b"b")), (READ, found(1, b"a"))
    ),
    "two readers disagree on the order": [
        at(0, 9, A, ok(1)),
        at(0, 9, B, ok(2), 1),
        at(1, 2, READ, found(1, b"a"), 2),
        at(3, 4, READ, found(2, b"b"), 2),
        at(5, 6, READ, found(1, b"a"), 3),
    ],
    "delete undone": in_turn((A, ok(1)), (Delete(), Deleted()), (READ, found(1, b"a"))),
    "unknown deletion undone": in_turn((A, ok(1)), (Delete(), UNKNOWN), (READ, GONE), (READ, found(1, b"a"))),
    "deletion of no file": in_turn((Delete(), Deleted())),
    "deletion of another version": in_turn((A, ok(1)), (Delete(3), Deleted())),
    "deletion refused on the right version": in_turn((A, ok(1)), (Delete(1), VersionMismatch(1))),
    "deletion of any version refused for its version": in_turn((A, ok(1)), (Delete(), VersionMismatch(1))),
    "touch of no file": in_turn((Touch(), ok(1))),
    "append forgets what was there": in_turn((A, ok(1)), (Append(b"b"), ok(2)), (READ, found(2, b"b"))),
    "appends in the other order": in_turn(
        (Append(b"a"), ok(1)), (Append(b"b"), ok(2)), (Append(b"c"), ok(3)), (READ, found(3, b"acb"))
    ),
    "append to what was deleted": in_turn(
        (A, ok(1)), (Delete(), Deleted()), (Append(b"b"), ok(3)), (READ, found(3, b"ab"))
    ),
    "expired early": [at(0, 0, FOR_3_S, ok(1)), at(2, 2, READ, GONE)],
    "expired late": [at(0, 0, FOR_1_S, ok(1)), at(2, 2, READ, found(1, b"a", 1))],
    "back from the dead": [
        at(0, 5, FOR_1_S, ok(1)),
        at(5.1, 5.1, READ, GONE, 1),
        at(5.2, 5.2, READ, found(1, b"a", 1), 1),
    ],
    "expires though touched": [at(0, 0, FOR_1_S, ok(1)), at(0.5, 0.5, Touch(), ok(1)), at(2, 2, READ, GONE)],
    "expires though written anew": [at(0, 0, FOR_1_S, ok(1)), at(0.5, 0.5, B, ok(2)), at(2, 2, READ, GONE)],
    "append resets the expiry": [
        at(0, 0, FOR_1_S, ok(1)),
        at(0.5, 0.5, Append(b"b"), ok(2)),
        at(2, 2, STAT, found_by_stat(2, 2)),
    ],
    "touch after the expiry": [at(0, 0, FOR_1_S, ok(1)), at(2, 2, Touch(), ok(1))],
    "too many seconds left": [at(0, 0, FOR_3_S, ok(1)), at(1, 1, READ, found(1, b"a", 3))],
    "too few seconds left": [at(0, 0, FOR_3_S, ok(1)), at(1, 1, READ, found(1, b"a", 1))],
    "seconds left of what never expires": in_turn((A, ok(1)), (READ, found(1, b"a", 1))),
    "never expires though it was to": [at(0, 0, FOR_3_S, ok(1)), at(1, 1, READ, found(1, b"a", 0))],
    "a write that finds no file": in_turn((A, GONE)),
    "a read that writes": in_turn((READ, ok(1))),
    "a deletion that writes": in_turn((A, ok(1)), (Delete(), ok(2))),
    "a write that deletes": in_turn((A, ok(1)), (B, Deleted())),
    "a write that reads": in_turn((A, ok(1)), (A, found(1, b"a"))),
}  # fmt: skip

BAD_OVER_FILES: dict[str, list[Operation]] = {
    "one version in two files": [at(0, 1, A, ok(1)), at(0, 1, B, ok(1), 1, "g")],
    "a version seen in two files": [
        at(0, 1, A, ok(1)),
        at(0, None, B, UNKNOWN, 1, "g"),
        at(2, 3, READ, found(1, b"b"), 2, "g"),
    ],
    "versions of two files against real time": [at(0, 1, A, ok(2)), at(2, 3, B, ok(1), 1, "g")],
    "a version that was seen in another file before": [
        at(0, None, A, UNKNOWN),
        at(1, 2, READ, found(5, b"a")),
        at(3, 4, B, ok(4), 1, "g"),
    ],
    "version of a deletion reused in another file": [
        at(0, 1, A, ok(1)),
        at(2, 3, Delete(), Deleted()),
        at(4, 5, B, ok(2), 1, "g"),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_good_histories_are_accepted(name: str) -> None:
    report = check(GOOD[name], clock_slack_us=0)
    assert report.is_good, "\n".join(report.lines())
    assert is_linearizable(GOOD[name], 0, 0)


@pytest.mark.parametrize("name", BAD)
def test_planted_violations_are_found_by_the_search(name: str) -> None:
    report = check(BAD[name], clock_slack_us=0)
    assert report.verdict is Verdict.VIOLATION
    [violation] = report.violations
    assert violation.file == "f"
    assert violation.stuck
    assert not is_linearizable(BAD[name], 0, 0)
    for left_out in range(len(BAD[name])):  # they are violations of what they are called, not of more
        rest = [one for place, one in enumerate(BAD[name]) if place != left_out]
        assert bool(check(rest, clock_slack_us=0).violations) != is_linearizable(rest, 0, 0)


@pytest.mark.parametrize("name", BAD_OVER_FILES)
def test_planted_violations_are_found_over_files(name: str) -> None:
    report = check(BAD_OVER_FILES[name], clock_slack_us=0)
    assert report.verdict is Verdict.VIOLATION
    assert not report.violations, "each file by itself is well"
    assert report.facts


def test_there_are_forty_kinds_of_violations_and_more() -> None:
    assert len(BAD) + len(BAD_OVER_FILES) >= 40


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("phantom contents", "nobody wrote what was read"),
        ("read before it was written", "read before anybody wrote it"),
        ("version given twice", "version 1 was given twice"),
        ("version 0", "there is no version 0"),
        ("contents of another version", "version 2 has two contents"),
        ("version goes back", "version 1 is not above 2"),
    ],
)
def test_rules_over_all_files_say_what_is_wrong(name: str, fact: str) -> None:
    assert any(line.startswith(fact) for line in check(BAD[name], clock_slack_us=0).facts)


def test_slack_moves_the_deadline_both_ways() -> None:
    early, late = BAD["expired early"], BAD["expired late"]
    assert check(early, clock_slack_us=1 * SECOND_US).is_good
    assert check(late, clock_slack_us=1 * SECOND_US).is_good
    assert check(late, clock_slack_us=0, late_slack_us=1 * SECOND_US).is_good
    assert not check(early, clock_slack_us=0, late_slack_us=9 * SECOND_US).is_good


def test_slack_brings_nothing_back_from_the_dead() -> None:
    assert not check(BAD["back from the dead"], clock_slack_us=60 * SECOND_US).is_good


def test_what_cannot_be_decided_is_not_good() -> None:
    operations = [*GOOD["overwritten"], at(20, 21, C, ok(3), 0, "g"), at(22, 23, READ, found(3, b"c"), 0, "g")]
    report = check(operations, clock_slack_us=0, work_limit=4)
    assert (report.verdict, report.is_good) == (Verdict.UNDECIDED, False)
    assert report.undecided == ("g",)
    assert [*report.lines()] == [
        "undecided: 5 operations on 2 files, 5 configurations",
        "file 'g': the limit of work was reached",
    ]


def test_violations_outweigh_what_cannot_be_decided() -> None:
    operations = [*BAD["stale read"], *in_turn((A, ok(11)), (READ, found(11, b"a")), file="g")]
    assert check(operations, clock_slack_us=0, work_limit=3).verdict is Verdict.VIOLATION


def test_a_report_tells_the_story() -> None:
    history = in_turn((A, ok(3)), (Cas(3, b"b"), ok(4)), (READ, GONE))
    assert [*check(history, clock_slack_us=0).lines()] == [
        "violation: 3 operations on 1 files, 2 configurations",
        "file 'f': 2 operations can be put in order, but no more",
        "  [0.000000 .. 1.000000] client 0: write b'a' -> version 3, leaving version 3",
        "  [2.000000 .. 3.000000] client 1: cas version 3 b'b' -> version 4, leaving version 4",
        f"  then the file has version 4, 1 bytes of digest {digest_of(b'b')[:8]}, and none of these can come next:",
        "    [4.000000 .. 5.000000] client 2: read -> no such file",
    ]


def test_a_report_shows_the_end_of_a_long_prefix() -> None:
    history = in_turn(*((Write(b"%d" % place), ok(place + 1)) for place in range(30)), (READ, found(23, b"22")))
    lines = [*check(history, clock_slack_us=0).lines()]
    assert "  ... 13 operations ..." in lines
    assert lines[-2:] == [
        "  and these, called later, show a version that would be gone after any change:",
        f"    {describe(history[-1])}",
    ]
    assert len(lines) == 17


def test_a_report_tells_of_no_file_and_of_expiry() -> None:
    history = in_turn((A, ok(1)), (Delete(), Deleted()), (READ, found(5, b"a")))
    text = "\n".join(check(history, clock_slack_us=0).lines())
    assert "leaving no file" in text
    assert "there is no file (last version 2)" in text
    text = "\n".join(check(BAD["too few seconds left"], clock_slack_us=0).lines())
    assert "and expires between 3.000000 and 3.000000" in text


@pytest.mark.parametrize(
    ("operation", "line"),
    [
        (
            at(1, None, Write(b"x" * 99), None),
            f"[1.000000 .. ?] client 0: write {b'x' * 24!r}... (99 bytes) -> unknown",
        ),
        (at(1, 2, Delete(), Deleted(), 7), "[1.000000 .. 2.000000] client 7: delete -> done"),
        (at(1, 2, Delete(4), VersionMismatch(3)), "delete version 4 -> not done: the version is 3"),
        (at(1, 2, Append(b"x"), Refused()), "append b'x' -> refused"),
        (at(1, 2, Append(b"x", 5, keep_expiry=False), ok(3)), "append b'x' for 5e-06 s -> version 3"),
        (at(1, 2, Append(b"x", None, keep_expiry=False), ok(3)), "append b'x' -> version 3"),
        (at(1, 2, Touch(), GONE), "touch for ever -> no such file"),
        (at(1, 2, Touch(SECOND_US), ok(3)), "touch for 1 s -> version 3"),
        (at(1, 2, STAT, found_by_stat(3, 5, 2)), "stat -> version 3, 5 bytes, 2 s left"),
    ],
)
def test_operations_are_told_in_a_line(operation: Operation, line: str) -> None:
    assert describe(operation).endswith(line)
