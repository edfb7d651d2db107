"""A dumb store to compare the real one with: the contract's sentences, with no thought of speed."""

from __future__ import annotations

import attrs

from fileserver.commands import (
    ANY_VERSION,
    APPEND,
    CAS,
    DELETE,
    DROP,
    KEEP_EXPTIME,
    PART,
    TOUCH,
    WRITE,
    ContentField,
    Refusal,
    Result,
)
from tests.stage1_fileserver.store_commands import SECOND_US, Command


@attrs.define
class ModelFile:
    """A file of the model."""

    version: int
    deadline_us: int | None
    content: bytes


@attrs.define
class StoreModel:
    """What a store must look like after the same commands."""

    version: int = 0
    clock_us: int = 0
    files: dict[bytes, ModelFile] = attrs.field(factory=dict)
    staged: dict[tuple[int, int], bytes] = attrs.field(factory=dict)

    def apply(self, clock_us: int, session: int, commands: list[Command]) -> list[Result]:
        """Run the commands one by one."""
        self.advance(clock_us)
        return [self.run(session, *command) for command in commands]

    def advance(self, clock_us: int) -> None:
        """Expire the first file that is due, until none is."""
        self.clock_us = max(self.clock_us, clock_us)
        while due := [
            (file.deadline_us, file.version, name)
            for name, file in self.files.items()
            if file.deadline_us is not None and file.deadline_us <= self.clock_us
        ]:
            del self.files[min(due)[2]]
            self.version += 1

    def end_session(self, session: int) -> None:
        """Forget all that the session has staged."""
        self.staged = {key: content for key, content in self.staged.items() if key[0] != session}

    def run(
        self, session: int, operation: int, name: bytes, argument: int, exptime: int, content: ContentField
    ) -> Result:
        """Run one command."""
        file = self.files.get(name)
        if operation == PART:
            assert isinstance(content, bytes)
            self.staged[session, argument] = self.staged.get((session, argument), b"") + content
            return 0
        if operation == DROP:
            self.staged.pop((session, argument), None)
            return 0
        if operation == TOUCH:
            if file is None:
                return Refusal.NOT_FOUND, 0
            file.deadline_us = self.deadline(exptime)
            return file.version
        if operation == DELETE:
            if file is None:
                return Refusal.NOT_FOUND, 0
            if argument not in (ANY_VERSION, file.version):
                return Refusal.VERSION, file.version
            del self.files[name]
            self.version += 1
            return 0
        whole = self.staged.pop((session, content), None) if isinstance(content, int) else content
        if whole is None:
            return Refusal.UPLOAD_LOST, 0
        deadline_us = self.deadline(exptime)
        if operation == CAS and file is not None and file.version != argument:
            return Refusal.VERSION, file.version
        if operation == CAS and file is None and argument != 0:
            return Refusal.NOT_FOUND, 0
        if operation == APPEND:
            if len(file.content if file else b"") + len(whole) > argument:
                return Refusal.TOO_LARGE, file.version if file else 0
            whole = (file.content if file else b"") + whole
            if exptime == KEEP_EXPTIME:
                deadline_us = file.deadline_us if file else None
        assert operation in (WRITE, CAS, APPEND)
        self.version += 1
        self.files[name] = ModelFile(self.version, deadline_us, whole)
        return self.version

    def deadline(self, exptime: int) -> int | None:
        """When a file expires that is given this exptime now."""
        return self.clock_us + exptime * SECOND_US if exptime > 0 else None
