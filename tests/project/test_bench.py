"""The load generator against a server alone, and the figures that are made of what it saw."""

import json
import os
import subprocess
import sys
from array import array
from functools import partial
from typing import Any

import attrs
import pytest
import trio

from fileserver.alone import serve_alone
from fileserver.bench import generator
from fileserver.bench.cpu import CpuMeter, ProcessGone, cpu_us
from fileserver.bench.figures import figures_of, nearest_rank
from fileserver.bench.load import Kind, Load, NotAReply, end_of_reply, filling, first_word, is_good, prepared
from fileserver.bench.outcome import Outcome
from fileserver.config import Address


@pytest.mark.parametrize(
    ("percent", "value"), [(50.0, 500), (90.0, 900), (99.0, 990), (99.9, 999), (100.0, 1000), (0.0, 1)]
)
def test_percentiles_by_nearest_rank(percent: float, value: int) -> None:
    assert nearest_rank(range(1, 1001), percent) == value


def test_percentiles_of_little() -> None:
    assert nearest_rank([7], 99.9) == 7
    assert nearest_rank([], 50.0) == 0


def test_figures() -> None:
    figures = figures_of(array("L", [300, 100, 200, 400]), seconds=2.0)
    assert json.loads(json.dumps(figures.to_json())) == {
        "operations": 4,
        "per_second": 2.0,
        "p50_us": 200,
        "p90_us": 400,
        "p99_us": 400,
        "p99.9_us": 400,
        "max_us": 400,
    }
    assert figures_of(array("L"), seconds=0.0).to_json()["per_second"] == 0.0


@pytest.mark.parametrize(
    "reply", [b"OK 12\r\n", b"ERR_BUSY 1 x\r\n", b"CONTENTS 5 3 0\r\na\nb\r\n", b"CONTENTS 5 0 0\r\n\r\n"]
)
def test_where_a_reply_ends(reply: bytes) -> None:
    data = b"before" + reply + b"after"
    assert end_of_reply(data, 6) == 6 + len(reply)
    for length in range(len(reply)):
        end = end_of_reply(data[: 6 + length], 6)
        assert 6 + length < end <= 6 + len(reply), "never more than is missing"


def test_replies_that_are_none() -> None:
    with pytest.raises(NotAReply, match="CONTENTS without a size"):
        end_of_reply(b"CONTENTS 5 x 0\r\n", 0)
    assert first_word(b"HTTP/1.1 400 Bad\r\n", 0) == "HTTP/1.1"
    assert first_word(b"\xff" * 100, 0) == "\\xff" * 40
    assert first_word(b"\r\n", 0) == "an empty reply"
    assert not is_good(Kind.READ, b"OK 1\r\n", 0)
    assert is_good(Kind.WRITE, b"OK 1\r\n", 0)


def test_the_same_requests_in_every_run() -> None:
    load = Load(servers=(), read_percent=50, files=7, size_bytes=300, folder="x")
    requests = prepared(load)
    assert requests == prepared(load)
    reads = [data for kind, data in requests if kind is Kind.READ]
    assert 0.45 < len(reads) / len(requests) < 0.55
    assert set(reads) == {b"read x/%d\r\n" % number for number in range(7)}
    assert all(len(data) == len(b"write x/1 300\r\n\r\n") + 300 for kind, data in requests if kind is Kind.WRITE)


def test_requests_for_many_files_name_many() -> None:
    assert len({data for _, data in prepared(Load(servers=(), read_percent=100, files=100_000))}) > 60_000


def test_filling() -> None:
    load = Load(servers=(), read_percent=100, files=3, size_bytes=1)
    assert list(filling(load, first=1)) == [(Kind.WRITE, b"write bench/%d 1\r\n\0\r\n" % number) for number in (1, 2)]
    assert (load.to_fill().clients, load.to_fill().in_flight, load.to_fill().read_percent) == (16, 32, 0)
    big = attrs.evolve(load, size_bytes=1 << 26).to_fill()
    assert (big.clients, big.in_flight) == (1, 1), "not more than fits into main memory"


# ------------------------------------------------------------------------------------------ the generator


async def load_alone(nursery: trio.Nursery, **settings: Any) -> tuple[Load, Outcome]:
    """Load a server that is alone, with its files filled."""
    port = await nursery.start(serve_alone, "127.0.0.1", 0)
    load = Load(servers=(Address("127.0.0.1", port),), files=10, **settings)
    filled = await trio.to_thread.run_sync(generator.fill, load)
    assert (filled.operations, filled.errors) == (10, {})
    return load, await trio.to_thread.run_sync(generator.run, load)


@pytest.mark.parametrize(
    ("read_percent", "in_flight", "size_bytes"), [(0, 1, 256), (100, 4, 0), (80, 16, 3000), (50, 2, 1_000_000)]
)
async def test_a_short_load(nursery: trio.Nursery, read_percent: int, in_flight: int, size_bytes: int) -> None:
    _, outcome = await load_alone(
        nursery, read_percent=read_percent, clients=3, in_flight=in_flight, size_bytes=size_bytes, seconds=0.05
    )
    assert not outcome.errors
    assert outcome.operations > 0
    assert bool(outcome.latencies_us(Kind.READ)) is (read_percent > 0)
    assert bool(outcome.latencies_us(Kind.WRITE)) is (read_percent < 100)
    assert len(outcome.latencies_us()) == outcome.operations == outcome.figures().operations
    assert sum(point.operations for point in outcome.points()) == outcome.operations
    assert 0 < outcome.longest_gap_us <= outcome.seconds * 1e6
    assert outcome.generator_us_per_operation() > 0
    assert outcome.server_us_per_operation() is None, "whose process isn't known"


