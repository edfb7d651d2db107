"""Being asked to stop, by signals: once, and again.

The first signal asks for a clean stop. One wish often comes as several: ``timeout``, for one, signals the process that
it started, and then that process's whole group. So what comes within `ONE_WISH_SECONDS` belongs to the first. Whoever
asks after that doesn't want to wait any longer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import trio

ONE_WISH_SECONDS: Final = 1.0


async def first(signals: AsyncIterator[int]) -> int:
    """Wait for the first signal; tells which."""
    return await anext(signals)


async def same_wish(signals: AsyncIterator[int]) -> None:
    """Take the signals that come with the first one, which came just now."""
    with trio.move_on_after(ONE_WISH_SECONDS):
        async for _ in signals:
            pass
