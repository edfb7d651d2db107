"""Processes that work for a command, and end with it.

They are spawned, so they inherit nothing that could differ from run to run. Each watches a pipe whose other end the
command has: when that is closed, because the command gives up or has been ended, by whatever signal, they end at once,
whatever they are at. ^C is for the command alone.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection


@contextmanager
def workers(count: int) -> Iterator[ProcessPoolExecutor]:
    """So many processes, until the block is left: at once if by an exception."""
    context = get_context("spawn")
    wanted, wanting = context.Pipe(duplex=False)
    with wanted, wanting, ProcessPoolExecutor(count, context, _begin, (wanted,)) as pool:
        try:
            yield pool
        except BaseException:
            wanting.close()
            raise


def _begin(wanted: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_when_unwanted, args=(wanted,), name="ends with the command", daemon=True).start()


def _end_when_unwanted(wanted: Connection) -> None:
    wanted.poll(None)  # Nothing is ever sent: this is its end.
    os._exit(1)
