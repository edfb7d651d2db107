"""Room on the disk for the log: prepared ahead of need, and missed in time.

The next piece of the log is laid out while there is still room in the present one. When that fails, the rest of the
present one is kept for what is under way, every message says that this server's disk is full, and the leader
refuses new changes as long as it, or a majority, has no room. A leader without room hands over to a server that
has some. Room is looked for again and again, so a server recovers by itself.
"""

from __future__ import annotations

from raftnode.node_values import KNOWN_FLAGS, Flag, Say, Step
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
        runtime: Runtime,
    ) -> None:
        """Nothing is known of the other servers yet."""
        self._raft = raft
        self._storage = storage
        self._step = step
        self._say = say
        self._flags_of: dict[int, Flag] = {}
        """What the other servers said of themselves last, by their ids."""
        self._somebody_is_full = False
        """One of them has said something that matters."""
        self._runtime = runtime
        self._wanted = runtime.signal()
        self._hand_over_at_us = 0

    def check(self) -> None:
        """See whether the log's next piece is to be prepared. To be called when the log has grown."""
        if self._storage.needs_next:
            self._wanted.set()

    def hear(self, sender: int, flags: int) -> None:
        """Another server says this of itself."""
        if flags != self._flags_of.get(sender):
            self._flags_of[sender] = Flag(flags & KNOWN_FLAGS)
            self._somebody_is_full = any(self._flags_of.values())

    def own_flags(self) -> int:
        """What this server says of itself."""
        is_full = self._storage.disk_full
        if not is_full and not self._somebody_is_full:
            return 0
        refuses = self._raft.is_leader and self.is_short()
        return (is_full and Flag.DISK_FULL.value) | (refuses and Flag.REFUSES_CHANGES.value)

    @property
    def refuses_changes(self) -> bool:
        """Whether new changes shouldn't be submitted, since the leader has said that disks are full."""
        if not self._somebody_is_full and not self._storage.disk_full:
            return False
        leader = self._raft.leader_id
        if leader == self._raft.server_id:
            return self.is_short()
        return leader is not None and Flag.REFUSES_CHANGES in self._flags_of.get(leader, Flag(0))

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
