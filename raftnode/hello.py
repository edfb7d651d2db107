"""What two servers say to each other before any message: who they are, and whether that will do (sans-IO).

Theory of operation. Whoever dials sends a Hello, in one frame; whoever was dialled sends a HelloAnswer, in one frame,
which is its own Hello and a reason if it refuses the other. Each side checks the other. Nothing else is read from a
connection before that, so a server of another cluster can't disturb this one, by a higher term for instance.

Both are CBOR arrays that begin with a magic word and the protocol's version, and will in every version, so that
servers of different versions can tell each other so.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, Never

import attrs
import cbor2

PROTOCOL_VERSION = 2
"""Of frames, codec and Raft messages together. Servers of different versions don't talk."""
HELLO_BYTES_MAX = 1024
"""A longer hello isn't read. Cluster names are short."""
CLUSTER_NAME_BYTES_MAX = 250
"""Longest name of a cluster, in UTF-8."""

_MAGIC = "raftnode"
_REASON_LENGTH_MAX = 200


class BadHello(ValueError):
    """What came isn't a hello, or not its answer."""


@attrs.frozen(slots=True)
class Hello:
    """Who a server is."""

    protocol_version: int
    cluster: str
    """The cluster's name; servers of different names don't talk."""
    server_id: int


@attrs.frozen(slots=True)
class HelloAnswer:
    """Who the dialled server is, and whether it talks to the dialler."""

    hello: Hello
    refusal: str
    """Why not; empty if it does."""


def encode_hello(hello: Hello) -> bytes:
    """The bytes of a hello."""
    return cbor2.dumps([_MAGIC, hello.protocol_version, hello.cluster, hello.server_id])


def encode_answer(answer: HelloAnswer) -> bytes:
    """The bytes of an answer."""
    hello = answer.hello
    reason = answer.refusal[:_REASON_LENGTH_MAX]
    return cbor2.dumps([_MAGIC, hello.protocol_version, hello.cluster, hello.server_id, reason])


def decode_hello(data: bytes) -> Hello:
    """The hello that the bytes say. Of another protocol version only the version is looked at.

    Raises:
        BadHello: they are none.
    """
    fields = _decode_fields(data)
    if fields[1] != PROTOCOL_VERSION:
        return Hello(fields[1], "", 0)
    return _hello_of(fields, 4)


def decode_answer(data: bytes) -> HelloAnswer:
    """The answer that the bytes say. Of another protocol version only the version is looked at.

    Raises:
        BadHello: they are none.
    """
    fields = _decode_fields(data)
    if fields[1] != PROTOCOL_VERSION:
        return HelloAnswer(Hello(fields[1], "", 0), "")
    hello = _hello_of(fields, 5)
    if type(fields[4]) is not str or len(fields[4]) > _REASON_LENGTH_MAX:
        raise BadHello("not an answer to a hello")
    return HelloAnswer(hello, fields[4] if fields[4].isprintable() else repr(fields[4]))


def why_unwelcome(theirs: Hello, ours: Hello, welcome: Container[int]) -> str | None:
    """The reason not to talk to ``theirs``, or None if it is one of the servers ``welcome``."""
    if theirs.protocol_version != ours.protocol_version:
        return f"speaks protocol version {theirs.protocol_version}, not {ours.protocol_version}"
    if theirs.cluster != ours.cluster:
        return f"belongs to cluster {theirs.cluster!r}, not {ours.cluster!r}"
    if theirs.server_id not in welcome:
        return f"says it is server {theirs.server_id}, which is not expected here"
    return None


def _hello_of(fields: tuple[Any, ...], length: int) -> Hello:
    if len(fields) != length or type(fields[2]) is not str or type(fields[3]) is not int:
        raise BadHello("a hello of a wrong shape")
    if len(fields[2].encode()) > CLUSTER_NAME_BYTES_MAX or fields[3] < 0:
        raise BadHello("a hello with a value out of range")
    return Hello(*fields[1:4])


def _decode_fields(data: bytes) -> tuple[Any, ...]:
    """The array's items; there are two or more, and the first two are the magic word and a number."""
    if len(data) > HELLO_BYTES_MAX:
        raise BadHello("a hello too long")
    try:
        fields = cbor2.loads(
            data,
            max_depth=1,
            allow_indefinite=False,
            strict_hashable_types=True,
            semantic_decoders=_NO_TAGS,
            tag_hook=_refuse_tag,
            immutable=True,
        )
    except (cbor2.CBORDecodeError, ValueError) as why:
        raise BadHello(f"not a hello: {why}") from why
    if type(fields) is not tuple or len(fields) < 2 or fields[0] != _MAGIC or type(fields[1]) is not int:
        raise BadHello("not a hello")
    return fields


def _refuse_tag(*_arguments: object) -> Never:
    raise BadHello("a hello has no tags")


class _EveryTag(dict[int, Callable[..., Never]]):
    """Names a decoder for each tag there is, so that cbor2's own never run."""

    __slots__ = ()

    def __missing__(self, tag: int) -> Callable[..., Never]:
        return _refuse_tag


_NO_TAGS = _EveryTag()
