"""Decides small histories of one file by trying every order: slow, plain, and made from the contract alone.

It shares nothing with the checker but the history's values. Every permutation of the known operations with any of the
unknown ones is gone through; along each, all states that the file may be in are kept, with every version that a change
may have taken up to a bound. An operation's window in an order is from the last call up to it to the first return from
it on; a file that is given ``e`` microseconds in a window expires between the window's begin plus ``e`` less the early
slack and its end plus ``e`` and the late slack.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, permutations
from typing import NamedTuple

from fileserver.linearizability.history import (
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
)


class File(NamedTuple):
    version: int | None
    counter: int
    contents: bytes = b""
    expires_from: float = math.inf
    expires_until: float = math.inf


class Window(NamedTuple):
    begin: float
    end: float


def is_linearizable(operations: Sequence[Operation], early_slack_us: int, late_slack_us: int) -> bool:
    """Whether there is an order."""
    operations = [one for one in operations if not isinstance(one.outcome, Refused)]
    known = [one for one in operations if one.outcome is not None]
    unknown = [one for one in operations if one.outcome is None and not isinstance(one.action, Read | Stat)]
    top = max((_greatest_version(one) for one in operations), default=0) + len(operations) + 1
    for count in range(len(unknown) + 1):
        for used in combinations(unknown, count):
            for order in permutations([*known, *used]):
                windows = _windows(order)
                if windows is not None and _explains(order, windows, top, early_slack_us, late_slack_us):
                    return True
    return False


def _greatest_version(operation: Operation) -> int:
    expected = operation.action.expected if isinstance(operation.action, Cas | Delete) else 0
    shown = operation.outcome.version if isinstance(operation.outcome, Written | Found | VersionMismatch) else 0
    return max(expected or 0, shown)


def _windows(order: Sequence[Operation]) -> list[Window] | None:
    """The windows in this order; None if it goes against real time."""
    begin, end = -math.inf, math.inf
    begins, ends = [], []
    for operation in order:
        begin = max(begin, operation.called_us)
        begins.append(begin)
    for operation in reversed(order):
        end = min(end, math.inf if operation.returned_us is None else operation.returned_us)
        ends.append(end)
    windows = [Window(*bounds) for bounds in zip(begins, reversed(ends), strict=True)]
    return windows if all(window.begin <= window.end for window in windows) else None


def _explains(order: Sequence[Operation], windows: Sequence[Window], top: int, early: int, late: int) -> bool:
    files = {File(None, 0)}
    for operation, window in zip(order, windows, strict=True):
        files = {
            after
            for file in files
            for seen in _seen(file, window, top)
            for after, reply in _results(seen, operation, window, top, early, late)
            if operation.outcome is None or _agree(operation.outcome, reply, seen, window)
        }
    return bool(files)


def _seen(file: File, window: Window, top: int) -> Iterator[File]:
    """The file, and as it may be if it has expired by now."""
    if window.begin <= file.expires_until:
        yield file
    if window.end >= file.expires_from:
        for counter in range(file.counter + 1, top + 1):
            yield File(None, counter)


def _results(
    file: File, operation: Operation, window: Window, top: int, early: int, late: int
) -> Iterator[tuple[File, Outcome]]:
    """What the contract's table says that the request does and replies, for all versions that it may take."""
    action = operation.action
    if isinstance(action, Write | Append) or (isinstance(action, Cas) and action.expected == (file.version or 0)):
        yield from _puts(file, action, window, top, early, late)
    elif file.version is None:
        yield file, NotFound()
    elif isinstance(action, Cas | Delete) and action.expected not in (None, file.version):
        yield file, VersionMismatch(file.version)
    elif isinstance(action, Delete):
        for version in range(file.counter + 1, top + 1):
            yield File(None, version), Deleted()
    elif isinstance(action, Touch):
        begin, end = _deadline(action.expires_us, window, early, late)
        yield file._replace(expires_from=begin, expires_until=end), Written(file.version)
    else:
        yield file, Found(file.version, len(file.contents), digest_of(file.contents))


def _puts(
    file: File, action: Write | Append | Cas, window: Window, top: int, early: int, late: int
) -> Iterator[tuple[File, Outcome]]:
    """The ways in which the file gets new contents."""
    contents = file.contents + action.contents if isinstance(action, Append) else action.contents
    begin, end = _deadline(action.expires_us, window, early, late)
    if isinstance(action, Append) and action.keep_expiry:
        begin, end = file.expires_from, file.expires_until
    for version in range(file.counter + 1, top + 1):
        yield File(version, version, contents, begin, end), Written(version)


def _deadline(expires_us: int | None, window: Window, early: int, late: int) -> tuple[float, float]:
    """Between when and when a file expires that is given so long in this window."""
    if expires_us is None:
        return math.inf, math.inf
    return window.begin + expires_us - early, window.end + expires_us + late


def _agree(told: Outcome, reply: Outcome, file: File, window: Window) -> bool:
    """Whether the reply is what was told, the seconds that are left within what the windows leave open."""
    if not isinstance(told, Found) or not isinstance(reply, Found):
        return told == reply
    if (told.version, told.size_bytes) != (reply.version, reply.size_bytes):
        return False
    if told.digest is not None and told.digest != reply.digest:
        return False
    if file.expires_from == math.inf:
        return told.seconds_left == 0
    least, most = (file.expires_from - window.end) / 1e6, (file.expires_until - window.begin) / 1e6
    low = 1 if least == -math.inf else max(1, math.ceil(least))
    return low <= told.seconds_left and (most == math.inf or told.seconds_left <= max(1, math.ceil(most)))
