"""Scenarios as text: commands, and the trace of what the cluster did, with virtual milliseconds.

A transcript is a file in ``transcripts/``. A line that begins with ``> `` is a command, one that begins with ``#`` is a
comment, and all others are the trace, which is made anew by running the commands and compared with what
the file has. ``pytest tests/stage2_statemachine --rewrite-transcripts`` writes the files instead; then a person reads
the difference.

Everything is the same each time: a message takes 1 ms, a save no time, and server n's election timeout is always 300 ms
and 50 ms more for each server before it.

Commands::

    servers 5 [learners 1]           begin, with servers 1 to 5 (the last one a learner); once, after `log` and `option`
    option <name> <value>            a field of Options
    log <server> <term> <term> ...   the terms of the entries that it starts with
    term <server> <term>             the term that it starts with, when it is later than the log's last
    run <ms>                         let time pass
    submit <server> <entry> ...      [for <server> ...] those who wait for the outcome
    read <server>
    snapshot <server> [<kept>]       with so many entries before it kept in memory
    transfer <server> [<target>]
    crash <server> ... / start <server> ...
    cut <server> ...                 from all others
    cut <server> -> <server>         one direction only
    heal                             everything passes; connections are made anew
    mend <server> -> <server>        one direction passes again, and nobody is told
    hold <server> / release <server> [<count>]     its saves wait / go on, or only the oldest ones
    connect <server> <server>        the first one has made a new connection to the second
    disconnect <server> <server>     the first one's connection to the second has ended
    send <server> -> <server> <message> <field>=<value> ...     a message out of the blue, such as one that was delayed
    show <what> ... / hide <what> ...              heartbeats, messages
    state                            a line on each server
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import attrs

from statemachine import messages
from statemachine.configuration import Configuration
from statemachine.events import HardState, PeerConnected, PeerDisconnected, Receive
from statemachine.messages import (
    AppendEntries,
    AppendEntriesResult,
    InstallSnapshot,
    InstallSnapshotResult,
    Message,
    ReadIndex,
    ReadIndexResult,
    RequestVote,
    RequestVoteResult,
    ServerId,
)
from statemachine.raft import Raft
from statemachine.ready import Ready
from statemachine.roles import Options
from tests.stage2_statemachine.harness import MS, Cluster
from tests.stage2_statemachine.simulated import Disk

COMMAND = "> "


class FixedDice(random.Random):
    """Server n's election timeout is 50 ms longer than that of the server before it; barriers are numbered from 0."""

    def __init__(self, server: ServerId) -> None:
        super().__init__(0)
        self.server = server

    def randint(self, a: int, b: int) -> int:
        return min(a + 50 * MS * (self.server - 1), b)

    def getrandbits(self, k: int) -> int:
        return 0


