"""Getting batches into the log once and in order, whatever becomes of messages, leaders and servers."""

from __future__ import annotations

from typing import cast

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from raftnode import entries
from raftnode.cluster_clock import ClusterClock
from raftnode.entries import EntryKind
from raftnode.proposals import Proposals, Propose
from raftnode.proposer import MESSAGE_BYTES, MESSAGE_COUNT, OPENS_SESSION, RESEND_US, Proposer
from raftnode.replica import Replica, Session
from raftnode.submissions import Lane, Submission
from statemachine.events import Event, Submit
from statemachine.log import Log
from statemachine.raft import Raft
from statemachine.reads import PendingRead, Reads
from tests.stage3_raftnode.machines import ListMachine

NONCE = 1234


@attrs.define(eq=False)
class FakeRaft:
    """As much of Raft as a proposer sees."""

    server_id: int
    leader_id: int | None = None
    transferring: bool = False
    now_us: int = 0
    log: Log = attrs.Factory(Log)
    commit_index: int = 0
    submitted: list[Submit] = attrs.Factory(list)
    reads: Reads = attrs.Factory(lambda: Reads(first_number=0))

    @property
    def gathered_readers(self) -> set[int]:
        return {read.requester for read in self.reads.gathering}

    @property
    def is_leader(self) -> bool:
        return self.leader_id == self.server_id

    @property
    def accepts_submissions(self) -> bool:
        return self.is_leader and not self.transferring

    def step(self, event: Event, _now_us: int) -> None:
        assert isinstance(event, Submit)
        self.log.append(1, event.entries)
        self.submitted.append(event)

    def take(self) -> list[bytes]:
        taken = [entry for submit in self.submitted for entry in submit.entries]
        self.submitted.clear()
        return taken


@attrs.define(eq=False)
class Server:
    """A proposer, with all that it needs."""

    server_id: int
    nonce: int = NONCE
    raft: FakeRaft = attrs.field(init=False)
    machine: ListMachine = attrs.Factory(ListMachine)
    replica: Replica = attrs.field(init=False)
    proposer: Proposer = attrs.field(init=False)
    sent: list[tuple[int, Proposals]] = attrs.Factory(list)
    told: dict[bytes, int] = attrs.Factory(dict)

    def __attrs_post_init__(self) -> None:
        self.raft = FakeRaft(self.server_id)
        self.replica = Replica(self.machine)
        clock = ClusterClock(lambda: self.raft.now_us)
        self.proposer = Proposer(
            cast(Raft, self.raft), self.replica, clock, self.nonce, lambda to, what: self.sent.append((to, what))
        )

    def submit(self, payload: bytes, lane: Lane = Lane.SMALL) -> Submission:
        def done(results: int) -> None:
            assert payload not in self.told, "told twice"
            self.told[payload] = results

        submission = Submission(payload, lane, done)
        self.proposer.submissions.add(submission)
        return submission

    def propose(self) -> None:
        self.proposer.propose(self.raft.now_us)

    def apply(self, *log: bytes) -> None:
        for entry in log:
            outcome = self.replica.apply(self.replica.applied_index + 1, entry)
            if outcome is not None:
                self.proposer.applied(outcome, self.raft.now_us)

    def follow(self, leader_id: int | None) -> None:
        self.raft.leader_id = leader_id
        self.proposer.leader_changed()

    def deadline_us(self) -> int | None:
        return self.proposer.deadline_us(lambda: self.raft.now_us)

    def take_sent(self) -> list[Propose]:
        taken = [item for _, proposals in self.sent for item in proposals.items]
        self.sent.clear()
        return taken


def leader() -> Server:
    """One that leads and has its session."""
    server = Server(1)
    server.follow(1)
    server.propose()
    server.apply(*server.raft.take())
    assert server.proposer.submissions.session == 1
    return server


