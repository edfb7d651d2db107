"""Room on the disk for the log: prepared ahead of need, and missed in time.

The next piece of the log is laid out while there is still room in the present one. When that fails, the rest of the
present one is kept for what is under way, every message says that this server's disk is full, and the leader
refuses new changes as long as it, or a majority, has no room. A leader without room hands over to a server that
has some. Room is looked for again and again, so a server recovers by itself.
"""

from __future__ import annotations

from collections.abc import Mapping

from raftnode.node_values import Flag, Say, Step
from raftnode.runtime import Runtime
from raftnode.storage import Storage
from statemachine.events import TransferLeadership
from statemachine.raft import Raft

CHECK_US = 500_000
"""How often a full disk is looked at again."""
HAND_OVER_US = 5_000_000
"""A leader without room tries to hand over at most this often."""


class RoomKeeper:
    """See the module's docstring."""

    def __init__(
        self,
        raft: Raft,
        storage: Storage,
        step: Step,
        say: Say,
        flags_of: Mapping[int, Flag],
        runtime: Runtime,
    ) -> None:
        """``flags_of`` is what the other servers said last, by their ids."""
        self._raft = raft
        self._storage = storage
        self._step = step
        self._say = say
        self._flags_of = flags_of
        self._runtime = runtime
        self._wanted = runtime.signal()
        self._hand_over_at_us = 0

    def check(self) -> None:
        """See whether the log's next piece is to be prepared. To be called when the log has grown."""
        if self._storage.needs_next:
            self._wanted.set()

    def is_short(self) -> bool:
        """As leader: there is no room here, or too little elsewhere for a majority to take more."""
        if self._storage.disk_full:
            return True
        if not any(self._flags_of.values()):
            return False
        full = {server for server, flags in self._flags_of.items() if Flag.DISK_FULL in flags}
        configuration = self._raft.configuration
        return bool(full) and not configuration.is_quorum(configuration.voters - full)

    async def run(self) -> None:
        """Prepare room, and look for it when there is none, until cancelled.

        Raises:
            DiskFailed: the disk failed for another reason than lack of room.
        """
        self.check()
        while True:
            await self._wanted.wait()
            self._wanted = self._runtime.signal()
            was_full = self._storage.disk_full
            if self._storage.needs_next:
                await self._runtime.run_blocking(self._storage.prepare_next)
            if self._storage.disk_full:
                if not was_full:
                    self._say("the disk is full: no new changes are taken until there is room")
                self._hand_over()
                await self._runtime.sleep(CHECK_US)
                self._wanted.set()
            elif was_full:
                self._say("the disk has room again")

    def _hand_over(self) -> None:
        """As a leader without room, have a server with room lead, if there is one."""
        if not self._raft.is_leader or self._runtime.now_us() < self._hand_over_at_us:
            return
        with_room = [
            (progress.match_index, server)
            for server, progress in self._raft.progress.items()
            if server in self._flags_of and Flag.DISK_FULL not in self._flags_of[server]
        ]
        if with_room:
            self._hand_over_at_us = self._runtime.now_us() + HAND_OVER_US
            self._step(TransferLeadership(max(with_room)[1]))
