"""What a server logs: one line per event, ``key=value`` pairs after a UTC time, made by structlog.

Other modules say ``log = structlog.get_logger()`` and know nothing of where lines go. That is decided once per process,
by :func:`configure`, which only the programs call.

A log must never be what stops a server: when a line can't be written (the disk is full, the terminal is gone) it is
dropped and counted, and the count is written as soon as lines can be written again. Names of files and lengths may
be logged, contents never.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog

_STANDARD_ERROR = 2


class LineWriter:
    """Writes lines to several file descriptors, whatever becomes of each; structlog's logger of this project.

    Lines go to the operating system at once and without a buffer of ours, in which a failed write could get stuck.

    Invariant: no method raises OSError.
    """

    __slots__ = ("_descriptors", "_lost")

    def __init__(self, descriptors: Sequence[int]) -> None:
        self._descriptors = tuple(descriptors)
        self._lost = [0] * len(self._descriptors)

    def msg(self, line: str) -> None:
        """Write one line, given without its line end."""
        for position, descriptor in enumerate(self._descriptors):
            lost = self._lost[position]
            note = f'level=warning event="lines of this log were lost" count={lost}\n' if lost else ""
            try:
                os.write(descriptor, f"{note}{line}\n".encode("utf-8", "backslashreplace"))
            except OSError:
                self._lost[position] += 1
            else:
                self._lost[position] = 0

    debug = info = warning = error = critical = fatal = exception = log = msg


@contextmanager
def configure(file: Path | None, *, to_stderr: bool, context: Mapping[str, object]) -> Iterator[None]:
    """Send what is logged to a file (appended), to standard error, or to both, for the time of a ``with`` block.

    Args:
        file: the log file, or None.
        to_stderr: whether lines also go to standard error.
        context: what every line says, such as the server's id.

    Raises:
        OSError: the file can't be opened.
    """
    descriptors = [_STANDARD_ERROR] if to_stderr else []
    opened = None if file is None else os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if opened is not None:
        descriptors.append(opened)
    writer = LineWriter(descriptors)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _add_context(context),
            structlog.processors.LogfmtRenderer(
                key_order=["timestamp", "level", *context, "event"], bool_as_flag=False
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=False,
    )
    previous_hook = sys.excepthook
    sys.excepthook = log_uncaught
    try:
        yield
    finally:
        sys.excepthook = previous_hook
        structlog.reset_defaults()
        if opened is not None:
            os.close(opened)


def _add_context(context: Mapping[str, object]) -> structlog.typing.Processor:
    """A processor that adds the same fields to every line; a line's own fields win."""
    fixed = dict(context)

    def add(_logger: Any, _method: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {**fixed, **fields}

    return add


def log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Log what nobody caught, before the interpreter prints it and ends."""
    structlog.get_logger().error("crashed", exception="".join(traceback.format_exception(kind, error, trace)))
    sys.__excepthook__(kind, error, trace)