def follower() -> Server:
    """One that follows server 1, and has its session."""
    server = Server(2)
    server.follow(1)
    server.propose()
    assert server.take_sent() == [Propose(OPENS_SESSION, NONCE, 0, b"")]
    server.apply(entries.encode_open_session(0, 2, NONCE))
    return server


def test_nothing_is_proposed_while_nobody_leads() -> None:
    server = Server(2)
    server.submit(b"a")
    server.proposer.forward(3, Proposals((Propose(9, 1, 0, b""),)))
    server.propose()
    server.follow(2)
    server.propose()
    assert [entries.decode(entry)[0] for entry in server.raft.take()] == [EntryKind.OPEN_SESSION]


def test_nothing_is_due_while_nobody_leads() -> None:
    """Or a node would be kept awake by a deadline that has passed and that it can do nothing about."""
    server = follower()
    server.submit(b"a")
    server.propose()
    server.follow(None)
    server.raft.now_us += 2 * RESEND_US
    assert server.deadline_us() is None
    assert not server.proposer.has_more
    server.follow(3)
    assert server.proposer.has_more


def test_a_session_is_asked_for_again_in_time() -> None:
    server = Server(2)
    server.follow(1)
    server.submit(b"a")
    server.propose()
    assert len(server.take_sent()) == 1
    assert server.deadline_us() == RESEND_US
    server.propose()
    assert server.take_sent() == []
    server.raft.now_us += RESEND_US
    server.propose()
    assert server.take_sent() == [Propose(OPENS_SESSION, NONCE, 0, b"")]
    server.proposer.connected_to_leader()
    server.propose()
    assert len(server.take_sent()) == 1


def test_a_leader_puts_its_own_and_what_others_forward_into_the_log() -> None:
    server = leader()
    server.submit(b"own")
    server.apply(entries.encode_open_session(0, 2, NONCE))
    server.proposer.forward(2, Proposals((Propose(2, 1, 0, b"forwarded"),)))
    server.propose()
    (submit,) = server.raft.submitted
    assert submit.waiting == {2}, "it is told at once when this is committed"
    decoded = [entries.decode(entry) for entry in submit.entries]
    assert [(session, payload) for _, _, session, _, _, payload in decoded] == [(2, b"forwarded"), (1, b"own")]


def test_a_leader_waits_for_the_batches_of_others_a_moment_at_most() -> None:
    server = leader()
    server.apply(entries.encode_open_session(0, 2, NONCE))
    server.submit(b"own")
    server.proposer.forward(2, Proposals((Propose(2, 1, 0, b"forwarded"),)))
    assert not server.proposer.waits_for_others(server.raft.now_us, has_gathered=False), "nobody is expected yet"
    server.propose()
    server.raft.now_us += 1000
    server.raft.commit_index = server.raft.log.last_index
    server.apply(*server.raft.take())
    assert not server.proposer.waits_for_others(server.raft.now_us, has_gathered=False), "there is nothing to propose"
    assert server.proposer.waits_for_others(server.raft.now_us, has_gathered=True), "server 2 is expected"
    until_us = server.deadline_us()
    assert until_us is not None
    assert until_us > server.raft.now_us
    assert not server.proposer.waits_for_others(until_us, has_gathered=True), "it has not come"
    server.follow(3)
    assert not server.proposer.waits_for_others(server.raft.now_us, has_gathered=True), "only a leader waits"
    server.follow(1)
    assert not server.proposer.waits_for_others(server.raft.now_us, has_gathered=True), "that was in another term"


def test_a_server_that_asks_for_a_barrier_is_there_with_it() -> None:
    server = leader()
    server.submit(b"own")
    server.raft.reads.gathering.append(PendingRead(2, 1, 0))
    assert not server.proposer.waits_for_others(server.raft.now_us, has_gathered=False), "nobody is expected yet"
    server.propose()
    server.raft.reads.gathering.clear()
    server.raft.now_us += 1000
    server.raft.commit_index = server.raft.log.last_index
    server.apply(*server.raft.take())
    assert server.proposer.waits_for_others(server.raft.now_us, has_gathered=True), "its reads were in the round"
    server.raft.reads.gathering.append(PendingRead(2, 2, 0))
    assert not server.proposer.waits_for_others(server.raft.now_us, has_gathered=True), "it has come, to read again"


