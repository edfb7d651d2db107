"""Which lines of some modules a call reaches that none has reached before.

``sys.settrace`` slows a call several times over, so the loop watches a sample of the inputs only; and a function of
which every line is known is not traced any more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType, ModuleType
from typing import Any, TypeAlias

_Trace: TypeAlias = Callable[[FrameType, str, Any], Any]
_NOTHING: frozenset[int] = frozenset()


class LineCoverage:
    """The lines reached so far, of all calls made within :meth:`watching`."""

    def __init__(self, modules: Iterable[ModuleType]) -> None:
        self._files = {module.__file__ for module in modules}
        self._unseen: dict[int, set[int] | frozenset[int]] = {}
        """The lines of a code object, by its id, that have not been reached."""
        self._codes: list[CodeType] = []
        """Kept alive, so that no id is used again."""
        self.reached_count = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Lines count while this is entered; whoever else traces (a coverage tool) goes on afterwards."""
        before = sys.gettrace()
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(before)

    def _enter(self, frame: FrameType, _event: str, _argument: Any) -> _Trace | None:
        code = frame.f_code
        unseen = self._unseen.get(id(code))
        if unseen is None:
            unseen = set(_lines_of(code)) if code.co_filename in self._files else _NOTHING
            self._unseen[id(code)] = unseen
            self._codes.append(code)
        return self._step if unseen else None

    def _step(self, frame: FrameType, event: str, _argument: Any) -> _Trace:
        if event == "line":
            unseen = self._unseen[id(frame.f_code)]
            line = frame.f_lineno
            if line in unseen and isinstance(unseen, set):
                unseen.remove(line)
                self.reached_count += 1
        return self._step


def _lines_of(code: CodeType) -> Iterator[int]:
    """The lines of a function's body that a trace can report."""
    for _, _, line in code.co_lines():
        if line is not None and line != code.co_firstlineno:
            yield line
