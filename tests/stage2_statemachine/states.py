"""Servers put into a state, and what they do there, as plain values that tests compare whole."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from statemachine.configuration import Configuration
from statemachine.events import EntriesRun, Event, HardState, Persisted, Receive, Timeout
from statemachine.messages import AppendEntries, AppendEntriesResult, Message, RequestVoteResult, ServerId
from statemachine.progress import SnapshotMeta
from statemachine.raft import Raft
from statemachine.ready import Ready
from statemachine.roles import Options, Restored
from tests.stage2_statemachine.transcript import FixedDice

MS = 1_000
OPTIONS = Options(heartbeat_us=100 * MS)
ELECTION_TIMEOUT_US = OPTIONS.election_timeout_us_min
"""Of server 1, always."""
THREE = Configuration(voters=(1, 2, 3))
FIVE = Configuration(voters=(1, 2, 3, 4, 5))


def entry(index: int, term: int) -> bytes:
    """The contents of an entry that a test's server starts with."""
    return f"{term}.{index}".encode()


def runs_of(terms: Iterable[int], first_index: int = 1) -> tuple[EntriesRun, ...]:
    """A log by the terms of its entries."""
    return tuple(EntriesRun(i, term, (entry(i, term),)) for i, term in enumerate(terms, first_index))


def server(
    terms: Iterable[int] = (),
    *,
    term: int = 0,
    voted_for: ServerId | None = None,
    configuration: Configuration = THREE,
    options: Options = OPTIONS,
    snapshot: SnapshotMeta | None = None,
    server_id: ServerId = 1,
) -> Raft:
    """Server 1, just started at time 0: a follower that knows no leader."""
    terms = tuple(terms)
    first_index = snapshot.last_included_index + 1 if snapshot is not None else 1
    restored = Restored(
        hard_state=HardState(max(term, *terms, 0), voted_for), snapshot=snapshot, runs=runs_of(terms, first_index)
    )
    return Raft(server_id, configuration, options, FixedDice(server_id), restored, 0)


def save_all(raft: Raft, now_us: int | None = None) -> list[Ready]:
    """Drain and save until there is nothing more; all that was drained."""
    now_us = raft.now_us if now_us is None else now_us
    drained = []
    while True:
        ready = raft.ready()
        drained.append(ready)
        if not ready.must_save:
            return drained
        saved(raft, ready, now_us)


def saved(raft: Raft, ready: Ready, now_us: int | None = None) -> None:
    """Tell that a ready value is on disk."""
    run = ready.runs[-1] if ready.runs else EntriesRun(1, 0, ())
    raft.step(Persisted(run.term, run.last_index, ready.hard_state), raft.now_us if now_us is None else now_us)


def follower(terms: Iterable[int] = (), *, term: int, leader: ServerId | None = 2, **more: object) -> Raft:
    """A follower in a term, of a leader that it has heard of at time 0."""
    raft = server(terms, term=term, **more)  # type: ignore[arg-type]
    if leader is not None:
        base = raft.log.base_index
        heartbeat = AppendEntries(term, leader, base, raft.log.base_term, 0, (), raft.commit_index, 0)
        raft.step(Receive(leader, heartbeat), 0)
        save_all(raft)
    return raft


def pre_candidate(terms: Iterable[int] = (), *, term: int, **more: object) -> Raft:
    """A server that has just begun to ask for pre-votes, at its election timeout."""
    raft = server(terms, term=term, **more)  # type: ignore[arg-type]
    raft.step(Timeout(), raft.deadline_us)
    save_all(raft)
    return raft


def candidate(terms: Iterable[int] = (), *, term: int, **more: object) -> Raft:
    """A server that has just begun an election in ``term``, at its election timeout."""
    raft = pre_candidate(terms, term=term - 1, **more)
    for voter in sorted(raft.configuration.voters - {1}):
        if raft.current_term < term:
            raft.step(Receive(voter, RequestVoteResult(term, vote_granted=True, pre_vote=True)), raft.now_us)
    save_all(raft)
    return raft


