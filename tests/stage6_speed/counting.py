"""Counts the calls that the product makes: what an operation costs, in a unit that no other program can disturb.

The interpreter tells a profiling function of each call of a Python function, and of each built-in one with its caller.
Counted are calls of functions of the product and calls that such functions make of built-in ones. Left out is what the
tests bring along: simulated disks and clocks, and all that is done on behalf of those who judge a simulated run.
Comprehensions are left out too, which are calls in Python 3.11 only.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

import fileserver
import raftnode
import statemachine

PACKAGES: Final = ("statemachine", "raftnode", "fileserver")
_PLACES: Final = {
    package.__name__: f"{Path(package.__file__ or '').parent}/" for package in (statemachine, raftnode, fileserver)
}
_NO_PRODUCT: Final = ("/fileserver/simulation/", "/raftnode/simulated_disk.py", "/statemachine/invariants.py")
_JUDGES: Final = tuple(
    f"/{name}.py" for name in ("simulation/oracle", "simulation/ledger", "simulation/model", "statemachine/invariants")
)
_COMPREHENSIONS: Final = ("<listcomp>", "<dictcomp>", "<setcomp>")
_JUDGE: Final = "a judge"


class CallCounter:
    """How many calls each package has made, while `counting`."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._packages: dict[CodeType, str | None] = {}
        self._judge: FrameType | None = None

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count in this thread for the time of a ``with`` block."""
        sys.setprofile(self._event)
        try:
            yield
        finally:
            sys.setprofile(None)

    def _event(self, frame: FrameType, event: str, _argument: object) -> None:
        if self._judge is not None:
            if event == "return" and frame is self._judge:
                self._judge = None
        elif event in {"call", "c_call"}:
            code = frame.f_code
            package = self._packages[code] if code in self._packages else self._look_up(code)
            if package == _JUDGE:
                self._judge = frame
            elif package is not None:
                self.calls[package] += 1

    def _look_up(self, code: CodeType) -> str | None:
        """To which package a function belongs, if to any; what attrs has made for a class belongs where that does."""
        self._packages[code] = None
        file = code.co_filename
        if code.co_name in _COMPREHENSIONS:
            return None
        for package in PACKAGES:
            if file.startswith("<attrs generated") and f" {package}." in file:
                self._packages[code] = package
            if file.startswith(_PLACES[package]):
                is_product = not any(part in file for part in _NO_PRODUCT)
                self._packages[code] = package if is_product else None
        if file.endswith(_JUDGES):
            self._packages[code] = _JUDGE
        return self._packages[code]
