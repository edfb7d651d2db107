"""The backend of a server in a cluster: requests go through the node, replies come from the applied state.

Theory of operation
    Changes gather while a batch of them is under way, and become the next: one submission of the node. When this
    server's own replica has applied it, its clients are answered, and only then the next batch goes, once most of
    them have come again (:mod:`fileserver.returning_clients`). Fewer and bigger batches cost less, since each costs a
    message to every server and a flush; with two of them under way both would be half as big, and no sooner done.

    A big content goes ahead in pieces (:mod:`fileserver.big_contents`). A batch of reads waits for a barrier of the
    node and is then evaluated against the store. Replies are sent once for all that a turn of the node has applied
    (:attr:`ReplicatedBackend.flush_replies`).

    Reads that come together with changes need no barrier: they *ride* on the batch that these go in. Whatever was
    acknowledged before the reads came stands in the log before that batch, which is proposed later; so when this
    server's replica has applied it, the store is fresh enough for them (they are read through the log, as the beginning
    of thesis 6.4 has it). That saves their messages, and has all clients answered together, whose next requests then
    come together. They do so only while batches are quick, and ask for a barrier after all when theirs isn't. If no
    change has gathered when most clients are there, the reads ask for their barrier together.

    Reads that come too late for a batch ask for a barrier, since changes may have been acknowledged elsewhere after it.
    When that is passed and the batch is still under way, they *join* it all the same: answered at once, their clients
    would be too late for the next batch again, and again need messages of their own.

    Nothing waits longer than `request_timeout`. A change that was never proposed by then is withdrawn and was not
    applied; of one that was proposed nobody can tell yet, and it is said so. (It stays proposed: its sequence number is
    taken.)

Invariants
    A batch is completed exactly once: when it is applied, refused or out of time, it leaves the table of pending ones,
    and only what leaves the table is completed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import Final, TypeAlias

import attrs

from fileserver.backend import ChangeBatch, ClockCallback, Failure, FailureKind, ReadBatch, Upload
from fileserver.big_contents import carry_out
from fileserver.commands import Result, encode_batch
from fileserver.config import ClusterConfig
from fileserver.returning_clients import ReturningClients
from fileserver.store import Store
from raftnode.node import Node
from raftnode.runtime import Runtime
from raftnode.submissions import Submission
from statemachine.raft import Raft
from statemachine.roles import Role
from statemachine.values import value

Task: TypeAlias = Callable[[], Awaitable[None]]
StartSoon: TypeAlias = Callable[[Task], None]

PENDING_BYTES_MAX: Final = 256 << 20
"""Changes beyond this are refused as overload: so much waits for results already."""
GATHERED_BYTES_ENOUGH: Final = 64 << 10
"""So much content is worth a batch of its own beside one that is under way; twice as much beside two, and so on."""
PENDING_BATCHES_MAX: Final = 50_000
RIDE_US_MAX: Final = 20_000
"""Reads ride on a batch of changes while these take no longer than that on average."""
WATCH_US: Final = 250_000
"""How often it is looked for requests whose time is up."""
_MICROSECONDS: Final = 1_000_000


@value(eq=False)
class _Pending:
    """A batch of changes, or of reads, without a result."""

    batch: ChangeBatch | ReadBatch
    submission: Submission | None
    """None for reads."""
    begun_us: int
    give_up_at_us: int
    riders: list[ReadBatch]
    """What is read when the changes have been applied."""


class ReplicatedBackend:
    """See the module's docstring; `watch` must be running for timeouts."""

    def __init__(self, config: ClusterConfig, server_id: int, node: Node, store: Store, runtime: Runtime) -> None:
        """``store`` is what the node's machine changes."""
        self.store: Final = store
        self.start_soon: StartSoon = _start_nothing
        """Starts a task beside `watch`; to be set before anything is submitted."""
        self.flush_replies: Callable[[], None] = _nothing
        """Sends the replies of all connections that have some."""
        self.gathered_bytes_enough = GATHERED_BYTES_ENOUGH
        """May be set otherwise before anything is submitted."""
        self._config = config
        self._server_id = server_id
        self._node = node
        self._runtime = runtime
        self._now_us = runtime.now_us
        self._timeout_us = config.request_timeout_us
        self._numbers = count(1)
        self._pending: dict[int, _Pending] = {}
        self._under_way = 0
        """Batches of changes that are submitted and not applied."""
        self._submitted_last = 0
        """The number of the last of them."""
        self._gathered: ChangeBatch | None = None
        """What is to be the next."""
        self._gathered_until_us = 0
        self._riders: list[ReadBatch] = []
        """Reads that go with it, or ask for a barrier if there is none; only while no batch is under way."""
        self._rider_count = 0
        """How many requests that are."""
        self._returning = ReturningClients()
        self._is_told = False
        """The node knows that what has gathered is to go; it decides when it proposes."""
        self._waits_anew = False
        """Something has begun to wait for others in this pass."""
        self._average_batch_us = 0.0
        """How long batches of changes take, from being submitted to being applied."""
        self._has_news = False
        """Something was handed over in this pass."""
        self._waiting_for_clock: list[tuple[int, int, int, ClockCallback]] = []  # A heap by deadline.
        self._upload_numbers = count(1)
        self._is_watched = True
        """Something waits, or did when `watch` looked last."""
        self._something_waits = runtime.signal()

    async def watch(self) -> None:
        """Answer what has waited for too long, until cancelled. While nothing waits, this sleeps, too."""
        while True:
            if not (self._pending or self._gathered or self._riders or self._waiting_for_clock):
                self._is_watched = False
                self._something_waits = self._runtime.signal()
                await self._something_waits.wait()
            await self._runtime.sleep(WATCH_US)
            self._give_up_what_is_late()

    def _have_it_watched(self) -> None:
        """Something may have begun to wait."""
        self._is_watched = True
        self._something_waits.set()

    # What a backend does

    def submit(self, batch: ChangeBatch) -> None:
        """Have the changes replicated and applied, together with what else has gathered by the node's next turn."""
        if self._gathered is None:
            self._gathered = batch
            self._gathered_until_us = self._now_us() + self._timeout_us
        else:
            self._gathered.absorb(batch)
        self._tell_if_ready()

    def _tell_if_ready(self) -> None:
        """See that the node takes its turn if what has gathered is to go now."""
        if not self._is_told:
            if self._is_ready():
                self._is_told = self._has_news = True
            else:
                self._waits_anew = True

    def _is_ready(self) -> bool:
        """Whether what has gathered is to go."""
        if self._is_told:
            return True
        gathered = self._gathered
        if self._under_way:
            return gathered is not None and gathered.content_bytes >= self.gathered_bytes_enough * self._under_way
        count = self._waiting_count
        return count > 0 and self._returning.are_here(count, self._now_us())

    @property
    def _waiting_count(self) -> int:
        """How many requests have gathered."""
        return self._rider_count + (0 if self._gathered is None else len(self._gathered))

    def submit_upload(self, upload: Upload) -> None:
        """Have a change with a big content replicated and applied."""
        number = next(self._upload_numbers)
        self.start_soon(
            partial(carry_out, upload, number, self._node, self._runtime, self._timeout_us, self._timed_out)
        )

    def read(self, batch: ReadBatch) -> None:
        """Have the requests evaluated once the applied state is fresh enough."""
        redirect = self._redirect()
        if redirect is not None:
            batch.failed(redirect)
        elif self._may_ride():
            self._riders.append(batch)
            self._rider_count += len(batch)
            self._tell_if_ready()
        else:
            self._ask_for_barrier(batch, self._now_us())
            if self._node.wants_barrier:
                self._has_news = True

    def _may_ride(self) -> bool:
        """Whether there is a change to ride on, or most likely soon is: one was answered just now."""
        if self._under_way or self._average_batch_us > RIDE_US_MAX:
            return False
        return self._gathered is not None or self._returning.until_us > self._now_us()

    def _ask_for_barrier(self, batch: ReadBatch, begun_us: int) -> None:
        number = next(self._numbers)
        self._pending[number] = _Pending(batch, None, begun_us, begun_us + self._timeout_us, [])
        self._node.read_barrier(partial(self._fresh, number), wake=False)

    def begin(self) -> None:
        """Have the node take its turn, if there is something for it."""
        if not self._is_watched:
            self._have_it_watched()
        if self._has_news:
            self._has_news = self._waits_anew = False
            self._node.act()
        elif self._waits_anew:
            self._waits_anew = False
            self._node.reconsider_deadline()

    def clock_us(self) -> int:
        """Tell the cluster clock as this server extrapolates it."""
        return max(self._node.clock.now_us(), self.store.clock_us)

    def wait_for_clock(self, deadline_us: int, callback: ClockCallback) -> None:
        """Call back once the applied state has come to the deadline."""
        if self.store.clock_us >= deadline_us:
            callback(None)
            return
        give_up_at_us = self._now_us() + self._timeout_us
        heappush(self._waiting_for_clock, (deadline_us, next(self._numbers), give_up_at_us, callback))
        self._have_it_watched()

    def refusal(self) -> Failure | None:
        """Refuse changes when another server leads that clients are sent to, disks are full, or too much waits."""
        node = self._node
        if node.refuses_changes:
            return Failure(FailureKind.NOT_APPLIED, "no room on the disk of the leader, or on a majority's")
        submissions = node.submissions
        if submissions.pending_bytes > PENDING_BYTES_MAX or len(submissions) > PENDING_BATCHES_MAX:
            return Failure(FailureKind.BUSY, "too many changes wait for the cluster already", retry_seconds=1)
        return self._redirect()

    def status(self) -> Mapping[str, object]:
        """Give the values of the `status` reply."""
        raft = self._node.raft
        store = self.store
        return {
            "id": self._server_id,
            "cluster": self._config.cluster,
            "role": self._role(raft),
            "leader": raft.leader_id,
            "term": raft.current_term,
            "commit_index": raft.commit_index,
            "applied_index": self._node.replica.applied_index,
            "first_index": raft.log.first_index,
            "last_index": raft.log.last_index,
            "version": store.version,
            "files": store.files,
            "bytes": store.bytes,
            "clock": self.clock_us() / _MICROSECONDS,
            "state_hash": store.state_hash(),
            "disk_full": self._node.refuses_changes,
            "save_us": round(self._node.average_save_us),
            "servers": [
                {
                    "id": server.server_id,
                    "client": str(server.client),
                    "peer": str(server.peer),
                    "http": str(server.http),
                    "voter": server.server_id in raft.configuration.voters,
                    **attrs.asdict(self._node.peer_status(server.server_id)),
                }
                for server in self._config.servers
            ],
        }

    # What the node asks for, and tells

    def due_us(self) -> int | None:
        """When what has gathered is to go if nothing comes before; None if it waits for something else."""
        if self._under_way or self._is_told or (self._gathered is None and not self._riders):
            return None
        return self._returning.until_us

    def has_gathered(self) -> bool:
        """Whether changes have gathered that are to go the next time that the node proposes. From now on it knows.

        Reads that have gathered without changes ask for their barrier.
        """
        if self._gathered is None:
            if self._riders and self._is_ready():
                self._ask_for_riders_barrier()
            return False
        if not self._is_ready():
            return False
        self._is_told = True
        return True

    def _ask_for_riders_barrier(self) -> None:
        self._is_told = False
        now_us = self._now_us()
        for reads in self._take_riders():
            self._ask_for_barrier(reads, now_us)

    def submit_gathered(self) -> None:
        """Hand over to the node what has gathered, of which `has_gathered` has told."""
        gathered = self._gathered
        assert gathered is not None, "it has been told of"
        riders, self._gathered, self._is_told = self._take_riders(), None, False
        number = next(self._numbers)
        submission = self._node.submit(encode_batch(gathered.fields), partial(self._applied, number), wake=False)
        self._pending[number] = _Pending(gathered, submission, self._now_us(), self._gathered_until_us, riders)
        self._submitted_last = number
        self._under_way += 1

    def _take_riders(self) -> list[ReadBatch]:
        riders, self._riders, self._rider_count = self._riders, [], 0
        return riders

    def after_apply(self) -> None:
        """The node has applied entries or let reads pass: answer who waits for the clock, and send what there is."""
        waiting = self._waiting_for_clock
        clock_us = self.store.clock_us
        while waiting and waiting[0][0] <= clock_us:
            heappop(waiting)[3](None)
        self._returning.replies_go(self._waiting_count, self._now_us())
        if not self._is_told and self._is_ready():
            self._node.wake()
        self.flush_replies()

    def _applied(self, number: int, results: list[Result]) -> None:
        self._under_way -= 1
        pending = self._pending.pop(number)
        batch = pending.batch
        assert isinstance(batch, ChangeBatch), "reads aren't submitted"
        took_us = self._now_us() - pending.begun_us
        self._average_batch_us += (took_us - self._average_batch_us) / 8
        self._returning.answered(len(batch) + sum(map(len, pending.riders)), took_us)
        if len(results) == len(batch):
            batch.applied(results)
        else:
            batch.failed(Failure(FailureKind.NOT_APPLIED, "the batch could not be read"))
        for reads in pending.riders:
            reads.ready()

    def _fresh(self, number: int) -> None:
        pending = self._pending.pop(number, None)
        if pending is not None:
            assert isinstance(pending.batch, ReadBatch), "changes need no barrier"
            joined = self._to_join()
            if joined is not None:
                joined.riders.append(pending.batch)
            else:
                pending.batch.ready()

    def _to_join(self) -> _Pending | None:
        """Give the batch that reads wait for which are fresh enough without it: one that is quick, too."""
        if self._under_way != 1 or self._average_batch_us > RIDE_US_MAX:
            return None
        pending = self._pending.get(self._submitted_last)
        # One that isn't quick for once, as on a full disk, mustn't keep back reads again and again.
        return pending if pending is not None and pending.begun_us + RIDE_US_MAX > self._now_us() else None

    # Time

    def _give_up_what_is_late(self) -> None:
        now_us = self._now_us()
        late = []
        slow = []
        for number, pending in self._pending.items():
            if pending.riders and pending.begun_us + RIDE_US_MAX <= now_us:
                slow.append(pending)
            if pending.give_up_at_us <= now_us:
                late.append(number)
        for pending in slow:
            self._let_off(pending.riders, pending.begun_us)
        for number in late:
            self._give_up(self._pending.pop(number))
        if self._gathered is not None and self._gathered_until_us <= now_us:
            self._gathered.failed(self._timed_out(applied_maybe=False))
            self._gathered, self._is_told = None, False
            self._let_off(self._take_riders(), now_us)
        if self._is_ready():
            self._node.wake()
        overdue = [waiter for waiter in self._waiting_for_clock if waiter[2] <= now_us]
        if overdue:
            self._waiting_for_clock = sorted(set(self._waiting_for_clock).difference(overdue))
            for _, _, _, callback in overdue:
                callback(self._timed_out(applied_maybe=False))
        self.flush_replies()

    def _let_off(self, riders: list[ReadBatch], begun_us: int) -> None:
        """Have reads ask for a barrier after all: a full disk, for one, keeps back changes alone."""
        if riders:
            for reads in riders:
                self._ask_for_barrier(reads, begun_us)
            riders.clear()
            self._node.wake()

    def _give_up(self, pending: _Pending) -> None:
        withdrawn = True
        if pending.submission is not None:
            # Whether it is applied one day or not, nobody will be told.
            self._under_way -= 1
            withdrawn = self._node.withdraw(pending.submission)
            self._let_off(pending.riders, pending.begun_us)
        pending.batch.failed(self._timed_out(applied_maybe=not withdrawn))

    def _timed_out(self, *, applied_maybe: bool) -> Failure:
        kind = FailureKind.OUTCOME_UNKNOWN if applied_maybe else FailureKind.NOT_APPLIED
        why = "no leader is known" if self._node.raft.leader_id is None else "the leader can't reach a majority in time"
        return Failure(kind, f"{why} (waited {self._timeout_us / _MICROSECONDS:g} s)")

    # Who leads

    def _redirect(self) -> Failure | None:
        if self._config.forward:
            return None
        raft = self._node.raft
        if raft.is_leader:
            return None
        if raft.leader_id is None:
            return Failure(FailureKind.BUSY, "no leader is known", retry_seconds=1)
        return Failure(FailureKind.REDIRECT, address=str(self._config.server(raft.leader_id).client))

    def _role(self, raft: Raft) -> str:
        if raft.server_id not in raft.configuration.voters:
            return "learner"
        return "candidate" if raft.role is Role.PRE_CANDIDATE else raft.role.value


def _start_nothing(_task: Task) -> None:
    raise AssertionError("the backend's start_soon is set before it is used")


def _nothing() -> None:
    """Do nothing."""
