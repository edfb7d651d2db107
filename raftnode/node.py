"""The node: one server's Raft with a network, a disk, a clock and an application.

Theory of operation
-------------------
The node owns the :class:`~statemachine.raft.Raft` object and the replica, and changes them only in its turns. Whatever
happens (messages, submissions, reads, time) is put into its inbox by plain calls; a turn takes the whole inbox, steps
through it, drains one ready value, sends, saves, applies and answers. So everything that arrived meanwhile shares one
message per peer, one flush, one pass of applying and one round of replies. A turn is a plain call that never waits;
whoever has brought the news may have it taken at once (:meth:`Node.act`), and the driver task sees to the rest: time,
and what comes from other tasks.

* **Changes** of this server's clients are submissions: batches under this server's session. They go to the leader,
  here or over the network, and are proposed again whenever it isn't sure that they arrived. Their results come from
  this server's own replica, when the batch is applied; so no reply travels back but the commit index.
* **Reads** wait for a barrier (:mod:`raftnode.barriers`) and then for the applied index.
* **Time** comes as stamps in entries; when something is due by itself and nothing is being proposed, the leader
  proposes a tick.
* **A full disk** is told to all in the flags of every message, and the leader says there when it can't take changes, so
  that every server can refuse them before they are on their way.

Invariants: nothing is sent that relies on an unsaved state (see :mod:`statemachine.ready`); entries are applied in
order, each once; a submission's result is told once.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence

import attrs

from raftnode import codec
from raftnode.applying_pace import ApplyingPace
from raftnode.barriers import BarrierPassed, Barriers
from raftnode.buffers import Chunk
from raftnode.cluster_clock import ClusterClock, hear
from raftnode.entry_reader import EntryReader
from raftnode.node_values import NodeOptions, Observer, PeerStatus, Sender
from raftnode.proposals import Proposals
from raftnode.proposer import Proposer
from raftnode.replica import Machine, Replica, Results
from raftnode.room_keeper import RoomKeeper
from raftnode.runtime import Runtime
from raftnode.saver import Saver
from raftnode.snapshot_keeper import SnapshotKeeper
from raftnode.snapshotting import load_at_start
from raftnode.starting import latest_time_us, restored
from raftnode.storage import Storage
from raftnode.storage_values import Recovered
from raftnode.submissions import Lane, Submission, Submissions
from statemachine.events import (
    Event,
    PeerConnected,
    PeerDisconnected,
    Persisted,
    ReadBarrier,
    Receive,
    Timeout,
    TransferLeadership,
)
from statemachine.raft import Raft
from statemachine.ready import ChunkToSend, Outgoing, Ready

APPLY_SLICE_US = 4_000
"""How long entries are applied before messages are looked at again."""
APPLY_COUNT = 64
"""How many entries are applied between two looks at the clock."""
CLOCK_SAVE_US = 1_000_000
"""How often the reading of the cluster clock is kept on disk, for after a stop of the whole cluster."""


class Node:
    """See the module's docstring. Made, then run; every other method may be called from tasks of the same thread."""

    def __init__(
        self,
        options: NodeOptions,
        storage: Storage,
        recovered: Recovered,
        machine: Machine,
        generator: random.Random,
        observer: Observer,
        runtime: Runtime,
    ) -> None:
        """Take up what the disk had.

        Raises:
            SnapshotCorrupt, ValueError: the snapshot to start from is damaged.
        """
        self.options = options
        self._runtime = runtime
        self._now_us = runtime.now_us
        self._signal = runtime.signal
        self._storage = storage
        self.observer = observer
        """May be replaced before the node runs."""
        self.replica = Replica(machine)
        if recovered.snapshot is not None:
            load_at_start(self.replica, storage, recovered.snapshot)
        self.raft = Raft(
            options.server_id, options.configuration, options.raft, generator, restored(recovered), self._now_us()
        )
        self.clock = ClusterClock(self._now_us, latest_time_us(recovered, self.replica), self.raft.log.last_term)
        self._proposer = Proposer(
            self.raft,
            self.replica,
            self.clock,
            generator.getrandbits(62) | 1,
            self._send_proposals,
            options.round_patience_us_max,
        )
        self._barriers = Barriers()
        self._pace = ApplyingPace()
        self._saved_readies: list[Ready] = []
        """On disk by now, and not spoken of yet."""
        self._saver = Saver(
            storage, self._saved_readies.append, self.wake, self._disk_is_full, options.in_place_bytes_max, runtime
        )
        self._snapshots = SnapshotKeeper(
            self.raft,
            self.replica,
            storage,
            self._step,
            self._say,
            recovered,
            self._snapshot_size(generator),
            self._proposer.restored,
            runtime,
        )
        self._entry_reader = EntryReader(storage, self._step, runtime)
        self._room = RoomKeeper(self.raft, storage, self._step, self._say, runtime)
        self._transport: Sender | None = None
        self._inbox: list[tuple[int, codec.Envelope]] = []
        self._connected_again: list[int] = []
        self._work = self._signal()
        self._sleeps_until_us = 0
        """When the driver wakes by itself."""
        self._wake_driver: Callable[[], None] | None = None
        """Says to whoever drives this node that a turn is due; None when the node's own task does."""
        self._look_again = self.wake
        self._followed: tuple[int | None, int] = (None, 0)
        """The leader and the term that were last seen."""
        self._barrier_asked_of: tuple[int | None, int] = self._followed
        self._another_leads = self._signal()

    def _snapshot_size(self, generator: random.Random) -> int:
        """How many bytes of log lead to a snapshot: servers whose logs grow together needn't make theirs together."""
        return int(self.options.snapshot_log_bytes * generator.uniform(0.8, 1.2))

    def _step(self, event: Event) -> None:
        """Step an event of this server's own between turns; the next turn does what follows."""
        self.raft.step(event, self._now_us())
        self.wake()

    def wake(self) -> None:
        """Have the driver take a turn."""
        if self._wake_driver is None:
            self._work.set()
        else:
            self._wake_driver()

    def _say(self, event: str, **details: object) -> None:
        self.observer.log(event, **details)

    # For the application

    @property
    def submissions(self) -> Submissions:
        """This server's batches that have no result yet."""
        return self._proposer.submissions

    def submit(
        self, payload: bytes, done: Callable[[Results], None], lane: Lane = Lane.SMALL, *, wake: bool = True
    ) -> Submission:
        """Have a batch applied, once, by all replicas; ``done`` gets the results. It may take as long as it takes.

        ``wake`` is False if the caller will :meth:`act`.
        """
        submission = Submission(payload, lane, done)
        self._proposer.submissions.add(submission)
        if wake:
            self.wake()
        return submission

    def withdraw(self, submission: Submission) -> bool:
        """Nobody waits any more. True when it was never proposed and so won't ever be applied."""
        return self._proposer.submissions.withdraw(submission)

    def read_barrier(self, passed: BarrierPassed, *, wake: bool = True) -> None:
        """Call back when the applied state includes whatever any server had acknowledged by now.

        ``wake`` is False if the caller will :meth:`act`.
        """
        self._barriers.add(passed)
        if wake:
            self.wake()

    @property
    def wants_barrier(self) -> bool:
        """Whether a turn would ask for a barrier: reads wait for one, and none is being asked for."""
        return self._barriers.wants_number

    def act(self) -> None:
        """Take a turn now, in the caller's task, for what it has brought: waking the driver for it would cost more.

        Callbacks may come from inside; they must not call this. Where somebody else drives, a turn is wanted of them.
        """
        if self._wake_driver is not None:
            self._wake_driver()
            return
        self.turn()
        self.reconsider_deadline()

    @property
    def refuses_changes(self) -> bool:
        """Whether new changes shouldn't be submitted, since the leader has said that disks are full."""
        return self._room.refuses_changes

    @property
    def average_save_us(self) -> float:
        """How long a small save to disk takes on average."""
        return self._saver.average_save_us

    def peer_status(self, server_id: int) -> PeerStatus:
        """How far a server is, as the leader sees it."""
        raft = self.raft
        if not raft.is_leader:
            return PeerStatus(None, None)
        if server_id == self.options.server_id:
            return PeerStatus(raft.persisted_index, alive=True)
        progress = raft.progress[server_id]
        oldest_us = self._now_us() - raft.options.election_timeout_us_max
        return PeerStatus(progress.match_index, progress.last_contact_us >= oldest_us)

    # For the transport

    def deliver(self, sender: int, messages: Sequence[Chunk]) -> None:
        """Messages have come; the driver is woken."""
        self.put_into_inbox(sender, messages)
        self.wake()

    def put_into_inbox(self, sender: int, messages: Sequence[Chunk]) -> None:
        """Messages have come, which may be changed afterwards, and :meth:`act` will be called."""
        for data in messages:
            try:
                self._inbox.append((sender, codec.decode(data)))
            except codec.BadMessage as error:
                self.observer.log("message refused", sender=sender, why=str(error))

    def peer_connected(self, server_id: int) -> None:
        """A new connection to a server was made; what was on its way on the old one may be lost."""
        self._connected_again.append(server_id)
        self.wake()

    def peer_disconnected(self, server_id: int) -> None:
        """A connection to or from a server broke."""
        self._step(PeerDisconnected(server_id))

    # Running

    def attach(self, transport: Sender) -> None:
        """Send by this transport from now on."""
        self._transport = transport

    def tasks(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        """What is to be run, all of it at the same time, until cancelled, once a transport is attached.

        Each raises DiskFailed when the disk failed in a way that leaves no safe way on, or LogCorrupt.
        """
        return (
            self._saver.run,
            self._room.run,
            self._entry_reader.run,
            *self._snapshots.tasks(self._saver.take_receiver),
            self._keep_clock,
            self._drive,
        )

    def driven_by(self, wake: Callable[[], None], look_again: Callable[[], None]) -> None:
        """Have somebody else take the turns: :meth:`turn` after each call of ``wake``, and when it is ``deadline_us``.

        ``look_again`` says that ``deadline_us`` may be sooner than it was. To be called before the node runs.
        """
        self._wake_driver, self._look_again = wake, look_again

    async def hand_over(self, timeout_seconds: float) -> None:
        """Before a stop: have another server lead, if this one does; wait until it does or the time is up."""
        if not self.raft.is_leader:
            return
        self._another_leads = self._signal()
        self._step(TransferLeadership())
        await self._runtime.wait_until(self._another_leads, self._now_us() + round(timeout_seconds * 1e6))

    async def _drive(self) -> None:
        while self._wake_driver is None:
            self._sleeps_until_us = self.deadline_us()
            await self._runtime.wait_until(self._work, self._sleeps_until_us)
            self._work = self._signal()
            self.turn()

    def deadline_us(self) -> int:
        """When there will be something to do though nothing comes."""
        deadline_us = self.raft.deadline_us
        proposer_us = self._proposer.deadline_us(self._now_us)
        if proposer_us is not None and proposer_us < deadline_us:
            deadline_us = proposer_us
        observer_us = self.observer.due_us()
        if observer_us is not None and observer_us < deadline_us:
            deadline_us = observer_us
        put_off_us = self._pace.until_us
        return deadline_us if put_off_us is None or put_off_us > deadline_us else put_off_us

    def reconsider_deadline(self) -> None:
        """The observer may want a turn sooner than it did when the driver was last told."""
        if self._wake_driver is not None:
            self._look_again()
        elif self.deadline_us() < self._sleeps_until_us:
            self.wake()

    def turn(self) -> None:
        """Take all that has come, and do all that follows from it. For the driver."""
        now_us = self._now_us()
        raft, observer, proposer = self.raft, self.observer, self._proposer
        self._take_inbox(now_us)
        self._notice_leader()
        has_gathered = observer.has_gathered()
        raft.reads.held = proposer.waits_for_others(now_us, has_gathered=has_gathered)
        if not raft.reads.held:
            if has_gathered:
                observer.proposes()
            proposer.propose(now_us)
        if self._barriers.wants_number:
            self._begin_barrier(now_us)
        if raft.has_output:
            self._carry_out(raft.ready())
        while self._saved_readies:
            self._take_saved(now_us)
            if raft.has_output:
                self._carry_out(raft.ready())
        if self._apply_committed() and proposer.has_more:
            # What was applied has made room for more, or opened the session that it waits for.
            self.wake()

    def _take_inbox(self, now_us: int) -> None:
        raft = self.raft
        inbox, self._inbox = self._inbox, []
        connected, self._connected_again = self._connected_again, []
        for server_id in connected:
            raft.step(PeerConnected(server_id), now_us)
            if server_id == raft.leader_id:
                self._proposer.connected_to_leader()
        for sender, envelope in inbox:
            self._receive(sender, envelope, now_us)
        if now_us >= raft.deadline_us:
            raft.step(Timeout(), now_us)
        if self._saved_readies:
            self._take_saved(now_us)

    def _receive(self, sender: int, envelope: codec.Envelope, now_us: int) -> None:
        self._room.hear(sender, envelope.flags)
        message = envelope.message
        if isinstance(message, Proposals):
            self._proposer.forward(sender, message)
            return
        hear(self.clock, self.raft, message, envelope.clock_us, self.replica.clock_us, now_us)
        self.raft.step(Receive(sender, message), now_us)

    def _notice_leader(self) -> None:
        followed = (self.raft.leader_id, self.raft.current_term)
        if followed != self._followed:
            self._followed = followed
            if self.raft.is_leader:
                self.clock.line = self.raft.current_term
            self._proposer.leader_changed()
            if followed[0] not in (None, self.options.server_id):
                self._another_leads.set()
            self.observer.leader_changed()

    def _begin_barrier(self, now_us: int) -> None:
        if self.raft.leader_id is not None:
            number = self._barriers.begin()
            if number is not None:
                self._barrier_asked_of = self._followed
                self.raft.step(ReadBarrier(number), now_us)

    # Carrying out a ready value

    def _carry_out(self, ready: Ready) -> None:
        if ready.messages:
            self._send(ready.messages)
        for chunk in ready.chunks_to_send:
            self._send_chunk(chunk)
        if ready.entries_to_read:
            self._entry_reader.read(ready.entries_to_read)
        if ready.must_save or ready.messages_after_save or ready.chunks_received:
            self._saver.save(ready, leads=self.raft.is_leader)
        for number in ready.barriers_failed:
            self._barriers.failed(number)
        for confirmed in ready.barriers:
            self._barriers.confirmed(confirmed.barrier, confirmed.read_index)
        if (ready.barriers or (ready.barriers_failed and self._may_ask_at_once())) and self._barriers.wants_number:
            # What gathered meanwhile can ask for its barrier now.
            self.wake()

    def _may_ask_at_once(self) -> bool:
        """Whether there is another leader than the one that a barrier was asked of and failed.

        One that has stepped down says no as often as it is asked, until this server gives it up too: the next turn,
        whatever that is for, is soon enough.
        """
        raft = self.raft
        return raft.leader_id is not None and (raft.leader_id, raft.current_term) != self._barrier_asked_of

    def _take_saved(self, now_us: int) -> None:
        """What is on disk may be spoken of, and counts."""
        saved = self._saved_readies[:]
        self._saved_readies.clear()
        for ready in saved:
            if ready.messages_after_save:
                self._send(ready.messages_after_save)
            if ready.must_save:
                run = ready.runs[-1] if ready.runs else None
                term, index = (run.term, run.last_index) if run is not None else (0, 0)
                self.raft.step(Persisted(term, index, ready.hard_state), now_us)
                self._room.check()
            if ready.chunks_received and any(received.chunk.done for received in ready.chunks_received):
                self._snapshots.received()

    def _send(self, messages: list[Outgoing]) -> None:
        transport = self._transport
        assert transport is not None, "the node runs"
        clock_us, flags = self.clock.now_us(), self._room.own_flags()
        encoded_of = None
        data = b""
        for outgoing in messages:
            if outgoing.message is not encoded_of:
                encoded_of = outgoing.message
                data = codec.encode(encoded_of, clock_us, flags)
            transport.send(outgoing.to, data, urgent=outgoing.urgent)

    def _send_proposals(self, leader_id: int, proposals: Proposals) -> None:
        assert self._transport is not None, "the node runs"
        self._transport.send(leader_id, codec.encode(proposals, self.clock.now_us(), self._room.own_flags()))

    def _send_chunk(self, wanted: ChunkToSend) -> None:
        data = self._snapshots.read_chunk(wanted)
        if data is None:
            # Another snapshot has taken its place: begin again with that.
            self.peer_connected(wanted.to)
        else:
            self._send([Outgoing(wanted.to, attrs.evolve(wanted.header, data=data), urgent=False)])

    def _disk_is_full(self, why: str) -> None:
        self._say("the disk is full: changes wait until there is room", why=why)
        self._storage.remove_spares()

    # Applying

    def _apply_committed(self) -> bool:
        """Apply what is committed, for a few milliseconds at most, and answer who waits. False if nothing was."""
        raft, replica, proposer = self.raft, self.replica, self._proposer
        if self._snapshots.installing or not (
            replica.applied_index < raft.commit_index or self._barriers.is_confirmed_up_to(replica.applied_index)
        ):
            self._pace.rest()
            return False
        now_us = self._now_us()
        awaited = raft.is_leader or proposer.awaits_outcomes or not self._barriers.is_empty
        if not self._pace.is_time(now_us, awaited=awaited):
            return False
        until_us = now_us + APPLY_SLICE_US
        while replica.applied_index < raft.commit_index:
            first_index = replica.applied_index + 1
            for index, entry in enumerate(
                raft.log.entries(first_index, min(raft.commit_index, first_index + APPLY_COUNT - 1)), first_index
            ):
                outcome = replica.apply(index, entry)
                if outcome is not None:
                    proposer.applied(outcome, now_us)
            if replica.applied_index < raft.commit_index and self._now_us() >= until_us:
                self.wake()
                break
        self.clock.observe(replica.clock_us, now_us)
        self._barriers.release(replica.applied_index)
        self.observer.applied()
        self._snapshots.check()
        return True

    async def _keep_clock(self) -> None:
        while True:
            await self._runtime.sleep(CLOCK_SAVE_US)
            self._storage.save_clock(self.clock.now_us())
