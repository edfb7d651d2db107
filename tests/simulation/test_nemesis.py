"""Every kind of fault really happens, and is over when all is healed."""

from collections import Counter

import attrs
import pytest

from fileserver.simulation import settings
from fileserver.simulation.options import FaultKind
from fileserver.simulation.watcher import Watcher
from fileserver.simulation.world import World
from fileserver.torture.shapes import Links, Shape

SECOND_US = 1_000_000
CALM = "servers=5 loss=0.0 repeats=0.0 long-delays=0.0 in-order=yes fault-pause-us=2000000 clients=2"


@attrs.define
class Seen(Watcher):
    """What a run has told of."""

    faults: list[str] = attrs.Factory(list)
    ends: Counter[str] = attrs.Factory(Counter)
    no_starts: list[str] = attrs.Factory(list)
    logs: Counter[str] = attrs.Factory(Counter)
    cuts: list[Links] = attrs.Factory(list)
    pauses_us: list[int] = attrs.Factory(list)

    def told(self, now_us: int, kind: str, who: str, what: str) -> None:
        if kind == "fault":
            self.faults.append(f"{who} {what}")
        elif kind == "no start":
            self.no_starts.append(what)
        elif kind == "log":
            self.logs[what.split(" ", maxsplit=1)[0]] += 1

    def ended(self, now_us: int, server_id: int, why: str) -> None:
        self.ends[why.split(":", maxsplit=1)[0]] += 1

    def cut(self, now_us: int, links: Links) -> None:
        self.cuts.append(links)

    def paused(self, now_us: int, server_id: int, until_us: int) -> None:
        self.pauses_us.append(until_us - now_us)


def run(faults: str, seed: int = 5, seconds: int = 30, more: str = "") -> tuple[World, Seen]:
    scenario = settings.changed(settings.draw(seed), settings.parse(f"{CALM} faults={faults} {more}"))
    seen = Seen()
    world = World(seed, scenario.options, scenario.load, seen)
    world.run(seconds * SECOND_US)
    assert all(server.up or server.retired for server in world.servers.values())
    world.drop()
    return world, seen


def test_without_kinds_of_faults_there_are_none() -> None:
    world, seen = run("none", seconds=10)
    assert (world.nemesis.faults, seen.faults, seen.ends) == (0, [], Counter())
    assert (world.elections, world.network.lost) == (1, 0)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (FaultKind.KILL, "killed"),
        (FaultKind.POWER_CUT, "power cut"),
        (FaultKind.CRASH_IN_CALL, "in the middle of a call"),
        (FaultKind.KILL_ALL, "all end"),
        (FaultKind.ROLLING_RESTART, "clean stop"),
        (FaultKind.DISK_ERROR, "disk failed"),
    ],
)
def test_faults_that_end_servers(kind: FaultKind, why: str) -> None:
    world, seen = run(kind.value)
    assert world.nemesis.struck[kind.value] == world.nemesis.faults == len(seen.faults) > 10
    assert seen.ends[why] > 5
    assert seen.ends.keys() == {why}
    assert not any(server.retired for server in world.servers.values())


def test_partitions_of_every_shape_come_and_go() -> None:
    world, seen = run("partition", seconds=120)
    shapes = {fault.split(" ")[1] for fault in seen.faults}
    assert shapes <= {shape.value for shape in Shape if "one-way" not in shape.value}
    assert len(shapes) > 5
    assert seen.cuts[-1] == world.network.cut == frozenset()
    assert len(set(seen.cuts)) > 10
    for links in seen.cuts:
        assert {(to, source) for source, to in links} == links
    assert world.network.lost > 0


def test_one_way_links() -> None:
    _, seen = run("one-way")
    assert any({(to, source) for source, to in links}.isdisjoint(links) for links in seen.cuts if links)


def test_pauses_are_over_when_all_is_healed() -> None:
    world, seen = run("pause")
    assert max(seen.pauses_us) > SECOND_US
    assert all(server.ready_us <= world.loop.now_us for server in world.servers.values())
    assert not seen.ends


def test_a_server_that_goes_on_still_waits_for_its_disk() -> None:
    scenario = settings.changed(settings.draw(5), settings.parse(f"{CALM} faults=none"))
    world = World(5, scenario.options, scenario.load, Watcher())
    server = world.servers[1]
    server.start()

    def spend() -> None:
        server.disk.spent_us = SECOND_US

    server.soon(spend)
    world.loop.run_until(world.loop.now_us + SECOND_US // 100)
    disk_done_us = server.ready_us
    server.pause(3 * SECOND_US)
    assert disk_done_us < server.ready_us
    server.resume()
    assert server.ready_us == disk_done_us > world.loop.now_us
    world.drop()


def test_clocks_drift_and_jump_within_their_bounds() -> None:
    world, _ = run("clock-rate,clock-jump", seconds=60)
    rates = {server.clock.rate_ppm for server in world.servers.values()}
    assert len(rates) > 1
    assert all(900_000 <= rate <= 1_100_000 for rate in rates)
    assert world.nemesis.struck["clock-jump"] > 5


def test_full_disks_are_noticed_and_emptied() -> None:
    """Without snapshots: those would set segments free, which can be used again on a full disk."""
    world, seen = run("full-disk", more="think-us=100000 snapshot-log-bytes=1000000 segment-bytes=1000")
    assert sum(server.disk.space_bytes is not None for server in world.servers.values()) == 0
    assert seen.logs["the"] > 5  # "the disk is full"
    assert any(b"no room on the disk" in record.line for record in world.history)


def test_slow_disks_are_quick_again() -> None:
    world, seen = run("slow-disk")
    assert any(int(fault.split(" ")[-2]) > 100 for fault in seen.faults)
    assert all(server.disk.flush_us_max == 1_000 for server in world.servers.values())


def test_rot_strikes_a_minority_at_most() -> None:
    struck = Counter[str]()
    for seed in range(8):
        world, seen = run("rot,kill", seed=seed, more="segment-bytes=4000 snapshot-log-bytes=5000")
        assert sum(server.has_rot for server in world.servers.values()) <= 2
        struck.update(fault.split(" ")[3].split("-")[0] for fault in seen.faults if fault.startswith("rot"))
    assert struck["log"] > 5


def test_leaders_hand_over() -> None:
    world, seen = run("hand-over")
    assert world.elections > 5
    assert not seen.ends


def test_faults_are_drawn_from_the_seed() -> None:
    assert run("kill,partition", seed=8)[1].faults == run("kill,partition", seed=8)[1].faults
    assert run("kill,partition", seed=8)[1].faults != run("kill,partition", seed=9)[1].faults