class Transcript:
    """One run of one file's commands."""

    def __init__(self) -> None:
        """Begin with nothing but the names of the commands."""
        self.lines: list[str] = []
        self._options: dict[str, int] = {}
        self._disks: dict[ServerId, Disk] = {}
        self._cluster: Cluster | None = None
        self._shown = {"messages"}
        self._last: dict[ServerId, tuple[str, int, str]] = {}

    def play(self, text: str) -> str:
        """The same commands and comments, with the trace of this run."""
        kept = [line for line in text.splitlines() if line.startswith((COMMAND, "#")) or not line]
        for number, line in enumerate(kept):
            blank_before_trace = not line and (number == 0 or not kept[number - 1])
            if not blank_before_trace:
                self.lines.append(line)
            if line.startswith(COMMAND):
                self._execute(line.removeprefix(COMMAND).split())
        return "\n".join(self.lines).rstrip("\n") + "\n"

    @property
    def cluster(self) -> Cluster:
        """The cluster, once `servers` was said."""
        assert self._cluster is not None, "say `servers` first"
        return self._cluster

    def _execute(self, words: list[str]) -> None:
        command: Callable[..., None] = getattr(self, f"_do_{words[0]}")
        command(*words[1:])

    def _do_option(self, name: str, value: str) -> None:
        self._options[name] = int(value)

    def _do_log(self, server: str, *terms: str) -> None:
        entries = [f"{term}.{index}".encode() for index, term in enumerate(terms, 1)]
        numbers = [int(term) for term in terms]
        self._disks[int(server)] = Disk(HardState(max(numbers, default=0), None), terms=numbers, entries=entries)

    def _do_term(self, server: str, term: str) -> None:
        disk = self._disks.setdefault(int(server), Disk())
        disk.hard_state = HardState(int(term), None)

    def _do_servers(self, count: str, _word: str = "learners", learners: str = "0") -> None:
        voters = range(1, int(count) - int(learners) + 1)
        configuration = Configuration(voters=voters, learners=range(len(voters) + 1, int(count) + 1))
        disks = {server: self._disks.get(server, Disk()) for server in sorted(configuration.members)}
        options = attrs.evolve(Options(heartbeat_us=100 * MS), **self._options)
        self._cluster = Cluster(
            configuration,
            options=options,
            disks=disks,
            generator_of=lambda server, _boot: FixedDice(server),
            watch=self._watch,
        )
        for server in self._cluster.servers.values():
            self._last[server.server_id] = _summary(server.raft)

    def _do_run(self, milliseconds: str) -> None:
        self.cluster.run(int(milliseconds) * MS)

    def _do_submit(self, server: str, *words: str) -> None:
        entries, waiting = words, words[:0]
        if "for" in words:
            entries, waiting = words[: words.index("for")], words[words.index("for") + 1 :]
        self.cluster.submit(
            int(server), *(entry.encode() for entry in entries), waiting=frozenset(int(each) for each in waiting)
        )

    def _do_read(self, server: str) -> None:
        self.cluster.read(int(server))

    def _do_snapshot(self, server: str, kept: str = "0") -> None:
        self.cluster.take_snapshot(int(server), int(kept))

    def _do_transfer(self, server: str, target: str = "0") -> None:
        self.cluster.transfer(int(server), int(target) or None)

    def _do_crash(self, *servers: str) -> None:
        for server in servers:
            self.cluster.crash(int(server))

    def _do_start(self, *servers: str) -> None:
        for server in servers:
            self.cluster.start(int(server))
            self._last[int(server)] = _summary(self.cluster.servers[int(server)].raft)

    def _do_cut(self, *words: str) -> None:
        if "->" in words:
            self.cluster.cut_link(int(words[0]), int(words[2]))
            return
        for word in words:
            for other in self.cluster.disks:
                self.cluster.cut |= {(int(word), other), (other, int(word))}

    def _do_mend(self, sender: str, _arrow: str, to: str) -> None:
        self.cluster.cut.remove((int(sender), int(to)))

    def _do_heal(self) -> None:
        self.cluster.heal()

    def _do_hold(self, server: str) -> None:
        self.cluster.hold_disk(int(server))

    def _do_release(self, server: str, count: str = "0") -> None:
        self.cluster.release_disk(int(server), int(count) or None)

    def _do_connect(self, server: str, to: str) -> None:
        self.cluster.take(int(server), PeerConnected(int(to)))

    def _do_disconnect(self, server: str, other: str) -> None:
        self.cluster.take(int(server), PeerDisconnected(int(other)))

    def _do_send(self, sender: str, _arrow: str, to: str, kind: str, *fields: str) -> None:
        message_class = getattr(messages, kind)
        values: dict[str, object] = dict.fromkeys((field.name for field in attrs.fields(message_class)), 0)
        for field in fields:
            name, value = field.split("=")
            values[name] = tuple(value.encode().split(b",")) if name == "entries" else int(value)
        if kind == "AppendEntries" and not values["entries"]:
            values["entries"] = ()
        self.cluster.take(int(to), Receive(int(sender), message_class(**values)))

    def _do_show(self, *what: str) -> None:
        self._shown |= set(what)

    def _do_hide(self, *what: str) -> None:
        self._shown -= set(what)

    def _do_state(self) -> None:
        for server in self.cluster.servers.values():
            raft = server.raft
            saved = "" if raft.persisted_index == raft.log.last_index else f", saved {raft.persisted_index}"
            self._say(
                server.server_id,
                f"{_role(raft)}, log {_log(raft)}, committed {raft.commit_index},"
                f" applied {server.applied_index}{saved}",
            )

    # The trace

    def _say(self, server: ServerId, text: str) -> None:
        self.lines.append(f"{self.cluster.now_us // MS:6} {server}  {text}".rstrip())

    def _watch(self, kind: str, server: ServerId, what: object) -> None:
        if isinstance(what, Raft):
            self._changes(what)
        elif isinstance(what, Ready):
            for barrier in what.barriers:
                self._say(server, f"read {barrier.barrier} may be answered from {barrier.read_index} on")
            for number in what.barriers_failed:
                self._say(server, f"read {number} failed")
            for entry in what.refused:
                self._say(server, f"refused {entry.decode()}")
        elif kind in ("send", "lost") and isinstance(what, tuple):
            to, message = what
            if self._is_shown(server, to, message):
                self._say(server, f"{'->' if kind == 'send' else '-x'} {to}  {describe(message)}")

    def _is_shown(self, server: ServerId, to: ServerId, message: Message) -> bool:
        """Heartbeats, and answers that tell their receiver nothing new, only if asked for."""
        if "messages" not in self._shown:
            return False
        if "heartbeats" in self._shown:
            return True
        if isinstance(message, AppendEntriesResult) and message.success and to in self.cluster.servers:
            progress = self.cluster.servers[to].raft.progress.get(server)
            return progress is None or message.match_index > progress.match_index
        if isinstance(message, AppendEntries) and not message.entries:
            progress = self.cluster.servers[server].raft.progress.get(to)
            return progress is None or message.prev_log_index > progress.match_index
        return True

    def _changes(self, raft: Raft) -> None:
        before, now = self._last[raft.server_id], _summary(raft)
        self._last[raft.server_id] = now
        if now[0] != before[0]:
            self._say(raft.server_id, now[0])
        if now[2] != before[2]:
            self._say(raft.server_id, f"log {now[2]}")
        if now[1] != before[1]:
            self._say(raft.server_id, f"committed up to {now[1]}")


