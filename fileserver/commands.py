"""The commands that change a store, as they stand in a log entry.

Theory of operation
    A command has :data:`FIELDS_PER_COMMAND` fields: ``op, name, argument, exptime, content``. A batch of commands is
    encoded by column, as one CBOR array of five::

        operations (bytes, one a command) | names (array) | arguments | exptimes | contents (array)

    :mod:`fileserver.columns` says how. Arguments and exptimes mostly take no room, so there are two items a command,
    and no object of its own: that is what makes a batch cheap to encode, to decode and to run. :func:`decode_batch`
    tells how it is checked without a Python loop over its commands.

    Logs of earlier versions have batches by row: one flat array of all fields. Its first item, if it has one, is a
    number, and that of columns is none, so each is recognised. They are read for good, and not written.

    ==========  ========================================  =================  ====================================
    op          argument                                  exptime            content
    ==========  ========================================  =================  ====================================
    `WRITE`     0                                         seconds, 0 = never  bytes, or an upload number
    `CAS`       version that the file must have, 0 = none  seconds, 0 = never  bytes, or an upload number
    `DELETE`    version that it must have, or             0                  ``b""``
                `ANY_VERSION`
    `APPEND`    most bytes that the file may come to       seconds, 0 =       bytes, or an upload number
                                                          never, or
                                                          `KEEP_EXPTIME`
    `TOUCH`     0                                         seconds, 0 = never  ``b""``
    `PART`      upload number                             0                  the next piece of that upload
    `DROP`      upload number                             0                  ``b""``
    ==========  ========================================  =================  ====================================

    A content that is too big for one entry is *staged*: its pieces are sent ahead by `PART`, then the command names the
    upload by its number (an ``int`` where the content would be). Upload numbers belong to a session, so two servers
    can't mix theirs up. The command uses the staged pieces up, whether it is carried out or refused. `DROP` gives up an
    upload that no command is going to use; it is no error if there is none.

    Each command has one result, in the same place of the list: an ``int`` when it was carried out (the file's version;
    0 for `DELETE`, `PART` and `DROP`, whose replies have none), or ``(Refusal, version)``. A result may travel through
    CBOR, which makes a list of the tuple and a plain int of the :class:`Refusal`; both still compare equal.

Invariants
    What :func:`decode_batch` returns is safe to run: right types, known operations, numbers of at most 64 bits.
    A batch that breaks a rule is refused as a whole, before any of it is run.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final, TypeAlias

import cbor2

from fileserver.columns import SIGNED, decode_columns, encode_columns, pack_numbers, unpack_numbers

Name: TypeAlias = bytes
"""A file's name: UTF-8. The parser sees to its rules; the store takes any bytes."""

Payload: TypeAlias = bytes | bytearray | memoryview
"""An encoded batch of commands."""

WRITE: Final = 1
CAS: Final = 2
DELETE: Final = 3
APPEND: Final = 4
TOUCH: Final = 5
PART: Final = 6
DROP: Final = 7

ANY_VERSION: Final = -1
"""The argument of a `DELETE` that takes any version."""
KEEP_EXPTIME: Final = -1
"""The exptime of an `APPEND` that leaves the expiry as it is."""
FIELDS_PER_COMMAND: Final = 5
MAX_EXPTIME_SECONDS: Final = 10**12
"""The longest exptime; with it a deadline stays within 63 bits of microseconds."""

_OPERATIONS: Final = bytes((WRITE, CAS, DELETE, APPEND, TOUCH, PART, DROP))
_NAME_TYPES: Final = {bytes}
_CONTENT_TYPES: Final = {bytes, int}


class Refusal(IntEnum):
    """Why a command was not carried out. Nothing was changed then (staged pieces are used up all the same)."""

    NOT_FOUND = 1
    """There is no such file; the version with it is 0."""
    VERSION = 2
    """The file has another version: the one beside it."""
    TOO_LARGE = 3
    """The append would lead to more bytes than its limit; beside it the file's version, 0 if there is no file."""
    UPLOAD_LOST = 4
    """No piece of the content's upload is staged (its session has ended); the version with it is 0."""


ContentField: TypeAlias = bytes | int
"""A command's content: the bytes, or the number of the upload that they were staged as."""
Field: TypeAlias = int | bytes
"""One of the five fields of a command."""
Result: TypeAlias = int | tuple[Refusal, int]
"""What became of a command; see the module's docstring."""
Columns: TypeAlias = tuple[bytes, list[Name], list[int], list[int], list[ContentField]]
"""A decoded batch by column: operations, names, arguments, exptimes, contents, all of one length."""


class BadBatch(ValueError):
    """A payload that is no batch of commands. Every server finds so alike, and none has run any part of it."""


def encode_batch(fields: Sequence[Field]) -> bytes:
    """Encode a batch from its fields, five a command, in a row."""
    operations = bytes(fields[0::5])  # type: ignore[arg-type]
    arguments, exptimes = pack_numbers(fields[2::5], SIGNED), pack_numbers(fields[3::5], SIGNED)
    return encode_columns((operations, fields[1::5], arguments, exptimes, fields[4::5]))


def decode_batch(payload: Payload) -> Columns:
    """Decode and check a batch.

    The checks go over whole columns in C: a loop over the commands would cost as much as running them.

    Raises:
        BadBatch: it has another shape than the module describes, or types or numbers that a command can't have.
    """
    try:
        fields = decode_columns(payload)
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError) as error:
        raise BadBatch(f"not CBOR: {error}") from error
    if type(fields) is not list or len(fields) % FIELDS_PER_COMMAND:
        raise BadBatch("not an array of five columns, nor of five fields a command")
    by_column = bool(fields) and type(fields[0]) is bytes
    columns = _columns_of_columns(fields) if by_column else _columns_of_rows(fields)
    operations, names, _, exptimes, contents = columns
    if operations.translate(None, _OPERATIONS):
        raise BadBatch("unknown operation")
    if not set(map(type, names)) <= _NAME_TYPES or not set(map(type, contents)) <= _CONTENT_TYPES:
        raise BadBatch("a name or a content is of the wrong type")
    if exptimes and max(exptimes) > MAX_EXPTIME_SECONDS:
        raise BadBatch("exptime is out of range")
    return columns


def _columns_of_columns(fields: list[Any]) -> Columns:
    """A batch as it is written. Raises BadBatch for columns of wrong types or lengths."""
    if len(fields) != FIELDS_PER_COMMAND:
        raise BadBatch("not five columns")
    operations, names, arguments, exptimes, contents = fields
    count = len(operations)
    if type(names) is not list or type(contents) is not list or not len(names) == len(contents) == count:
        raise BadBatch("columns of different lengths")
    try:
        numbers = unpack_numbers(arguments, count, SIGNED), unpack_numbers(exptimes, count, SIGNED)
    except ValueError as error:
        raise BadBatch(str(error)) from error
    return operations, names, *numbers, contents


def _columns_of_rows(fields: list[Any]) -> Columns:
    """A batch as earlier versions wrote it.

    ``bytes()`` and ``array("q")`` refuse what is no integer or is out of range; booleans pass for the integers that
    they are.
    """
    names, arguments, exptimes, contents = fields[1::5], fields[2::5], fields[3::5], fields[4::5]
    try:
        operations = bytes(fields[0::5])
        array("q", arguments)
        array("q", exptimes)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadBatch(f"a number is none, or out of range: {error}") from error
    return operations, names, arguments, exptimes, contents