def leader(terms: Iterable[int] = (), *, term: int, **more: object) -> Raft:
    """A server that has just been elected in ``term``, at its election timeout. Its first messages are under way."""
    raft = candidate(terms, term=term, **more)
    for voter in sorted(raft.configuration.voters - {1}):
        if not raft.is_leader:
            raft.step(Receive(voter, RequestVoteResult(term, vote_granted=True)), raft.now_us)
    save_all(raft)
    return raft


def accept(raft: Raft, *servers: ServerId, index: int | None = None, round_number: int | None = None) -> None:
    """Have followers acknowledge the leader's log up to ``index`` (to its end by default)."""
    for each in servers:
        message = AppendEntriesResult(
            raft.current_term,
            success=True,
            match_index=raft.log.last_index if index is None else index,
            conflict_index=0,
            conflict_term=0,
            round_number=raft.round_number if round_number is None else round_number,
        )
        raft.step(Receive(each, message), raft.now_us)


def receive(raft: Raft, sender: ServerId, message: Message, after_us: int = 0) -> Ready:
    """One message, and what follows from it."""
    return step(raft, Receive(sender, message), after_us)


def step(raft: Raft, event: Event, after_us: int = 0) -> Ready:
    """One event, and what follows from it."""
    raft.step(event, raft.now_us + after_us)
    has_output = raft.has_output
    ready = raft.ready()
    assert has_output or ready == Ready(commit_index=raft.commit_index), "a ready value that nobody asks for"
    return ready


def sent(ready: Ready) -> list[tuple[ServerId, Message]]:
    """What goes at once."""
    return [(outgoing.to, outgoing.message) for outgoing in ready.messages]


def sent_after_save(ready: Ready) -> list[tuple[ServerId, Message]]:
    """What goes when the ready value is saved."""
    return [(outgoing.to, outgoing.message) for outgoing in ready.messages_after_save]


def terms_of(raft: Raft) -> list[int]:
    """The terms of the entries of a log."""
    terms = (raft.log.term_at(index) for index in range(raft.log.first_index, raft.log.last_index + 1))
    return [term for term in terms if term is not None]


def state_of(raft: Raft) -> dict[str, object]:
    """Everything that a server knows, as plain values."""
    log = raft.log
    state: dict[str, object] = {
        "role": raft.role,
        "term": raft.current_term,
        "vote": raft.voted_for,
        "leader": raft.leader_id,
        "log": list(zip(terms_of(raft), log.entries(log.first_index, log.last_index), strict=True)),
        "log_base": (log.base_index, log.base_term),
        "committed": raft.commit_index,
        "known_committed": raft.known_commit_index,
        "saved": raft.persisted_index,
        "verified": raft.verified_index,
        "alarm_us": raft.deadline_us,
        "leader_contact_us": raft.leader_contact_us,
        "votes": sorted(raft.votes),
        "rejections": sorted(raft.rejections),
        "transfer": (raft.transfer_target, raft.transfer_deadline_us),
        "round": raft.round_number if raft.is_leader else None,
        "asked": dict(raft.reads.asked),
        "reads": [*raft.reads.awaiting_commit, *raft.reads.gathering, *raft.reads.confirming],
        "snapshot": raft.snapshot,
        "incoming": raft.incoming and attrs.asdict(raft.incoming),
    }
    for other, progress in raft.progress.items():
        state |= {f"{other}.{name}": value for name, value in attrs.asdict(progress).items()}
        state[f"{other}.inflight"] = list(progress.inflight)
    return state


def output_of(ready: Ready) -> dict[str, object]:
    """What a ready value tells to do; nothing for what it doesn't."""
    values = {
        "hard_state": ready.hard_state,
        "log_reset": ready.log_reset,
        "runs": ready.runs,
        "send": sent(ready),
        "send_after_save": sent_after_save(ready),
        "barriers": ready.barriers,
        "barriers_failed": ready.barriers_failed,
        "refused": ready.refused,
        "chunks_to_send": ready.chunks_to_send,
        "chunks_received": ready.chunks_received,
    }
    return {name: value for name, value in values.items() if value}


def changes_between(before: dict[str, object], after: dict[str, object]) -> dict[str, object]:
    """What is different afterwards; None for what is gone."""
    return {name: after.get(name) for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