def _summary(raft: Raft) -> tuple[str, int, str]:
    return _role(raft), raft.commit_index, _log(raft)


def _role(raft: Raft) -> str:
    of = f" of {raft.leader_id or 'nobody'}" if raft.role.value == "follower" else ""
    return f"{raft.role.value}{of}, term {raft.current_term}"


def _log(raft: Raft) -> str:
    """The terms of the entries: ``1 1 4``; many of one term are written ``1*200``; ``..5`` are compacted."""
    log = raft.log
    words = [f"..{log.base_index}"] if log.base_index else []
    runs = [*log.runs(), (log.last_index + 1, 0)]
    for (first, term), (end, _) in itertools.pairwise(runs):
        count = end - first
        words += [f"{term}*{count}"] if count > 5 else [str(term)] * count
    return " ".join(words)


def describe(message: Message) -> str:
    """A message in a few words."""
    what = f"{type(message).__name__} term {message.term}"
    match message:
        case RequestVote():
            extra = " pre-vote" if message.pre_vote else " transfer" if message.leadership_transfer else ""
            return f"{what}{extra}, last entry {message.last_log_index} of term {message.last_log_term}"
        case RequestVoteResult():
            return f"{what} {'pre-vote ' if message.pre_vote else ''}{'yes' if message.vote_granted else 'no'}"
        case AppendEntries():
            first, last = message.prev_log_index + 1, message.prev_log_index + len(message.entries)
            entries = f"{first}-{last} of term {message.entries_term}" if message.entries else "nothing"
            previous = f"behind {message.prev_log_index} of term {message.prev_log_term}"
            return f"{what}, {entries} {previous}, commit {message.leader_commit}, round {message.round_number}"
        case AppendEntriesResult(success=True):
            return f"{what} yes, has {message.match_index}, round {message.round_number}"
        case AppendEntriesResult():
            conflict = f"may have {message.conflict_index} of term {message.conflict_term}"
            return f"{what} no to {message.match_index}, {conflict}, round {message.round_number}"
        case InstallSnapshot():
            done = ", done" if message.done else ""
            return f"{what}, of {message.last_included_index}, bytes {message.offset}+{len(message.data)}{done}"
        case InstallSnapshotResult():
            state = "installed" if message.installed else f"wants byte {message.offset}"
            return f"{what}, of {message.last_included_index}, {state}"
        case ReadIndex():
            return f"{what}, barrier {message.barrier}"
        case ReadIndexResult():
            return f"{what}, barrier {message.barrier}, from {message.read_index} on"
        case _:
            return what
