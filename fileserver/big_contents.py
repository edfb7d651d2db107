"""Having one change with a big content replicated: in pieces, as several submissions.

Theory of operation
    The content goes ahead in PART commands, a few on their way at a time, and the command that uses them follows
    (:mod:`fileserver.uploads`). They take the bulk lane, so that other changes of this server go between them. Its time
    begins anew with every piece that is applied.

    When nothing is applied for the whole timeout, what was not proposed yet is withdrawn, the last submission first, so
    that the command can't be proposed without its pieces. If the command is among what was withdrawn, the change is
    certainly not made, and a DROP frees the pieces that are staged already. Otherwise nobody can tell yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from fileserver.backend import Failure, Upload
from fileserver.commands import DROP, PART, Result, encode_batch
from raftnode.node import Node
from raftnode.runtime import Runtime, Signal
from raftnode.submissions import Lane, Submission

PIECES_UNDER_WAY_MAX: Final = 16
"""Pieces of one big content that are submitted and not applied."""


class TimedOut(Protocol):
    """Makes the failure to tell the client."""

    def __call__(self, *, applied_maybe: bool) -> Failure:
        """Say that the time is up, and whether the change may have been made all the same."""


async def carry_out(
    upload: Upload, number: int, node: Node, runtime: Runtime, timeout_us: int, timed_out: TimedOut
) -> None:
    """Submit a change with a big content piece by piece, and answer its client.

    Args:
        upload: the change.
        number: of this upload, no other of the node's session has it.
        node: what it is submitted to.
        runtime: its time.
        timeout_us: so long nothing of it may be applied, in microseconds.
        timed_out: makes the answer if that comes about.
    """
    progress = _Progress(runtime)
    submissions: list[Submission] = []
    results: list[Result] = []

    def submit(payload: bytes, done: Callable[[list[Result]], None]) -> None:
        submissions.append(node.submit(payload, done, Lane.BULK))

    def finished(last: list[Result]) -> None:
        results.extend(last)
        progress.applied(last)

    for position, piece in enumerate(upload.pieces):
        submit(encode_batch((PART, b"", number, 0, piece)), progress.applied)
        if not await progress.reaches(position + 1 - PIECES_UNDER_WAY_MAX, timeout_us):
            break
    else:
        submit(encode_batch(upload.command(number)), finished)
        await progress.reaches(len(submissions), timeout_us)
    if results:
        upload.applied(results)
    else:
        withdrawn = [node.withdraw(submission) for submission in reversed(submissions[progress.count :])]
        command_is_out = len(submissions) > len(upload.pieces) and not withdrawn[0]
        if not command_is_out:
            node.submit(encode_batch((DROP, b"", number, 0, b"")), _ignore, Lane.BULK)
        upload.failed(timed_out(applied_maybe=command_is_out))
    upload.flush()


class _Progress:
    """How many of a row of submissions have been applied."""

    def __init__(self, runtime: Runtime) -> None:
        self.count = 0
        self._runtime = runtime
        self._news: Signal = runtime.signal()

    def applied(self, _results: list[Result]) -> None:
        """One more has been."""
        self.count += 1
        self._news.set()

    async def reaches(self, wanted: int, timeout_us: int) -> bool:
        """Wait until so many have been; False when none has been for the whole timeout."""
        runtime = self._runtime
        await runtime.sleep(0)
        while self.count < wanted:
            count = self.count
            self._news = runtime.signal()
            await runtime.wait_until(self._news, runtime.now_us() + timeout_us)
            if self.count == count:
                return False
        return True


def _ignore(_results: list[Result]) -> None:
    """Nobody waits for this one's result."""
