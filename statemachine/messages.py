"""The RPCs of Raft as frozen values, named as in the Raft thesis, Figure 3.1.

A message says nothing of its sender or its receiver: whoever delivers it knows both
(:class:`~statemachine.events.Receive` names the sender, a ready list names the receiver).

Three things are added to the figure's fields, each with its reason:

* ``pre_vote`` and ``leadership_transfer`` on RequestVote (thesis 9.6 and 4.2.3).
* ``round_number`` on what a leader sends, echoed in the answer: a count of the leader's rounds of
  contact within its term, one for each heartbeat and each round of reads. It tells a fresh message from
  one delayed or delivered twice: to ReadIndex (thesis 6.4), to a leader that wonders whether a follower has
  forgotten what it acknowledged, and to a follower that wonders whether its leader lives.
* ``conflict_index`` and ``conflict_term`` in a refusal (thesis 5.3, "if desired, the protocol can
  be optimized"), so that a follower far behind is found in few round trips.
"""

from __future__ import annotations

from typing import TypeAlias

from statemachine.values import value

ServerId: TypeAlias = int
"""A server's number in its cluster, 1 or more."""


@value
class RequestVote:
    """Sent by a candidate to gather votes (thesis 3.4), or to ask whether it would get them (9.6)."""

    term: int
    """The term of the election; for a pre-vote the term that the sender would begin."""
    candidate_id: ServerId
    last_log_index: int
    last_log_term: int
    pre_vote: bool = False
    """True when only asking: neither side changes its term or vote (thesis 9.6)."""
    leadership_transfer: bool = False
    """True when the leader itself told the sender to campaign, so a receiver does not hold on to it (4.2.3)."""


@value
class RequestVoteResult:
    """The answer to a RequestVote."""

    term: int
    """For a granted pre-vote the term asked about; otherwise the answering server's current term."""
    vote_granted: bool
    pre_vote: bool = False


@value
class AppendEntries:
    """Sent by the leader to replicate entries, and without entries as a heartbeat (thesis 3.5)."""

    term: int
    leader_id: ServerId
    prev_log_index: int
    prev_log_term: int
    entries_term: int
    """The one term that all of ``entries`` were created in; 0 when there are none."""
    entries: tuple[bytes, ...]
    leader_commit: int
    round_number: int
    may_be_silent: bool = False
    """A follower that agrees needn't say so: the leader has heard from it lately, and waits for nothing."""


@value
class AppendEntriesResult:
    """The answer to an AppendEntries, sent only when what it accepts is on disk."""

    term: int
    success: bool
    match_index: int
    """On success: the highest index now known to agree with the leader's log. On refusal: the refused
    prev_log_index."""
    conflict_index: int
    """On refusal: the highest index, at most the refused one, at which the follower has an entry of a term
    no later than the refused prev_log_term: above it the logs can't agree. 0 on success."""
    conflict_term: int
    """On refusal: the term of the follower's entry at ``conflict_index``. 0 on success."""
    round_number: int


@value
class InstallSnapshot:
    """Sent by the leader to bring a follower up to date when its log no longer reaches back (thesis 5.1)."""

    term: int
    leader_id: ServerId
    last_included_index: int
    last_included_term: int
    offset: int
    """Where in the snapshot's file ``data`` belongs, in bytes."""
    data: bytes
    done: bool
    """True when this is the last chunk."""
    round_number: int


@value
class InstallSnapshotResult:
    """The answer to an InstallSnapshot: how far the receiver has got."""

    term: int
    last_included_index: int
    """Of the snapshot that is answered for."""
    offset: int
    """The next byte wanted. Meaningless when ``installed``."""
    installed: bool
    """True when the receiver's state reaches ``last_included_index``: replication can go on behind it."""
    round_number: int


@value
class TimeoutNow:
    """Sent by a leader that hands over to a follower: campaign at once (thesis 3.10)."""

    term: int


@value
class ReadIndex:
    """Sent by a follower: from which index on may I answer this read (thesis 6.4)?"""

    term: int
    barrier: int
    """A number that the asking server uses once and, as good as surely, not again after a restart."""


@value
class ReadIndexResult:
    """The leader's answer to a ReadIndex, given when a majority has confirmed its leadership since."""

    term: int
    barrier: int
    read_index: int
    """State at or past this index is fresh enough; -1 when the asked server could not tell: ask anew."""


Message: TypeAlias = (
    RequestVote
    | RequestVoteResult
    | AppendEntries
    | AppendEntriesResult
    | InstallSnapshot
    | InstallSnapshotResult
    | TimeoutNow
    | ReadIndex
    | ReadIndexResult
)
