"""The load generator against a server alone, and the figures that are made of what it saw."""

import json
from array import array
from functools import partial

import pytest
import trio

from fileserver.alone import serve_alone
from fileserver.bench import load as loads
from fileserver.bench.figures import figures_of, nearest_rank
from fileserver.bench.load import Kind, Load, end_of_reply
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
        assert end_of_reply(data[: 6 + length], 6) == 0


@pytest.mark.parametrize(
    ("kind", "in_flight", "size_bytes"),
    [(Kind.WRITE, 1, 256), (Kind.READ, 4, 0), (Kind.MIXED, 16, 3000), (Kind.WRITE, 2, 1_000_000)],
)
async def test_a_short_load(nursery: trio.Nursery, kind: Kind, in_flight: int, size_bytes: int) -> None:
    port = await nursery.start(serve_alone, "127.0.0.1", 0)
    load = Load(
        servers=(Address("127.0.0.1", port),),
        kind=kind,
        clients=3,
        in_flight=in_flight,
        size_bytes=size_bytes,
        files=10,
        seconds=0.05,
    )
    seen: list[int] = []
    filled = await trio.to_thread.run_sync(loads.fill, load)
    assert (filled.operations, filled.errors) == (10, {})
    outcome = await trio.to_thread.run_sync(
        partial(loads.run, load, lambda _seconds, operations: seen.append(operations))
    )
    assert not outcome.errors
    assert outcome.operations > 0
    assert seen == sorted(seen)
    assert bool(outcome.latencies_us["read"]) is (kind is not Kind.WRITE)
    assert bool(outcome.latencies_us["write"]) is (kind is not Kind.READ)


async def test_errors_are_counted(nursery: trio.Nursery) -> None:
    """Files that aren't there, as nobody has filled them."""
    port = await nursery.start(serve_alone, "127.0.0.1", 0)
    load = Load(servers=(Address("127.0.0.1", port),), kind=Kind.READ, clients=1, files=1, seconds=0.01)
    outcome = await trio.to_thread.run_sync(loads.run, load, lambda _seconds, _operations: None)
    assert set(outcome.errors) == {"ERR_FILE_NOT_FOUND"}
    assert outcome.operations == 0


async def test_a_server_that_hangs_up(nursery: trio.Nursery) -> None:
    async def hang_up(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.aclose()

    (listener,) = await nursery.start(partial(trio.serve_tcp, hang_up, 0, host="127.0.0.1"))
    load = Load(servers=(Address("127.0.0.1", listener.socket.getsockname()[1]),), clients=2, seconds=60)
    outcome = await trio.to_thread.run_sync(loads.run, load, lambda _seconds, _operations: None)
    assert sum(outcome.errors.values()) == 2
    assert outcome.operations == 0


async def test_nobody_there() -> None:
    with trio.socket.socket() as bound:
        await bound.bind(("127.0.0.1", 0))  # and never listens
        load = Load(servers=(Address("127.0.0.1", bound.getsockname()[1]),), seconds=1)
        with pytest.raises(OSError, match=r"127\.0\.0\.1:\d+: Connection refused"):
            await trio.to_thread.run_sync(loads.run, load, lambda _seconds, _operations: None)
