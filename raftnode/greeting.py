"""How two servers greet each other over a new connection, see :mod:`raftnode.hello`."""

from __future__ import annotations

from collections.abc import Container

import attrs

from raftnode.frames import BadFrame, FrameDecoder, frame
from raftnode.hello import (
    HELLO_BYTES_MAX,
    Hello,
    HelloAnswer,
    decode_answer,
    decode_hello,
    encode_answer,
    encode_hello,
    why_unwelcome,
)
from raftnode.links import Link


class HelloRefusedError(Exception):
    """One side doesn't want to talk to the other; the text says why."""


@attrs.frozen(slots=True)
class Greeted:
    """Who dialled."""

    hello: Hello
    refusal: str | None
    """Why it was sent away; None if it is welcome."""


async def greet_dialled(link: Link, identity: Hello, expected_id: int) -> None:
    """Says hello to whom we dialled, and hears the answer.

    Raises:
        HelloRefusedError: it is another server than we expected, or it refuses us.
        BadHello, BadFrame: it is no server of our kind.
        OSError: the connection broke.
    """
    await _send_fully(link, frame(encode_hello(identity)))
    answer = decode_answer(await _receive_first(link))
    unwelcome = why_unwelcome(answer.hello, identity, {expected_id})
    if unwelcome is not None:
        raise HelloRefusedError(f"it {unwelcome}")
    if answer.refusal:
        raise HelloRefusedError(f"it refuses us: this server {answer.refusal}")


async def greet_dialler(link: Link, identity: Hello, welcome: Container[int]) -> Greeted:
    """Hears the hello of who dialled us, and answers.

    Raises:
        BadHello, BadFrame: it is no server of our kind. It gets no answer.
        OSError: the connection broke.
    """
    hello = decode_hello(await _receive_first(link))
    refusal = why_unwelcome(hello, identity, welcome)
    await _send_fully(link, frame(encode_answer(HelloAnswer(identity, refusal or ""))))
    return Greeted(hello, refusal)


async def _send_fully(link: Link, data: bytes) -> None:
    while data:
        data = data[link.send(data) :]
        if data:
            await link.wait_writable()


async def _receive_first(link: Link) -> bytes:
    """The one message that the other side may send before it has been answered.

    Raises:
        BadFrame: it sent something else, or more.
        OSError: it closed the connection, or the connection broke.
    """
    decoder = FrameDecoder(HELLO_BYTES_MAX)
    while True:
        size_bytes = link.receive_into(decoder.room())
        if size_bytes is None:
            await link.wait_readable()
        elif not size_bytes:
            raise ConnectionAbortedError("closed before hello was said")
        elif messages := decoder.received(size_bytes):
            if len(messages) > 1 or not decoder.is_between_messages:
                raise BadFrame("said more than hello")
            return bytes(messages[0])
