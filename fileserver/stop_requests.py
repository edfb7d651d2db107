"""Being asked to stop, by signals: once, and again.

The first signal asks for a clean stop. One wish often comes as several: ``timeout``, for one, signals the process that
it started, and then that process's whole group. So what comes within `ONE_WISH_SECONDS` belongs to the first. Whoever
asks after that doesn't want to wait any longer. Whatever comes when the stop is over, and the process about to end, is
late: it changes nothing.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

import trio

ONE_WISH_SECONDS: Final = 1.0
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


async def same_wish(signals: AsyncIterator[int]) -> None:
    """Take the signals that come with the first one, which came just now."""
    with trio.move_on_after(ONE_WISH_SECONDS):
        async for _ in signals:
            pass


@contextmanager
def until_over() -> Iterator[Callable[[], None]]:
    """Where nobody receives the signals, they do what they do by default until what this gives is called; then nothing.

    It is to be called before whoever receives them stops doing so; and the process is to end after the block.
    """
    is_over = False

    def over() -> None:
        nonlocal is_over
        is_over = True

    def handle(number: int, _frame: FrameType | None) -> None:
        if not is_over:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for number in STOP_SIGNALS:
        signal.signal(number, handle)
    try:
        yield over
    finally:
        if is_over:  # The interpreter takes handlers away as it ends, but not this.
            for number in STOP_SIGNALS:
                signal.signal(number, signal.SIG_IGN)
