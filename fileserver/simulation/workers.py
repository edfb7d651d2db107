"""Processes that work for a command, and end with it.

They are spawned, so they inherit nothing that could differ from run to run. Each watches the process that they work
for: whoever ends that, by whatever signal, shall not be left with processes that take all of the machine for nobody.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor


def start_workers(count: int, *, ignore_interrupt: bool = False) -> ProcessPoolExecutor:
    """So many processes.

    With ``ignore_interrupt`` ^C is for the command alone: what they are at is finished, and can be reported.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count, mp_context=context, initializer=_begin, initargs=(ignore_interrupt,))


def _begin(ignore_interrupt: bool) -> None:
    if ignore_interrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="ends with its parent", daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "only workers call this"
    parent.join()
    os._exit(1)
