"""Faults of the network: links that carry nothing, and links that are slow and lose packets."""

from __future__ import annotations

from collections.abc import Collection

import trio

from fileserver.torture.impairments import CUT, Impairment
from fileserver.torture.nemesis import EVIDENCE_SECONDS, DidNotHappen, World
from fileserver.torture.plan import Fault
from fileserver.torture.shapes import Link, Links

CUT_SECONDS = 0.2
"""A probe that hasn't come by then is taken for lost: without a fault it takes less than a millisecond."""
HEAL_SECONDS = 10.0
_LOSS_PROBES_MAX = 400


async def partition(world: World, fault: Fault, servers: tuple[int, ...]) -> str:
    """Cut the links of the plan's shape, one stage behind the other."""
    stage_seconds = fault.duration_us / 1e6 / len(fault.stages)
    touched: set[Link] = set()
    before = {(source, to): world.network.traffic((source, to)).dropped for source in servers for to in servers}
    try:
        for stage in fault.stages:
            ends_at = trio.current_time() + stage_seconds
            links = among(servers, stage)
            touched |= links
            world.network.impose(fault.number, dict.fromkeys(links, CUT))
            await _check_cut(world, links)
            await trio.sleep_until(ends_at)
    finally:
        world.network.lift(fault.number)
    dropped = {link: world.network.traffic(link).dropped - before[link] for link in touched}
    whole = sorted(link for link, count in dropped.items() if not count)
    if whole:
        raise DidNotHappen(f"nothing was dropped on {whole}")
    await _check_healed(world, fault, touched)
    first = f"server {servers[0]} first" if len(touched) < len(servers) * (len(servers) - 1) else "all"
    return f"{first}: {len(touched)} links cut, {sum(dropped.values())} packets dropped"


async def _check_cut(world: World, links: Collection[Link]) -> None:
    """A probe on each link has to be lost."""
    passed: list[Link] = []

    async def probe(link: Link) -> None:
        if await world.network.probe(link, CUT_SECONDS) is not None:
            passed.append(link)

    async with trio.open_nursery() as nursery:
        for link in links:
            nursery.start_soon(probe, link)
    if passed:
        raise DidNotHappen(f"a probe arrived on {sorted(passed)}")


async def _check_healed(world: World, fault: Fault, links: Collection[Link]) -> None:
    """A probe on each link has to arrive, unless another fault of the network is there by now."""
    left = set(links)
    with trio.move_on_after(HEAL_SECONDS):
        while left:
            if any(other.stages for number, other in world.under_way.items() if number != fault.number):
                return
            for link in sorted(left):
                if await world.network.probe(link, 1.0) is not None:
                    left.discard(link)
        return
    raise DidNotHappen(f"no probe arrives on {sorted(left)} after healing")


async def delay(world: World, fault: Fault, servers: tuple[int, ...]) -> str:
    """Make links slow, and lossy where the plan says so."""
    (stage,) = fault.stages
    links = among(servers, stage)
    impairment = Impairment(delay_us=fault.amount_us, jitter_us=fault.amount_us // 2, loss=fault.loss)
    before = {link: (world.network.traffic(link).delayed, world.network.traffic(link).dropped) for link in links}
    ends_at = trio.current_time() + fault.duration_us / 1e6
    try:
        world.network.impose(fault.number, dict.fromkeys(links, impairment))
        latest = await _measure(world, fault, links)
        await trio.sleep_until(ends_at)
    finally:
        world.network.lift(fault.number)
    delayed = sum(world.network.traffic(link).delayed - before[link][0] for link in links)
    dropped = sum(world.network.traffic(link).dropped - before[link][1] for link in links)
    if not delayed or (fault.loss and not dropped):
        raise DidNotHappen(f"{delayed} packets delayed, {dropped} lost")
    lost = f", {dropped} lost" if fault.loss else ""
    measured = f"a probe took {latest * 1000:.0f} ms"
    return f"{len(links)} links: {delayed} packets {fault.amount_us / 1000:.0f} ms late or more{lost}; {measured}"


async def _measure(world: World, fault: Fault, links: Links) -> float:
    """Probe the links until one has arrived as late as it should and, if some are to be lost, one hasn't."""
    wanted = fault.amount_us / 1e6
    slowest = 0.0
    is_lossy = not fault.loss
    with trio.move_on_after(EVIDENCE_SECONDS):
        for _ in range(_LOSS_PROBES_MAX):
            for link in sorted(links):
                seconds = await world.network.probe(link, 2 * wanted + CUT_SECONDS)
                is_lossy = is_lossy or seconds is None
                slowest = max(slowest, seconds or 0.0)
                if slowest >= wanted and is_lossy:
                    return slowest
    raise DidNotHappen(f"of probes that should take {wanted:.3f} s the slowest took {slowest:.3f} s")


def among(servers: tuple[int, ...], links: Links) -> Links:
    """Links between places as links between the servers that stand there."""
    return frozenset((servers[source], servers[to]) for source, to in links)
