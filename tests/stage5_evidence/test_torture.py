"""The torture's pure parts: plans, shapes, impairments, requests and replies; and its proxies. No cluster runs here."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from random import Random

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from fileserver.config import Address
from fileserver.linearizability.history import (
    Append,
    Cas,
    Delete,
    Deleted,
    Found,
    NotFound,
    Operation,
    Read,
    Refused,
    Stat,
    Touch,
    VersionMismatch,
    Write,
    Written,
    digest_of,
)
from fileserver.torture.impairments import CUT, NONE, Impairment, Impairments
from fileserver.torture.plan import GAP_MAX_US, GAP_MIN_US, PAUSE_MAX_US, FaultKind, Plan, make_plan
from fileserver.torture.proxy_network import ProxyNetwork
from fileserver.torture.shapes import Shape, all_links, can_agree, cut_links, stages
from fileserver.torture.tun_network import link_of
from fileserver.torture.wire import Nonsense, Reply, ReplyBuffer, encode, outcome_of
from fileserver.torture.workload import FILES_IN_USE, OPERATIONS_MAX, UNKNOWN_MAX, Workload

MINUTE_US = 60_000_000
SERVERS = range(1, 6)

# ----------------------------------------------------------------------------------------------- shapes


def hears(shape: Shape, count: int, place: int) -> set[int]:
    """Whom a place still hears."""
    return {other for other in range(count) if other != place and (other, place) not in cut_links(shape, count)}


@pytest.mark.parametrize("count", [3, 4, 5, 7])
@pytest.mark.parametrize("shape", Shape)
def test_a_shape_cuts_some_links_and_only_such_as_there_are(shape: Shape, count: int) -> None:
    links = cut_links(shape, count)
    assert links
    assert links <= all_links(count)


@pytest.mark.parametrize(
    ("shape", "heard"),
    [
        (Shape.MAJORITY, [{1, 2}, {0, 2}, {0, 1}, {4}, {3}]),
        (Shape.MINORITY, [{1}, {0}, {3, 4}, {2, 4}, {2, 3}]),
        (Shape.ISOLATED, [set(), {2, 3, 4}, {1, 3, 4}, {1, 2, 4}, {1, 2, 3}]),
        (Shape.RING, [{1, 4}, {0, 2}, {1, 3}, {2, 4}, {0, 3}]),
        (Shape.BRIDGE, [{1, 2, 3, 4}, {0, 2}, {0, 1}, {0, 4}, {0, 3}]),
        (Shape.STAR, [{1, 2, 3, 4}, {0}, {0}, {0}, {0}]),
        (Shape.CHAIN, [{1}, {0, 2}, {1, 3}, {2, 4}, {3}]),
        (Shape.TWO_LEAVES, [{2, 3, 4}, {2, 3, 4}, {0, 1, 3, 4}, {0, 1, 2, 4}, {0, 1, 2, 3}]),
        (Shape.DEAF, [set(), {0, 2, 3, 4}, {0, 1, 3, 4}, {0, 1, 2, 4}, {0, 1, 2, 3}]),
        (Shape.MUTE, [{1, 2, 3, 4}, {2, 3, 4}, {1, 3, 4}, {1, 2, 4}, {1, 2, 3}]),
        (Shape.ONE_WAY, [{1, 2, 3, 4}, {2, 3, 4}, {3, 4}, {4}, set()]),
        (Shape.SWIZZLED, [set(), set(), {3, 4}, {2, 4}, {2, 3}]),
    ],
)
def test_who_hears_whom_among_five(shape: Shape, heard: list[set[int]]) -> None:
    assert [hears(shape, 5, place) for place in range(5)] == heard


def test_every_shape_is_known() -> None:
    """All that the issue names: majority and minority, ring, bridge, isolated leader, two-leaf, swizzled, one-way."""
    words = {"majority", "minority", "ring", "bridge", "isolated", "two-leaf", "swizzled", "one-way-deaf", "one-way"}
    assert words < {shape.value for shape in Shape}


@pytest.mark.parametrize("shape", [shape for shape in Shape if shape is not Shape.ONE_WAY])
def test_somebody_could_lead_in_each_shape_of_five(shape: Shape) -> None:
    assert can_agree(cut_links(shape, 5), 5)


def test_nobody_could_lead_with_all_links_cut() -> None:
    assert not can_agree(all_links(5), 5)
    assert not can_agree(cut_links(Shape.ONE_WAY, 5), 5)


@given(st.integers(), st.sampled_from([3, 5, 7]))
def test_a_swizzle_goes_up_and_down_one_server_at_a_time(seed: int, count: int) -> None:
    steps = stages(Shape.SWIZZLED, count, Random(seed))
    sizes = [len(step) for step in steps]
    top = sizes.index(max(sizes))
    assert len(steps) == 2 * ((count - 1) // 2 + 1) - 1
    assert sizes[: top + 1] == sorted(sizes[: top + 1])
    assert sizes[top:] == sorted(sizes[top:], reverse=True)
    assert all(steps)


def test_two_servers_have_no_shapes() -> None:
    with pytest.raises(ValueError, match="three"):
        cut_links(Shape.RING, 2)


# ------------------------------------------------------------------------------------------------ plans


def plan_of(seed: int, minutes: float = 1.0, kinds: Iterable[FaultKind] = FaultKind) -> Plan:
    return make_plan(seed, round(minutes * MINUTE_US), SERVERS, list(kinds))


@given(st.integers(0, 1 << 32))
def test_a_plan_depends_on_its_seed_alone(seed: int) -> None:
    assert plan_of(seed) == plan_of(seed)
    assert plan_of(seed) != plan_of(seed + 1)


@given(st.integers(0, 1 << 32))
def test_a_fault_every_one_to_five_seconds(seed: int) -> None:
    faults = plan_of(seed).faults
    gaps = [later.at_us - earlier.at_us for earlier, later in itertools.pairwise(faults)]
    assert all(GAP_MIN_US <= gap <= GAP_MAX_US for gap in gaps)
    assert [fault.number for fault in faults] == list(range(1, len(faults) + 1))
    assert all(0 < fault.duration_us <= PAUSE_MAX_US for fault in faults)
    assert faults[-1].at_us + faults[-1].duration_us <= MINUTE_US


@given(st.integers(0, 1 << 32))
def test_a_minute_has_every_kind_of_fault(seed: int) -> None:
    assert {fault.kind for fault in plan_of(seed).faults} == set(FaultKind)


def test_ten_minutes_have_every_variant() -> None:
    variants = {(fault.kind, fault.variant) for fault in plan_of(1, minutes=10).faults}
    assert {(FaultKind.KILL, "1"), (FaultKind.KILL, "2"), (FaultKind.KILL, "all")} <= variants
    assert {(FaultKind.PAUSE, "1"), (FaultKind.PAUSE, "2")} <= variants
    assert {(FaultKind.PARTITION, shape.value) for shape in Shape} <= variants
    assert {(FaultKind.CORRUPTION, "log"), (FaultKind.CORRUPTION, "snapshot")} <= variants
    assert {(FaultKind.CLOCK, "ahead"), (FaultKind.CLOCK, "back")} <= variants
    assert {(FaultKind.DELAY, "slow"), (FaultKind.DELAY, "lossy")} <= variants


@given(st.integers(0, 1 << 32))
def test_damage_is_done_to_a_minority_only(seed: int) -> None:
    for fault in plan_of(seed, minutes=3).faults:
        if fault.kind in {FaultKind.CORRUPTION, FaultKind.DISK_FULL, FaultKind.PAUSE}:
            assert fault.count <= 2
        assert sorted(fault.order) == list(SERVERS)


def test_only_the_kinds_asked_for() -> None:
    assert {fault.kind for fault in plan_of(3, kinds=[FaultKind.KILL, FaultKind.CLOCK]).faults} == {
        FaultKind.KILL,
        FaultKind.CLOCK,
    }
    assert plan_of(3, kinds=[]).faults == ()


def test_the_leader_is_aimed_at_where_the_plan_says_so() -> None:
    faults = plan_of(5, minutes=3).faults
    aimed = next(fault for fault in faults if fault.leader_first and fault.order[0] != 2)
    assert aimed.targets(2)[0] == 2
    assert sorted(aimed.targets(2)) == sorted(aimed.order)
    assert aimed.targets(None) == aimed.order
    other = next(fault for fault in faults if not fault.leader_first)
    assert other.targets(other.order[-1]) == other.order


def test_a_fault_in_a_line() -> None:
    text = str(plan_of(5).faults[0])
    assert text.startswith("#1 at 1.0 s for ")


# ------------------------------------------------------------------------------------------ impairments


def test_faults_on_one_link_add_up_and_end_each_for_itself() -> None:
    impairments = Impairments()
    link = (1, 2)
    impairments.impose(1, {link: Impairment(delay_us=10, loss=0.5)})
    impairments.impose(2, {link: Impairment(delay_us=30, jitter_us=5), (2, 1): CUT})
    assert impairments.of(link) == Impairment(delay_us=30, jitter_us=5, loss=0.5)
    assert impairments.of((2, 1)).cut
    impairments.impose(2, {link: CUT})
    assert impairments.of(link).cut
    assert impairments.of((2, 1)) == NONE
    impairments.lift(2)
    assert impairments.of(link) == Impairment(delay_us=10, loss=0.5)
    impairments.lift(1)
    impairments.lift(1)
    assert impairments.now == {}


def test_which_link_a_packet_is_on() -> None:
    packet = bytes([0x45]) + bytes(11) + bytes([10, 77, 3, 2, 10, 77, 5, 2]) + b"data"
    assert link_of(packet) == (3, 5)
    assert link_of(b"\x60" + packet[1:]) is None  # IPv6
    assert link_of(packet[:12] + b"\x7f" + packet[13:]) is None
    assert link_of(packet[:19]) is None


# ------------------------------------------------------------------------------------ requests and replies


@pytest.mark.parametrize(
    ("action", "request_bytes"),
    [
        (Read(), b"read f\r\n"),
        (Stat(), b"stat f\r\n"),
        (Delete(), b"delete f\r\n"),
        (Delete(7), b"delete f 7\r\n"),
        (Touch(None), b"touch f 0\r\n"),
        (Touch(3_000_000), b"touch f 3\r\n"),
        (Write(b"a\r\nb"), b"write f 4 0\r\na\r\nb\r\n"),
        (Write(b"", 2_000_000), b"write f 0 2\r\n\r\n"),
        (Cas(0, b"x"), b"cas f 0 1 0\r\nx\r\n"),
        (Append(b"xy"), b"append f 2\r\nxy\r\n"),
        (Append(b"xy", 1_000_000, keep_expiry=False), b"append f 2 1\r\nxy\r\n"),
    ],
)
def test_requests(action: Read, request_bytes: bytes) -> None:
    assert encode("f", action) == request_bytes


@pytest.mark.parametrize(
    ("action", "reply", "outcome"),
    [
        (Read(), Reply(b"CONTENTS 5 2 0", b"ab"), Found(5, 2, digest_of(b"ab"))),
        (Read(), Reply(b"CONTENTS 5 0 9"), Found(5, 0, digest_of(b""), 9)),
        (Stat(), Reply(b"STAT 5 2 9"), Found(5, 2, None, 9)),
        (Read(), Reply(b"ERR_FILE_NOT_FOUND"), NotFound()),
        (Write(b""), Reply(b"OK 4"), Written(4)),
        (Touch(), Reply(b"OK 4"), Written(4)),
        (Delete(), Reply(b"OK"), Deleted()),
        (Cas(1, b""), Reply(b"ERR_VERSION 8"), VersionMismatch(8)),
        (Write(b""), Reply(b"ERR_BUSY 1 no leader"), Refused()),
        (Write(b""), Reply(b"ERR_INTERNAL not applied: the disk is full"), Refused()),
        (Write(b""), Reply(b"ERR_INTERNAL outcome unknown: time is up"), None),
        (Write(b""), Reply(b"ERR_INTERNAL anything else"), None),
    ],
)
def test_what_replies_say(action: Read, reply: Reply, outcome: object) -> None:
    assert outcome_of(action, reply) == outcome


@pytest.mark.parametrize(
    ("action", "line"),
    [
        (Write(b""), b"OK"),
        (Delete(), b"OK 5"),
        (Read(), b"OK 5"),
        (Write(b""), b"ERR_FILE_NOT_FOUND"),
        (Write(b""), b"ERR_VERSION 3"),
        (Write(b""), b"OK five"),
        (Read(), b"CONTENTS 1 5 0"),
        (Stat(), b"STAT 1"),
        (Read(), b"ERR_CMD_ERR what?"),
        (Read(), b""),
    ],
)
def test_replies_that_no_request_of_ours_can_have(action: Read, line: bytes) -> None:
    with pytest.raises(Nonsense):
        outcome_of(action, Reply(line))


@given(st.lists(st.integers(1, 9), max_size=60))
def test_replies_in_any_pieces(sizes: list[int]) -> None:
    data = b"OK 1\r\nCONTENTS 2 6 0\r\na\r\nb\r\n\r\nERR_FILE_NOT_FOUND\r\nSTATUS 2\r\n{}\r\n"
    buffer = ReplyBuffer()
    replies = []
    for size in [*sizes, len(data)]:
        buffer.feed(data[:size])
        data = data[size:]
        while (reply := buffer.next()) is not None:
            replies.append(reply)
    assert replies == [
        Reply(b"OK 1"),
        Reply(b"CONTENTS 2 6 0", b"a\r\nb\r\n"),
        Reply(b"ERR_FILE_NOT_FOUND"),
        Reply(b"STATUS 2", b"{}"),
    ]


@pytest.mark.parametrize("data", [b"CONTENTS 1 x 0\r\n", b"CONTENTS\r\n", b"CONTENTS 1 1 0\r\nabc\r\n"])
def test_replies_without_shape(data: bytes) -> None:
    buffer = ReplyBuffer()
    buffer.feed(data)
    with pytest.raises(Nonsense):
        buffer.next()


# --------------------------------------------------------------------------------------------- workload


def test_files_are_used_by_turns_and_contents_never_come_twice() -> None:
    workload = Workload(1)
    drawn = [workload.draw() for _ in range(20_000)]
    assert max(Counter(name for name, _ in drawn).values()) == OPERATIONS_MAX
    first_at = {name: position for position, (name, _) in reversed(list(enumerate(drawn)))}
    last_at = {name: position for position, (name, _) in enumerate(drawn)}
    at_a_time = [sum(first_at[name] <= at <= last_at[name] for name in first_at) for at in range(0, 20_000, 500)]
    assert max(at_a_time) <= FILES_IN_USE
    contents = [action.contents for _, action in drawn if isinstance(action, Write | Cas | Append)]
    assert len(set(contents)) == len(contents)
    assert {type(action) for _, action in drawn} == {Read, Stat, Write, Cas, Append, Delete, Touch}
    assert workload.names == list(dict.fromkeys(sorted(workload.names, key=lambda name: int(name.split("/")[1]))))


def test_a_workload_depends_on_its_seed() -> None:
    def drawn(seed: int) -> list[object]:
        workload = Workload(seed)
        return [workload.draw() for _ in range(100)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


def test_a_file_with_unknown_outcomes_is_used_no_longer() -> None:
    workload = Workload(1)
    name, _ = workload.draw()
    for _ in range(UNKNOWN_MAX):
        workload.note(Operation(1, name, Write(b""), 0))
    assert name not in {workload.draw()[0] for _ in range(1000)}
    workload.note(Operation(1, name, Write(b""), 0))  # one that was under way meanwhile


def test_a_file_that_was_not_found_has_no_version() -> None:
    workload = Workload(1)
    for _ in range(2000):
        name, action = workload.draw()
        if isinstance(action, Cas):
            assert action.expected == 0
        workload.note(Operation(1, name, Stat(), 0, 1, Found(77, 0, None)))
        workload.note(Operation(1, name, Stat(), 0, 1, Refused()))  # says nothing
        workload.note(Operation(1, name, Stat(), 0, 1, NotFound()))


def test_a_cas_asks_for_the_version_seen_last() -> None:
    workload = Workload(1)
    for _ in range(2000):
        name, action = workload.draw()
        workload.note(Operation(1, name, Read(), 0, 1, Found(77, 0, digest_of(b""))))
        if isinstance(action, Cas):
            assert action.expected in {0, 77}
    expected = {action.expected for _, action in (workload.draw() for _ in range(500)) if isinstance(action, Cas)}
    assert 77 in expected


# ---------------------------------------------------------------------------------------------- proxies


async def answering(stream: trio.SocketStream) -> None:
    """A peer that sends everything back."""
    with suppress(trio.BrokenResourceError):  # some give up
        async for piece in stream:
            await stream.send_all(piece)


async def dial(address: Address) -> trio.SocketStream:
    return await trio.open_tcp_stream(address.host, address.port)


async def is_silent(stream: trio.SocketStream) -> bool:
    """Whether nothing comes for a while."""
    with trio.move_on_after(0.1) as scope:
        await stream.receive_some()
    return scope.cancelled_caught


async def test_a_proxy_carries_holds_back_and_slows_down(nursery: trio.Nursery) -> None:
    network = ProxyNetwork((1, 2, 3), Random(1))
    target = network.addresses(2).peer
    listeners = await trio.open_tcp_listeners(target.port, host=target.host)
    nursery.start_soon(trio.serve_listeners, answering, listeners)
    await nursery.start(network.run)
    async with await dial(network.peer_address((1, 2))) as stream, await dial(network.peer_address((3, 2))) as other:
        await stream.send_all(b"plain")
        assert await stream.receive_some() == b"plain"

        network.impose(1, {(1, 2): CUT})
        await stream.send_all(b"held")
        assert await is_silent(stream)
        assert await network.probe((1, 2), 0.1) is None
        assert network.traffic((1, 2)).dropped >= 2
        await other.send_all(b"others go on")
        assert await other.receive_some() == b"others go on"

        network.lift(1)
        assert await stream.receive_some() == b"held"  # it was late, and is there

        network.impose(2, {(2, 1): Impairment(delay_us=80_000)})
        began_at = trio.current_time()
        await stream.send_all(b"slow")
        assert await stream.receive_some() == b"slow"
        assert trio.current_time() - began_at >= 0.08
        assert network.traffic((2, 1)).delayed >= 1
    network.close()
