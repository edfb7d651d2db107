"""Messages, requests and replies in a few words each."""

from __future__ import annotations

from functools import singledispatch

from fileserver.commands import ANY_VERSION, APPEND, CAS, DELETE, KEEP_EXPTIME, TOUCH, WRITE
from fileserver.requests import READ, STAT
from fileserver.simulation.oracle import Request
from raftnode import codec
from raftnode.codec import BadMessage
from raftnode.proposals import Proposals
from statemachine.messages import (
    AppendEntries,
    AppendEntriesResult,
    InstallSnapshot,
    InstallSnapshotResult,
    ReadIndex,
    ReadIndexResult,
    RequestVote,
    RequestVoteResult,
    TimeoutNow,
)

_WORDS = {
    READ: "read",
    STAT: "stat",
    WRITE: "write",
    CAS: "cas",
    DELETE: "delete",
    APPEND: "append",
    TOUCH: "touch",
}
_CONTENT_SHOWN_MAX = 20


def describe(message: bytes) -> str:
    """One line for what a server sent."""
    try:
        return describe_message(codec.decode(message).message)
    except BadMessage as error:
        return f"no message: {error}"


@singledispatch
def describe_message(message: object) -> str:
    """One line for a message: what it is, and its numbers."""
    return str(message)


@describe_message.register
def _(message: RequestVote) -> str:
    what = "may I have your vote" if message.pre_vote else "vote for me"
    told = ", as the leader wishes" if message.leadership_transfer else ""
    return f"{what} in term {message.term}? my log ends at {message.last_log_index}/{message.last_log_term}{told}"


@describe_message.register
def _(message: RequestVoteResult) -> str:
    if message.pre_vote:
        return f"you would have my vote in term {message.term}" if message.vote_granted else f"no, term {message.term}"
    return f"my vote in term {message.term}" if message.vote_granted else f"no vote, term {message.term}"


@describe_message.register
def _(message: AppendEntries) -> str:
    after = f"behind {message.prev_log_index}/{message.prev_log_term}"
    state = f"term {message.term}, commit {message.leader_commit}, round {message.round_number}"
    if not message.entries:
        return f"heartbeat {after}; {state}"
    last = message.prev_log_index + len(message.entries)
    first = message.prev_log_index + 1
    which = f"{first}" if first == last else f"{first} to {last}"
    return f"append {which} of term {message.entries_term} {after}; {state}"


@describe_message.register
def _(message: AppendEntriesResult) -> str:
    state = f"term {message.term}, round {message.round_number}"
    if message.success:
        return f"have up to {message.match_index}; {state}"
    conflict = f"try {message.conflict_index}/{message.conflict_term}"
    return f"lack {message.match_index}, {conflict}; {state}"


@describe_message.register
def _(message: InstallSnapshot) -> str:
    which = f"{message.last_included_index}/{message.last_included_term}"
    end = ", the last" if message.done else ""
    return f"snapshot {which}, {len(message.data)} bytes at {message.offset}{end}; term {message.term}"


@describe_message.register
def _(message: InstallSnapshotResult) -> str:
    if message.installed:
        return f"snapshot {message.last_included_index} is in; term {message.term}"
    return f"snapshot {message.last_included_index}: bytes from {message.offset} on, please; term {message.term}"


@describe_message.register
def _(message: TimeoutNow) -> str:
    return f"you lead from now on; term {message.term}"


@describe_message.register
def _(message: ReadIndex) -> str:
    return f"from where may I read? barrier {message.barrier}, term {message.term}"


@describe_message.register
def _(message: ReadIndexResult) -> str:
    answer = "can't tell" if message.read_index < 0 else f"read from {message.read_index}"
    return f"{answer}; barrier {message.barrier}, term {message.term}"


@describe_message.register
def _(message: Proposals) -> str:
    items = ", ".join(f"{item.session}.{item.sequence}" for item in message.items)
    return f"propose {items}"


def describe_request(request: Request) -> str:
    """What a client asks for."""
    words = [_WORDS[request.operation], request.name.decode()]
    if request.operation == CAS or (request.operation == DELETE and request.argument != ANY_VERSION):
        words.append(f"version {request.argument}")
    if request.operation in (WRITE, CAS, APPEND):
        words.append(shortened(request.content))
    if request.operation == TOUCH or (request.operation in (WRITE, CAS, APPEND) and request.exptime != KEEP_EXPTIME):
        words.append(f"for {request.exptime} s" if request.exptime else "for good")
    return " ".join(words)


def shortened(content: bytes) -> str:
    """A content, or its beginning and its size."""
    shown = ascii(content[:_CONTENT_SHOWN_MAX])[2:-1]
    return shown if len(content) <= _CONTENT_SHOWN_MAX else f"{shown}... ({len(content)} bytes)"
