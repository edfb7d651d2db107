"""One server of a cluster: its disk, its node, its client connections and its HTTP port, put together.

A server starts from what its disk has, listens, and serves until it is cancelled. A clean stop then first lets another
server lead, so that clients of other servers notice next to nothing; then answers what is under way, and closes.
"""

from __future__ import annotations

import gc
import random
from pathlib import Path

import structlog
import trio

from fileserver.alone import listen
from fileserver.client_loop import ClientLoop
from fileserver.config import Address, ClusterConfig, ServerConfig
from fileserver.http import serve_http
from fileserver.huge_pages import keep_in_huge_pages
from fileserver.machine import StoreMachine
from fileserver.replicated import ReplicatedBackend
from fileserver.service import Limits, raise_open_files_limit
from fileserver.store import Store
from raftnode import links
from raftnode.filesystem import OsFileSystem
from raftnode.hello import PROTOCOL_VERSION, Hello
from raftnode.node import Node
from raftnode.node_values import NodeOptions, Observer
from raftnode.os_network import OsNetwork
from raftnode.reactor import Reactor
from raftnode.runtime import Runtime
from raftnode.sleeping import make_sleeper
from raftnode.storage import Recovered, SnapshotCorrupt, Storage, StorageIdentity
from raftnode.transport import Transport
from raftnode.trio_runtime import TrioRuntime, run_node
from statemachine.configuration import Configuration
from statemachine.roles import Options

SPARE_US = 50_000
"""How far a follower whom no commit waits for may be behind, if others are enough for a majority. In any case less than
the time between two heartbeats."""
HAND_OVER_SECONDS = 1.0
ANSWER_SECONDS = 2.0
"""How long a clean stop waits for another leader, and for requests under way."""
GARBAGE_THRESHOLD = 100_000
"""Objects made before the youngest are searched for cycles; what lives long was frozen at the start."""

_log = structlog.get_logger(__name__)