def test_much_is_sent_in_several_messages() -> None:
    server = follower()
    for number in range(MESSAGE_COUNT + 1):
        server.submit(b"%d" % number)
    for _ in range(3):
        server.submit(bytes(MESSAGE_BYTES // 2))
    server.propose()
    assert [len(proposals.items) for _, proposals in server.sent] == [MESSAGE_COUNT, 2, 2]
    assert [item.sequence for item in server.take_sent()] == list(range(1, MESSAGE_COUNT + 5))


def test_batches_are_sent_again_when_nothing_comes_of_them() -> None:
    server = follower()
    server.submit(b"a")
    server.submit(b"b")
    server.propose()
    assert len(server.take_sent()) == 2
    server.raft.now_us = RESEND_US // 2
    server.apply(entries.encode_batch(0, 1, 1, 0, b"a"))
    assert server.deadline_us() == RESEND_US // 2 + RESEND_US, "something has come"
    server.raft.now_us = RESEND_US // 2 + RESEND_US
    server.propose()
    assert [item.sequence for item in server.take_sent()] == [2]


def test_batches_are_sent_again_to_the_next_leader_and_on_the_next_connection() -> None:
    server = follower()
    server.submit(b"a")
    server.propose()
    assert [item.sequence for item in server.take_sent()] == [1]
    server.follow(3)
    server.propose()
    assert [item.sequence for item in server.take_sent()] == [1]
    server.proposer.connected_to_leader()
    server.propose()
    assert [item.sequence for item in server.take_sent()] == [1]


def test_a_gap_in_the_log_makes_its_sender_send_again() -> None:
    server = follower()
    server.submit(b"a")
    server.submit(b"b")
    server.propose()
    server.take_sent()
    server.apply(entries.encode_batch(0, 1, 2, 0, b"b"))
    assert server.proposer.has_more
    server.propose()
    assert [item.sequence for item in server.take_sent()] == [1, 2]


def test_a_gap_of_another_server_is_its_own_matter() -> None:
    server = follower()
    server.submit(b"a")
    server.propose()
    server.apply(entries.encode_open_session(0, 3, 5), entries.encode_batch(0, 2, 2, 0, b"b"))
    assert not server.proposer.has_more


def test_proposals_wait_while_leadership_is_being_handed_over() -> None:
    server = leader()
    server.raft.transferring = True
    server.submit(b"a")
    server.propose()
    assert server.raft.take() == []
    server.raft.transferring = False
    server.propose()
    assert len(server.raft.take()) == 1


def test_a_session_that_another_run_took_over_is_opened_anew() -> None:
    server = follower()
    server.submit(b"a")
    server.propose()
    server.take_sent()
    server.apply(entries.encode_open_session(0, 2, NONCE + 1))
    assert server.proposer.submissions.session == 0
    server.raft.now_us += RESEND_US
    server.propose()
    assert server.take_sent() == [Propose(OPENS_SESSION, NONCE, 0, b"")]
    server.apply(entries.encode_open_session(0, 2, NONCE))
    server.propose()
    assert server.take_sent() == [Propose(3, 1, 0, b"a")]


def restore(server: Server, session: Session | None) -> None:
    server.replica.sessions = {session.session: session} if session is not None else {}
    server.proposer.restored()


def test_a_session_that_a_snapshot_tells_of() -> None:
    server = Server(2)
    restore(server, Session(7, 2, NONCE))
    assert server.proposer.submissions.session == 7
    restore(server, Session(7, 2, NONCE))
    assert server.proposer.submissions.session == 7


def test_a_session_of_an_earlier_run_in_a_snapshot() -> None:
    server = Server(2)
    restore(server, Session(7, 2, NONCE + 1))
    assert server.proposer.submissions.session == 0
    restore(server, None)
    assert server.proposer.submissions.session == 0


def test_a_session_that_was_opened_once_more_in_a_snapshot() -> None:
    """An earlier run's request came late, and this run's once more: the replicas wouldn't open it a third time."""
    server = follower()
    restore(server, Session(9, 2, NONCE))
    assert server.proposer.submissions.session == 9


def test_a_tick_is_proposed_when_something_is_due_and_nothing_else_is() -> None:
    server = leader()
    server.submit(b"in 1000 due")
    server.propose()
    server.apply(*server.raft.take())
    assert server.deadline_us() == 1000
    server.raft.now_us = 999
    server.propose()
    assert server.raft.take() == []
    server.raft.now_us = 1001
    assert server.deadline_us() == 1001
    server.propose()
    (tick,) = server.raft.take()
    assert entries.decode(tick)[0] == EntryKind.TICK
    assert server.deadline_us() is None
    server.propose()
    assert server.raft.take() == []
    server.apply(tick)
    assert server.machine.items == [b"due"]


def test_no_tick_where_a_batch_brings_the_time() -> None:
    server = leader()
    server.submit(b"in 1000 due")
    server.propose()
    server.apply(*server.raft.take())
    server.raft.now_us = 1500
    server.submit(b"other")
    server.propose()
    assert [entries.decode(entry)[0] for entry in server.raft.take()] == [EntryKind.BATCH]


def test_stamps_never_go_back() -> None:
    """Even where the log is ahead of this server's reading."""
    server = leader()
    server.apply(entries.encode_tick(5000))
    server.follow(1)
    server.submit(b"a")
    server.propose()
    assert [entries.stamp_of(entry) for entry in server.raft.take()] == [5000]


# Everything at once


class World(RuleBasedStateMachine):
    """Three servers, whose messages get lost, come twice, late and in any order; leaders, runs and snapshots change.

    What the leader puts into its log is committed later, or lost with the leadership. Servers learn of a new leader
    one by one. At the end everything is delivered, and then everything must be done.
    """

    def __init__(self) -> None:
        super().__init__()
        self.servers = {server_id: Server(server_id, nonce=server_id) for server_id in (1, 2, 3)}
        self.runs = 3
        self.leader_id = 1
        self.committed: list[bytes] = []
        self.uncommitted: list[bytes] = []
        self.network: list[tuple[int, int, Proposals]] = []
        self.now_us = 0
        self.count = 0
        self.waiting: dict[bytes, int] = {}
        """Whose each batch is, if that run of the server goes on."""
        self.positions: dict[bytes, int] = {}
        """What anybody was told."""

    @initialize()
    def begin(self) -> None:
        for server in self.servers.values():
            server.follow(1)

    servers_ids = st.sampled_from([1, 2, 3])

    @rule(server_id=servers_ids, count=st.integers(1, 3), lane=st.sampled_from(Lane))
    def submit(self, server_id: int, count: int, lane: Lane) -> None:
        for _ in range(count):
            self.count += 1
            payload = b"%d" % self.count
            self.waiting[payload] = server_id
            self.servers[server_id].submit(payload, lane)

    @rule(server_id=servers_ids)
    def turn(self, server_id: int) -> None:
        server = self.servers[server_id]
        server.raft.now_us = self.now_us
        server.propose()
        self.network += [(server_id, to, proposals) for to, proposals in server.sent]
        server.sent.clear()
        submitted = server.raft.take()
        if server_id == self.leader_id:
            self.uncommitted += submitted

    @precondition(lambda self: self.network)
    @rule(which=st.integers(0, 100), again=st.booleans())
    def deliver(self, which: int, *, again: bool) -> None:
        position = which % len(self.network)
        sender, to, proposals = self.network[position] if again else self.network.pop(position)
        self.servers[to].proposer.forward(sender, proposals)

    @precondition(lambda self: self.network)
    @rule(which=st.integers(0, 100))
    def lose(self, which: int) -> None:
        self.network.pop(which % len(self.network))

    @rule(microseconds=st.sampled_from([1, 1000, RESEND_US]))
    def wait(self, microseconds: int) -> None:
        self.now_us += microseconds

    @rule(count=st.integers(1, 5))
    def commit(self, count: int) -> None:
        self.committed += self.uncommitted[:count]
        del self.uncommitted[:count]

    @rule(server_id=servers_ids, count=st.integers(1, 5))
    def apply(self, server_id: int, count: int) -> None:
        server = self.servers[server_id]
        first = server.replica.applied_index
        server.apply(*self.committed[first : first + count])

    @rule(leader_id=servers_ids, kept=st.integers(0, 5))
    def elect(self, leader_id: int, kept: int) -> None:
        """The new leader has all that is committed, and some of the rest."""
        del self.uncommitted[kept:]
        self.leader_id = leader_id

    @rule(server_id=servers_ids, knows=st.booleans())
    def notice(self, server_id: int, *, knows: bool) -> None:
        server = self.servers[server_id]
        leader_id = self.leader_id if knows else None
        if leader_id != server_id or self.knows_term(server_id):
            server.follow(leader_id)

    def knows_term(self, server_id: int) -> bool:
        """Whoever leads has applied what was committed before; the fake Raft puts nothing else into its log."""
        server = self.servers[server_id]
        server.apply(*self.committed[server.replica.applied_index :])
        return True

    @rule(server_id=servers_ids)
    def reconnect(self, server_id: int) -> None:
        self.servers[server_id].proposer.connected_to_leader()

    @rule(server_id=servers_ids, source=servers_ids)
    def install(self, server_id: int, source: int) -> None:
        server, other = self.servers[server_id], self.servers[source]
        if server.replica.applied_index < other.replica.applied_index:
            restore = server.replica.begin_restore()
            for chunk in other.replica.snapshot():
                restore.feed(chunk)
            restore.finish()
            server.proposer.restored()

    @precondition(lambda self: self.runs < 8)
    @rule(server_id=servers_ids)
    def restart(self, server_id: int) -> None:
        """Its messages don't outlive it: a new connection takes the place of the old one."""
        self.collect()
        self.runs += 1
        self.waiting = {payload: owner for payload, owner in self.waiting.items() if owner != server_id}
        self.network = [message for message in self.network if message[0] != server_id]
        server = self.servers[server_id] = Server(server_id, nonce=self.runs)
        server.raft.now_us = self.now_us
        for other in self.servers.values():
            # What it forwarded to leaders that have not put it into their logs is gone with their turns.
            if other is not server:
                self.turn(other.server_id)
        if self.leader_id != server_id:
            server.follow(self.leader_id)

    def collect(self) -> None:
        for server in self.servers.values():
            for payload, position in server.told.items():
                assert self.positions.setdefault(payload, position) == position

    @invariant()
    def nothing_is_applied_twice_and_what_was_told_is_true(self) -> None:
        self.collect()
        longest = max((server.machine.items for server in self.servers.values()), key=len)
        assert len(set(longest)) == len(longest)
        for server in self.servers.values():
            assert server.machine.items == longest[: len(server.machine.items)]
        for payload, position in self.positions.items():
            assert len(longest) < position or longest[position - 1] == payload

    def teardown(self) -> None:
        """In the end everything is done."""
        for server_id in self.servers:
            self.notice(server_id, knows=True)
        for _ in range(8):
            self.wait(RESEND_US)
            for server_id in self.servers:
                self.turn(server_id)
            while self.network:
                self.deliver(0, again=False)
            self.turn(self.leader_id)
            self.commit(len(self.uncommitted))
            for server_id in self.servers:
                self.apply(server_id, len(self.committed))
        self.collect()
        assert set(self.waiting) <= set(self.positions)
        for server in self.servers.values():
            assert len(server.proposer.submissions) == 0


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=150, stateful_step_count=60)
