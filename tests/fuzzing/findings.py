"""What a fuzzer finds: an input, and what was wrong with how it was read; kept as files that can be replayed."""

from __future__ import annotations

import enum
import traceback
from hashlib import blake2b
from pathlib import Path
from types import TracebackType

import attrs


class FindingKind(enum.Enum):
    """What was wrong."""

    EXCEPTION = "exception"
    """One that the target does not declare, a broken invariant among them."""
    SLOW = "slow"
    MEMORY = "memory"


@attrs.frozen(slots=True)
class Finding:
    """One input that is not read as it must be."""

    target: str
    kind: FindingKind
    place: str
    """What tells it apart from other findings of the target: the exception and where it was raised."""
    text: str
    """For people, in as many lines as it takes."""
    data: bytes = attrs.field(repr=False)

    @property
    def file_name(self) -> str:
        """The name under which the input is kept."""
        return f"{self.target}-{self.kind.value}-{blake2b(self.data, digest_size=6).hexdigest()}.bin"

    def save(self, directory: Path) -> Path:
        """Writes the input, and beside it what was wrong."""
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / self.file_name
        path.write_bytes(self.data)
        path.with_suffix(".txt").write_text(f"{self.place}\n\n{self.text}\n")
        return path


def place_of(error: BaseException) -> str:
    """The class of an exception and the innermost line of it."""
    innermost: TracebackType | None = error.__traceback__
    while innermost is not None and innermost.tb_next is not None:
        innermost = innermost.tb_next
    if innermost is None:
        return type(error).__name__
    return f"{type(error).__name__} at {Path(innermost.tb_frame.f_code.co_filename).name}:{innermost.tb_lineno}"


def finding_of_exception(target: str, data: bytes, error: BaseException) -> Finding:
    """The finding that an exception is."""
    text = "".join(traceback.format_exception(error))
    return Finding(target, FindingKind.EXCEPTION, place_of(error), text, data)
