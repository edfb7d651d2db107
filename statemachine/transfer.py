"""TimeoutNow: handing leadership to another server (thesis 3.10).

The leader stops taking submissions, brings the target up to date, and tells it to campaign at once. The
message may be lost, so it is repeated with every heartbeat, and the target may fail, so after an election timeout
the leader goes on as before; the flag is cleared on every way out of leadership (`Raft.become_follower`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from statemachine import elections
from statemachine.events import TransferLeadership
from statemachine.messages import ServerId, TimeoutNow
from statemachine.roles import Role

if TYPE_CHECKING:
    from statemachine.raft import Raft


def transfer_leadership(raft: Raft, event: TransferLeadership) -> None:
    """Begin to hand over, to the voter named or to the one furthest along that answers.

    Ignored by others than the leader, and when there is no such voter.
    """
    if raft.role is not Role.LEADER:
        return
    target = event.target if event.target is not None else _best_target(raft)
    if target is None or target == raft.server_id or target not in raft.configuration.voters:
        return
    raft.transfer_target = target
    raft.transfer_deadline_us = raft.now_us + raft.options.election_timeout_us_min
    raft.replication_due = True
    hand_over_when_caught_up(raft)


def _best_target(raft: Raft) -> ServerId | None:
    """The voter with the most entries among those that have answered lately."""
    oldest_us = raft.now_us - 2 * raft.options.heartbeat_us
    candidates = [
        (progress.match_index, -server)
        for server, progress in raft.progress.items()
        if server in raft.configuration.voters and progress.last_contact_us >= oldest_us
    ]
    return -max(candidates)[1] if candidates else None


def hand_over_when_caught_up(raft: Raft) -> None:
    """Tell the target to campaign once its log matches (thesis 3.10, step 3)."""
    target = raft.transfer_target
    if target is not None and raft.progress[target].match_index == raft.log.last_index:
        raft.send(target, TimeoutNow(raft.current_term))


def expire(raft: Raft) -> None:
    """Give up handing over when an election timeout has passed (thesis 3.10)."""
    if raft.transfer_deadline_us is not None and raft.now_us >= raft.transfer_deadline_us:
        clear(raft)


def clear(raft: Raft) -> None:
    """Forget the transfer, if there is one."""
    raft.transfer_target = None
    raft.transfer_deadline_us = None


def timeout_now(raft: Raft, sender: ServerId, message: TimeoutNow) -> None:
    """Campaign as if the election timer had fired, without a pre-vote: the leader itself asks for it."""
    if (
        message.term == raft.current_term
        and raft.role is Role.FOLLOWER
        and raft.server_id in raft.configuration.voters
        and raft.leader_id == sender
    ):
        elections.campaign(raft, leadership_transfer=True)
