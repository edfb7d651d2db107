"""Requests that only look, evaluated against the store.

Theory of operation
    :meth:`StoreReader.evaluate` answers a read, stat, list or status from the store as it stands. Three things make it
    answer later:

    * *Due files.* "Not found" is only ever said from applied state. A file whose deadline has passed on the
      extrapolated clock, but which the store still has, is waited for (`Backend.wait_for_clock`) and looked up again.
      A list looks for such files on its whole way, waits for the last of them, and then starts again; what has
      become due meanwhile is listed with its last second, so there is no third time.
    * *Long lists* are made in slices from a view of the store, some at a time (:class:`ListJobs`).
    * *A client that doesn't take its replies*: its further reads are left with its connection.

Invariants
    Each request that is evaluated gets exactly one answer, unless its client has gone.
    No step takes more than about `LIST_SLICE_FILES` times 2 us.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from fileserver.backend import Backend, Failure, Flush, Waiter
from fileserver.listing import StoreView
from fileserver.records import Record
from fileserver.replies import FILE_NOT_FOUND, contents_reply, list_line, sized_reply, stat_reply
from fileserver.requests import LIST, READ, STATUS, Request

LIST_SLICE_FILES: Final = 500
ACTIVE_LISTS_MAX: Final = 4
"""How many long lists are made at a time: each open view makes every change a little dearer, and holds memory."""
DEFER_BYTES: Final = 1024 * 1024
"""A read is left for later while its client has more unsent replies than this."""


class ListJob:
    """One `list` request on its way."""

    __slots__ = (
        "_backend",
        "_clock_us",
        "_due_us",
        "_has_waited",
        "_number",
        "_pieces",
        "_prefix",
        "_restart",
        "_view",
        "_waiter",
    )

    def __init__(
        self, backend: Backend, waiter: Waiter, number: int, prefix: bytes, restart: Callable[[ListJob], None]
    ) -> None:
        self._backend = backend
        self._waiter = waiter
        self._number = number
        self._prefix = prefix
        self._restart = restart
        self._view: StoreView | None = None
        self._clock_us = 0  # The extrapolated clock at the view's instant.
        self._due_us = 0  # The latest deadline found that lies before it.
        self._has_waited = False
        self._pieces: list[bytes] = []

    def step(self) -> bool:
        """Make the next slice; True when the job is done, or goes on by itself later."""
        view = self._view
        if view is None:
            self._clock_us = self._backend.clock_us()
            view = self._view = self._backend.store.view(self._prefix)
        if self._waiter.lost:
            view.close()
            return True
        for _ in range(2):
            # The second time is for the end after a short slice: most lists are done in one step.
            files = view.next_slice(LIST_SLICE_FILES)
            if not files:
                self._finish()
                return True
            self._take(files)
            if len(files) == LIST_SLICE_FILES:
                break
        return False

    def _take(self, files: list[tuple[bytes, Record]]) -> None:
        clock_us = self._clock_us
        self._pieces.append(b"".join([list_line(name, record, clock_us) for name, record in files]))
        if not self._has_waited:
            due_us = max((record.deadline_us for _, record in files if record.deadline_us <= clock_us), default=0)
            self._due_us = max(self._due_us, due_us)

    def _finish(self) -> None:
        if self._due_us:
            self._wait()
        else:
            self._waiter.answer_pieces(self._number, sized_reply(b"LIST", self._pieces))

    def _wait(self) -> None:
        """Start again once the files that time has run out for are gone."""
        due_us = self._due_us
        self._has_waited = True
        self._view = None
        self._due_us = 0
        self._pieces = []
        self._backend.wait_for_clock(due_us, self._go_on)

    def _go_on(self, failure: Failure | None) -> None:
        if failure is None:
            self._restart(self)
        else:
            self._waiter.answer(self._number, failure.reply())


class ListJobs:
    """The lists on their way, each of which gets a slice in turn."""

    __slots__ = ("_active", "_waiting", "_wake")

    def __init__(self, wake: Callable[[], None]) -> None:
        self._active: deque[ListJob] = deque()
        self._waiting: deque[ListJob] = deque()
        self._wake = wake

    def __len__(self) -> int:
        """Count the lists that aren't done."""
        return len(self._active) + len(self._waiting)

    def add(self, job: ListJob) -> None:
        """Take a list: a short one is done at once, for a longer one `wake` is called, and `turn` is to follow."""
        if len(self._active) >= ACTIVE_LISTS_MAX:
            self._waiting.append(job)
        elif not job.step():
            self._active.append(job)
            self._wake()

    def turn(self) -> bool:
        """Make one slice of the list whose turn it is; True when there is more to do.

        There may be nothing to do: `wake` is called for every list, also while turns are being taken.
        """
        if not self._active:
            return False
        job = self._active.popleft()
        if not job.step():
            self._active.append(job)
        elif self._waiting:
            self._active.append(self._waiting.popleft())
        return bool(self._active)


class StoreReader:
    """Evaluates reads for one service's connections."""

    __slots__ = ("_backend", "_flush", "lists")

    def __init__(self, backend: Backend, flush: Flush, wake: Callable[[], None]) -> None:
        self._backend = backend
        self._flush = flush
        self.lists: Final = ListJobs(wake)

    def evaluate(self, waiter: Waiter, number: int, request: Request) -> None:
        """Answer the request from the store's present state, or see to it that it is answered later."""
        if waiter.unsent_bytes > DEFER_BYTES:
            waiter.defer(number, request)
            return
        operation = request[0]
        if operation == LIST:
            self.lists.add(ListJob(self._backend, waiter, number, request[1], self._restart_list))
            return
        if operation == STATUS:
            status = json.dumps(self._backend.status()).encode()
            waiter.answer_pieces(number, sized_reply(b"STATUS", [status]))
            return
        backend = self._backend
        record = backend.store.records.get(request[1])
        if record is None:
            waiter.answer(number, FILE_NOT_FOUND)
            return
        clock_us = 0
        deadline_us = record[1]
        if deadline_us:
            clock_us = backend.clock_us()
            if deadline_us <= clock_us:
                backend.wait_for_clock(deadline_us, self._evaluate_again(waiter, number, request))
                return
        if operation != READ:
            waiter.answer(number, stat_reply(Record._make(record), clock_us))
            return
        reply = contents_reply(record, clock_us)
        if isinstance(reply, bytes):
            waiter.answer(number, reply)
        else:
            waiter.answer_pieces(number, reply)

    def evaluate_all(self, waiters: Sequence[Waiter], numbers: Sequence[int], requests: Sequence[Request]) -> None:
        """Do so with many, which stand in the same places of the three."""
        find = self._backend.store.records.get
        for waiter, number, request in zip(waiters, numbers, requests, strict=True):
            if request[0] == READ and waiter.unsent_bytes <= DEFER_BYTES:
                record = find(request[1])
                if record is not None and not record[1]:
                    # The usual case, on a short way: a file that never expires.
                    reply = contents_reply(record, 0)
                    if isinstance(reply, bytes):
                        waiter.answer(number, reply)
                        continue
            self.evaluate(waiter, number, request)

    def _evaluate_again(self, waiter: Waiter, number: int, request: Request) -> Callable[[Failure | None], None]:
        def evaluate(failure: Failure | None) -> None:
            if failure is None:
                self.evaluate(waiter, number, request)
            else:
                waiter.answer(number, failure.reply())
            self._flush()

        return evaluate

    def _restart_list(self, job: ListJob) -> None:
        self.lists.add(job)
        self._flush()
