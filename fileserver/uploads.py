"""Contents on their way: the pieces staged for commands whose content is too big for one log entry.

Theory of operation
    A server that has a big content to write sends it ahead in `PART` commands, and then the command that uses it.
    Staged pieces are part of the replicated state (they are in snapshots and in the state hash), so any server's
    store can complete the command. They are kept by session and upload number: a session's uploads end with it.

    Sizes and checksums are kept up to date piece by piece, so that using the upload costs nothing however big it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import attrs
from crc32c import crc32c

from fileserver.records import PART_BYTES, Content, Rope, add_piece, content_of, cut

MeasuredContent: TypeAlias = tuple[Content, int, int]
"""A content, its length in bytes, its CRC-32C."""


@attrs.define
class Upload:
    """The pieces of one content that have come so far."""

    pieces: list[bytes] = attrs.field(factory=list, repr=False)
    size: int = 0
    """Their length in bytes."""
    crc: int = 0
    """CRC-32C over all of them."""

    def add(self, piece: bytes) -> None:
        """Take the next piece, of any length."""
        for part in (piece,) if len(piece) <= PART_BYTES else cut(piece):
            add_piece(self.pieces, part)
        self.size += len(piece)
        self.crc = crc32c(piece, self.crc)

    def measured(self) -> MeasuredContent:
        """What has come so far, as a content."""
        return content_of(self.pieces), self.size, self.crc


@attrs.frozen
class StagedUpload:
    """One upload as it stood at some instant, for a snapshot."""

    session: int
    upload: int
    size: int
    crc: int
    pieces: Rope = attrs.field(repr=False)


@attrs.define(eq=False, repr=False)
class Uploads:
    """All staged pieces of one store."""

    _sessions: dict[int, dict[int, Upload]] = attrs.field(factory=dict, init=False)

    def add(self, session: int, upload: int, piece: bytes) -> None:
        """Stage the next piece of an upload; its first one begins the upload."""
        uploads = self._sessions.setdefault(session, {})
        staged = uploads.get(upload)
        if staged is None:
            staged = uploads[upload] = Upload()
        staged.add(piece)

    def take(self, session: int, upload: int) -> MeasuredContent | None:
        """The content that was staged, which is then staged no longer; None if there is no such upload."""
        uploads = self._sessions.get(session)
        staged = uploads.pop(upload, None) if uploads is not None else None
        if not uploads:
            self._sessions.pop(session, None)
        return None if staged is None else staged.measured()

    def end_session(self, session: int) -> None:
        """Drop whatever the session has staged."""
        self._sessions.pop(session, None)

    def staged(self) -> Iterator[StagedUpload]:
        """All uploads as they stand, by session and number."""
        for session, uploads in sorted(self._sessions.items()):
            for number, upload in sorted(uploads.items()):
                yield StagedUpload(session, number, upload.size, upload.crc, tuple(upload.pieces))

    def restore(self, staged: StagedUpload) -> None:
        """Put an upload back as it stood."""
        upload = Upload(list(staged.pieces), staged.size, staged.crc)
        self._sessions.setdefault(staged.session, {})[staged.upload] = upload