async def test_the_warm_up_is_not_counted(nursery: trio.Nursery) -> None:
    seen: list[tuple[float, int]] = []
    port = await nursery.start(serve_alone, "127.0.0.1", 0)
    load = Load(servers=(Address("127.0.0.1", port),), clients=2, warm_seconds=0.25, seconds=0.25)
    outcome = await trio.to_thread.run_sync(
        partial(generator.run, load, lambda outcome, seconds: seen.append((seconds, outcome.operations)), [os.getpid()])
    )
    assert all(operations == 0 for seconds, operations in seen if seconds < 0)
    assert seen[0][0] < 0 < seen[-1][0]
    assert seen == sorted(seen)
    assert 0.25 <= outcome.seconds < 5
    assert outcome.server_us_per_operation() == pytest.approx(outcome.generator_us_per_operation(), rel=0.5), (
        "server and generator are one process here"
    )


async def test_a_rate_is_kept(nursery: trio.Nursery) -> None:
    load, outcome = await load_alone(nursery, rate=200.0, clients=4, seconds=0.5)
    assert load.rate == 200.0
    assert outcome.unsent == 0
    assert outcome.operations == pytest.approx(100, abs=1)


async def test_a_stall_is_charged_for_all_that_was_due_meanwhile(nursery: trio.Nursery) -> None:
    """Coordinated omission: one client alone would have sent one request in that time, and seen one slow reply."""
    stall_seconds = 0.3
    stalled = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal stalled
        async for data in stream:
            if not stalled:
                stalled = 1
                await trio.sleep(stall_seconds)
            await stream.send_all(b"OK 1\r\n" * data.count(b"write "))

    (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
    address = Address("127.0.0.1", listener.socket.getsockname()[1])
    load = Load(servers=(address,), rate=100.0, clients=1, size_bytes=1, seconds=0.6)
    outcome = await trio.to_thread.run_sync(generator.run, load)
    slow = [latency for latency in outcome.latencies_us() if latency > 50_000]
    assert len(slow) >= 20, "of the 30 that were due"
    assert max(slow) >= stall_seconds * 1e6
    assert outcome.longest_gap_us >= stall_seconds * 0.9e6


async def test_a_rate_that_can_not_be_reached(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "DRAIN_SECONDS", 0.05)

    async def answer_once(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"OK 1\r\n")
        await trio.sleep_forever()

    (listener,) = await nursery.start(partial(trio.serve_tcp, answer_once, 0, host="127.0.0.1"))
    address = Address("127.0.0.1", listener.socket.getsockname()[1])
    load = Load(servers=(address,), rate=1000.0, clients=1, seconds=0.1)
    outcome = await trio.to_thread.run_sync(generator.run, load)
    assert outcome.operations == 1
    assert outcome.unsent == pytest.approx(98, abs=1)
    assert outcome.errors == {"connection lost: no reply within 0 s": 1}
    nursery.cancel_scope.cancel()


async def test_errors_are_counted(nursery: trio.Nursery) -> None:
    """Files that aren't there, as nobody has filled them."""
    port = await nursery.start(serve_alone, "127.0.0.1", 0)
    load = Load(servers=(Address("127.0.0.1", port),), read_percent=100, clients=1, files=1, seconds=0.01)
    outcome = await trio.to_thread.run_sync(generator.run, load)
    assert set(outcome.errors) == {"ERR_FILE_NOT_FOUND"}
    assert outcome.operations == 0
    assert sum(point.errors for point in outcome.points()) == outcome.errors.total()


@pytest.mark.parametrize(
    ("says", "error"),
    [
        (b"", "connection lost: closed by the server"),
        (b"CONTENTS 1 many 0\r\n", "connection lost: not a reply: CONTENTS without a size"),
        (b"OK 1\r\nOK 2\r\n", "connection lost: a reply that nobody asked for: OK"),
    ],
)
async def test_servers_that_are_none(nursery: trio.Nursery, says: bytes, error: str) -> None:
    async def answer(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(says)
        await stream.aclose()

    (listener,) = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
    load = Load(servers=(Address("127.0.0.1", listener.socket.getsockname()[1]),), clients=2, seconds=60)
    outcome = await trio.to_thread.run_sync(generator.run, load)
    assert outcome.errors == {error: 2}
    assert outcome.operations == (2 if says.startswith(b"OK") else 0)


async def test_silence_ends_some_time(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator, "DRAIN_SECONDS", 0.05)

    async def say_nothing(_stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    (listener,) = await nursery.start(partial(trio.serve_tcp, say_nothing, 0, host="127.0.0.1"))
    load = Load(servers=(Address("127.0.0.1", listener.socket.getsockname()[1]),), clients=2, seconds=0.01)
    outcome = await trio.to_thread.run_sync(generator.run, load)
    assert outcome.errors == {"connection lost: no reply within 0 s": 2}
    nursery.cancel_scope.cancel()


async def test_nobody_there() -> None:
    with trio.socket.socket() as bound:
        await bound.bind(("127.0.0.1", 0))  # and never listens
        load = Load(servers=(Address("127.0.0.1", bound.getsockname()[1]),), seconds=1)
        with pytest.raises(OSError, match=r"127\.0\.0\.1:\d+: Connection refused"):
            await trio.to_thread.run_sync(generator.run, load)


def test_processor_time_of_a_process() -> None:
    meter = CpuMeter([os.getpid()])
    began_us = cpu_us([os.getpid()])
    while cpu_us([os.getpid()]) < began_us + 20_000:
        pass
    assert (meter.servers_us() or 0) >= 20_000
    assert meter.own_us() >= 20_000
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        meter = CpuMeter([process.pid])
        assert meter.servers_us() is not None
    assert meter.servers_us() is None
    with pytest.raises(ProcessGone, match=f"process {process.pid} has ended"):
        cpu_us([process.pid])
