"""Giving way before looking at what has come.

A process that is woken by a message runs at once, often in the place of whoever was just about to send it more. To give
way first costs a microsecond when nobody else wants the core; when somebody does, more has come by the time that this
process looks, and all of it shares one turn. With five servers and their clients on two cores, writes and reads so take
less processor time and come sooner.
"""

from __future__ import annotations

import os
from collections.abc import Callable


def _stay() -> None:
    """Do nothing, where the system has no such call."""


give_way: Callable[[], None] = getattr(os, "sched_yield", _stay)
"""Let every other process that waits for this core have it first."""
