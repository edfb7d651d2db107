"""Five real servers, ten clients, faults all the time: and nothing may be lost.

Theory of operation, in order:

1. A network, disks and servers are made (`setting`), and one leader is waited for.
2. Clients ask through all servers (`clients`, `workload`), everything that they see is written down; the nemesis
   carries out the plan (`plan`, `nemesis`). A server that ends by itself is a finding.
3. All is healed. The servers have to agree on one leader, one applied index and one state; then every file is read
   once more through every server, as part of the history.
4. The history is judged by `fileserver.linearizability`: so an acknowledged change that was lost, or made twice, shows
   as a file whose history can't be put in order.

The report says what is wrong: a violation, an undecided history, a fault that didn't happen, too few operations, a
server that died, disagrees, or wrote a traceback. A run without any of that is good.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Protocol

import attrs
import trio

from fileserver.linearizability import checker
from fileserver.linearizability.history import Operation, Read
from fileserver.linearizability.history_json import dump_history
from fileserver.linearizability.report import Report as Judgement
from fileserver.torture import disk_faults, network_faults, process_faults
from fileserver.torture.clients import Client, Connection, Pacer, Record, connect
from fileserver.torture.nemesis import Act, Nemesis, World
from fileserver.torture.plan import FaultKind, Plan
from fileserver.torture.report import Load, Report
from fileserver.torture.servers import NotInTime, Servers
from fileserver.torture.setting import Setting
from fileserver.torture.workload import Workload

READY_SECONDS = 60.0
AGREEMENT_SECONDS = 90.0
"""For all servers to be the same again after the last fault was healed: the longest pause between dials, a snapshot,
and a machine with few cores."""
LATE_SLACK_US = 10**13
"""Cluster time stands still while no majority is up, so how late a file may expire has no bound here."""
WATCH_SECONDS = 0.2
ACTS: dict[FaultKind, Act] = {
    FaultKind.KILL: process_faults.kill,
    FaultKind.PAUSE: process_faults.pause,
    FaultKind.RESTART: process_faults.restart,
    FaultKind.CLOCK: process_faults.clock,
    FaultKind.SLOW_FLUSH: process_faults.slow_flush,
    FaultKind.PARTITION: network_faults.partition,
    FaultKind.DELAY: network_faults.delay,
    FaultKind.DISK_FULL: disk_faults.disk_full,
    FaultKind.CORRUPTION: disk_faults.corruption,
}


@attrs.frozen(slots=True, kw_only=True)
class Options:
    """What is asked of a run."""

    plan: Plan
    clients: int = 10
    rate: float = 450.0
    """Operations a second to aim at."""
    rate_min: float = 300.0


class Watcher(Protocol):
    """Whoever shows people what goes on."""

    def phase(self, text: str) -> None:
        """Something else begins."""
        ...

    def progress(self, world: World, record: Record, leader: int | None) -> None:
        """Some time has passed."""
        ...


async def torture(options: Options, setting: Setting, watcher: Watcher) -> Report:
    """Do one run; everything that was started has ended when it returns, however it returns.

    Raises:
        NotInTime: the cluster didn't even start.
    """
    servers = setting.servers
    record = Record()
    problems: list[str] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(setting.network.run)
        try:
            watcher.phase("starting")
            for server in servers.ids:
                servers.launch(server)
            await servers.until_agreed(READY_SECONDS)
            world = World(servers, setting.network, setting.disks, trio.current_time())
            workload = Workload(options.plan.seed)
            watcher.phase("faults")
            await _under_faults(options, world, record, workload, problems, watcher)
            load = Load(world.now_us() / 1e6, record.answered, dict(record.by_server))
            problems += [
                f"server {server} answered nothing"
                for position, server in enumerate(servers.ids)
                if not record.by_server[position]
            ]
            watcher.phase("agreeing")
            state_hash = await _agree(servers, problems)
            watcher.phase("reading back")
            await _read_back(servers, record, workload.names, problems)
            await _stop(servers, problems)
        finally:
            servers.end_all()
        nursery.cancel_scope.cancel()
    problems += [f"a reply that makes no sense: {each}" for each in record.nonsense]
    problems += _tracebacks(servers)
    watcher.phase("judging")
    began_at = trio.current_time()
    judgement = await trio.to_thread.run_sync(_judge, record.operations)
    return Report(
        plan=options.plan,
        record=record,
        happenings=tuple(world.happenings),
        skipped=setting.skipped,
        problems=tuple(problems),
        judgement=judgement,
        judged_in_seconds=trio.current_time() - began_at,
        load=load,
        rate_min=options.rate_min,
        state_hash=state_hash,
    )


def _judge(operations: list[Operation]) -> Judgement:
    return checker.check(operations, late_slack_us=LATE_SLACK_US)


async def _under_faults(
    options: Options, world: World, record: Record, workload: Workload, problems: list[str], watcher: Watcher
) -> None:
    """Have clients work while the plan is carried out, until its time is over and all is healed."""
    is_over = False
    addresses = [world.servers.client_address(server) for server in world.servers.ids]
    pacer = Pacer(options.rate)
    async with trio.open_nursery() as watching:
        watching.start_soon(_watch, world, record, problems, watcher)
        # Nothing of what clients do may be cut short: a change that was sent and isn't in the history is a phantom.
        async with trio.open_nursery() as working:
            for number in range(options.clients):
                working.start_soon(Client(record, addresses, number).work, workload, pacer, lambda: is_over)
            await Nemesis(world, options.plan, ACTS).run()
            await trio.sleep_until(world.started_at + options.plan.duration_us / 1e6)
            is_over = True
        watching.cancel_scope.cancel()
    problems += map(str, world.servers.deaths())


async def _watch(world: World, record: Record, problems: list[str], watcher: Watcher) -> None:
    """Tell of the progress, and find servers that have ended by themselves."""
    while True:
        problems += map(str, world.servers.deaths())
        watcher.progress(world, record, await world.servers.leader())
        await trio.sleep(WATCH_SECONDS)


async def _agree(servers: Servers, problems: list[str]) -> str:
    """Wait until all servers are in the same state; gives its hash, or nothing and notes what is wrong."""
    try:
        statuses = await servers.until_agreed(AGREEMENT_SECONDS)
    except NotInTime as error:
        problems.append(str(error))
        return ""
    for key in ("state_hash", "version", "files", "bytes"):
        values = {server: status[key] for server, status in statuses.items()}
        if len(set(values.values())) > 1:
            problems.append(f"the servers have applied the same, and differ in {key}: {values}")
            return ""
    return str(statuses[servers.ids[0]]["state_hash"])


async def _read_back(servers: Servers, record: Record, names: Collection[str], problems: list[str]) -> None:
    """Read every file through every server, as part of the history."""
    addresses = [servers.client_address(server) for server in servers.ids]

    async def read_all(position: int) -> None:
        client = Client(record, addresses, position)
        stream = await connect(addresses[position])
        if stream is None:
            problems.append(f"server {servers.ids[position]} can't be connected to at the end")
            return
        async with stream:
            connection = Connection(stream)
            for name in names:
                operation = await client.perform(connection, name, Read())
                if operation.outcome is None:
                    problems.append(f"server {servers.ids[position]} doesn't answer a read of {name} at the end")
                    return

    async with trio.open_nursery() as nursery:
        for position in range(len(addresses)):
            nursery.start_soon(read_all, position)


async def _stop(servers: Servers, problems: list[str]) -> None:
    """Every server has to stop cleanly."""
    statuses = {server: await servers.stop(server) for server in servers.ids if servers.is_running(server)}
    problems += [
        f"server {server} ended with {status} when asked to stop" for server, status in statuses.items() if status
    ]


def _tracebacks(servers: Servers) -> Iterator[str]:
    for server in servers.ids:
        for text in (servers.log(server), servers.printed(server)):
            if "Traceback" in text:
                begin = text.index("Traceback")
                yield f"server {server} met what it didn't expect: {text[max(0, begin - 300) : begin + 3000]}"


def keep(report: Report, servers: Servers, directory: Path) -> None:
    """Put what is needed to understand a run into a directory: the history, the plan, what happened, all logs.

    Raises:
        OSError: it can't be written to.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "history.jsonl").open("w") as file:
        file.writelines(dump_history(report.record.operations))
    (directory / "plan.txt").write_text("".join(f"{fault}\n" for fault in report.plan.faults))
    (directory / "faults.txt").write_text("".join(f"{each}\n" for each in report.happenings))
    (directory / "findings.txt").write_text("".join(f"{each}\n" for each in report.findings()))
    for server in servers.ids:
        (directory / f"server-{server}.log").write_text(servers.log(server))
        (directory / f"server-{server}.output").write_text(servers.printed(server))
