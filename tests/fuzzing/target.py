"""What a fuzz target is: a reader of bytes, what it may raise, and examples of what it reads.

A target's ``run`` feeds bytes to the product and checks what comes out of it against whatever must hold of it
(reading back what was written, the same result in other chunks, nothing changed by a refusal). It returns a *trail*:
a small value that tells apart the ways that inputs take, so that the loop keeps one input of each way. Raising one of
``declared`` is a way, too; raising anything else is a finding.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from random import Random
from types import ModuleType
from typing import TypeAlias
from unittest import mock

import attrs

Repair: TypeAlias = Callable[[bytes, Random], bytes]
"""Makes an input's checksums right again, as far as it can be taken apart, so that what is behind them is reached."""


@attrs.frozen(slots=True)
class Target:
    """Something that reads bytes; see the module's docstring."""

    name: str
    modules: tuple[ModuleType, ...]
    """Whose lines count as reached."""
    run: Callable[[bytes], Hashable]
    declared: tuple[type[Exception], ...]
    """What ``run`` may raise."""
    examples: Callable[[], list[bytes]]
    """Sound inputs, as the product itself writes them."""
    tokens: tuple[bytes, ...] = ()
    """Pieces of the format, for the mutators to put in."""
    repair: Repair | None = None
    environment: Callable[[], AbstractContextManager[None]] = nullcontext
    """In which ``examples`` and ``run`` are called: sizes made small, so that short inputs reach what is big."""
    size_bytes_max: int = 4096
    """Of an input."""


def with_constants(*constants: tuple[ModuleType, str, int]) -> Callable[[], AbstractContextManager[None]]:
    """An environment in which constants of modules have other values."""

    @contextmanager
    def environment() -> Iterator[None]:
        with ExitStack() as stack:
            for module, name, value in constants:
                stack.enter_context(mock.patch.object(module, name, value))
            yield

    return environment