async def serve(
    config: ClusterConfig,
    server_id: int,
    directory: Path,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve as server ``server_id`` of a cluster, with its files in ``directory``, until cancelled.

    Raises:
        ConfigError: there is no such server.
        StorageError: the directory can't be used, its data is damaged, or the disk failed.
        OSError: an address can't be listened at.
    """
    stop_requested = trio.Event()
    async with trio.open_nursery() as watching:
        watching.start_soon(_set_when_cancelled, stop_requested)
        # Cancelling is a wish to stop, which the server carries out in its own order.
        with trio.CancelScope(shield=True):
            await _serve(config, server_id, directory, stop_requested, task_status)
        watching.cancel_scope.cancel()


async def _set_when_cancelled(event: trio.Event) -> None:
    try:
        await trio.sleep_forever()
    finally:
        event.set()


async def _serve(
    config: ClusterConfig,
    server_id: int,
    directory: Path,
    stop_requested: trio.Event,
    task_status: trio.TaskStatus[None],
) -> None:
    server = config.server(server_id)
    raise_open_files_limit()
    started_at = trio.current_time()
    runtime = TrioRuntime()
    storage, node, store = await _recover(config, server_id, directory, runtime)
    reactor = Reactor(
        now_us=runtime.now_us,
        turn=node.turn,
        deadline_us=node.deadline_us,
        may_linger=lambda: not runtime.is_blocking,
        make_sleeper=make_sleeper,
    )
    node.driven_by(reactor.wake, reactor.look_again)
    try:
        backend = ReplicatedBackend(config, server_id, node, store, runtime)
        clients = ClientLoop(backend, listen(server.client.host, server.client.port), reactor, _limits(config))
        backend.flush_replies = clients.flush
        node.observer = Observer(
            due_us=backend.due_us,
            has_gathered=backend.has_gathered,
            proposes=backend.submit_gathered,
            applied=backend.after_apply,
            leader_changed=lambda: _leader_changed(node),
            log=_log.info,
        )
        _tame_garbage_collection()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reactor.run)
            await nursery.start(run_node, node, _transport(config, server, node, reactor))
            backend.start_soon = nursery.start_soon
            nursery.start_soon(backend.watch)
            nursery.start_soon(keep_in_huge_pages, runtime.run_blocking)
            await nursery.start(clients.run)
            await nursery.start(serve_http, server.http.host, server.http.port, backend.status)
            _log.info("recovered", seconds=round(trio.current_time() - started_at, 3), files=store.files)
            task_status.started()
            await stop_requested.wait()
            await node.hand_over(HAND_OVER_SECONDS)
            await clients.stop(ANSWER_SECONDS)
            nursery.cancel_scope.cancel()
    finally:
        reactor.close()
        storage.close()


async def _recover(
    config: ClusterConfig, server_id: int, directory: Path, runtime: Runtime
) -> tuple[Storage, Node, Store]:
    """Open the directory and bring the store to where its newest good snapshot has it; the log follows by and by."""
    distrusted: list[Path] = []
    while True:
        storage, recovered = await trio.to_thread.run_sync(
            Storage.open, directory, StorageIdentity(config.cluster, server_id), OsFileSystem(), tuple(distrusted)
        )
        _report(recovered)
        store = Store()
        try:
            node = Node(
                _node_options(config, server_id),
                storage,
                recovered,
                StoreMachine(store),
                random.Random(),
                Observer(),
                runtime,
            )
        except SnapshotCorrupt as error:
            storage.close()
            if error.path in distrusted:
                raise
            _log.error("a snapshot is damaged: trying the one before", why=str(error))
            distrusted.append(error.path)
        except BaseException:
            storage.close()
            raise
        else:
            return storage, node, store


def _report(recovered: Recovered) -> None:
    if recovered.torn is not None:
        _log.warning(
            "the log's last save was cut short by a crash and is dropped; it was never acknowledged",
            path=str(recovered.torn.path),
            offset=recovered.torn.offset,
            bytes=recovered.torn.size_bytes,
        )
    for damage in recovered.damaged_snapshots:
        _log.error("a snapshot is damaged: starting from an older one", why=damage)


def _node_options(config: ClusterConfig, server_id: int) -> NodeOptions:
    voters = frozenset(server.server_id for server in config.servers)
    return NodeOptions(
        server_id=server_id,
        configuration=Configuration(voters),
        raft=Options(
            election_timeout_us_min=config.election_timeout_min_us,
            election_timeout_us_max=config.election_timeout_max_us,
            heartbeat_us=config.heartbeat_us,
            spare_us=min(SPARE_US, config.heartbeat_us * 5 // 6),
        ),
        snapshot_log_bytes=config.snapshot_log_bytes,
    )


def _transport(config: ClusterConfig, server: ServerConfig, node: Node, reactor: Reactor) -> Transport:
    return Transport(
        identity=Hello(PROTOCOL_VERSION, config.cluster, server.server_id),
        listen=_link_address(server.peer),
        peers={other.server_id: _link_address(other.peer) for other in config.servers if other is not server},
        deliver=node.put_into_inbox,
        delivered=node.act,
        on_connect=node.peer_connected,
        on_disconnect=node.peer_disconnected,
        network=OsNetwork(reactor),
    )


def _link_address(address: Address) -> links.Address:
    return links.Address(address.host, address.port)


def _limits(config: ClusterConfig) -> Limits:
    return Limits(
        max_file_bytes=config.max_file_bytes,
        request_progress_timeout_seconds=config.request_progress_timeout_us / 1e6,
        idle_timeout_seconds=config.idle_timeout_us / 1e6,
    )


def _leader_changed(node: Node) -> None:
    raft = node.raft
    _log.info("leader", leader=raft.leader_id, term=raft.current_term, role=raft.role.value)


def _tame_garbage_collection() -> None:
    """Leave out what is there now, and look at the rest rarely: a full collection over a million files takes 100 ms."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 50, 1000)
