"""A run told in lines, and drawn: every message has words, and what was shown can be read again."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from fileserver.commands import ANY_VERSION, APPEND, CAS, DELETE, KEEP_EXPTIME, TOUCH, WRITE
from fileserver.requests import READ, STAT
from fileserver.simulation import settings
from fileserver.simulation.describe import describe, describe_request
from fileserver.simulation.diagram import draw
from fileserver.simulation.oracle import Request
from fileserver.simulation.recording import Condition, End, Recording
from fileserver.simulation.run import Trial, run
from fileserver.simulation.story import Story, Topic
from raftnode import codec
from raftnode.codec import PeerMessage
from raftnode.proposals import Proposals, Propose
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
from statemachine.roles import Role

TRIAL = Trial(
    seed=4,
    duration_us=20_000_000,
    values=settings.parse(
        "servers=5 clients=3 faults=kill,partition,pause fault-pause-us=3000000 loss=0.05 think-us=1000000"
    ),
)
LINE = re.compile(r" *(\d+\.\d{3}) ms  (.{14,})  (.+)")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (RequestVote(3, 1, 7, 2), "vote for me in term 3? my log ends at 7/2"),
        (RequestVote(3, 1, 7, 2, pre_vote=True), "may I have your vote in term 3? my log ends at 7/2"),
        (RequestVote(3, 1, 7, 2, leadership_transfer=True), "vote for me in term 3? my log ends at 7/2, as the leader"),
        (RequestVoteResult(3, True), "my vote in term 3"),
        (RequestVoteResult(3, False), "no vote, term 3"),
        (RequestVoteResult(3, True, pre_vote=True), "you would have my vote in term 3"),
        (RequestVoteResult(3, False, pre_vote=True), "no, term 3"),
        (AppendEntries(3, 1, 7, 2, 0, (), 6, 9), "heartbeat behind 7/2; term 3, commit 6, round 9"),
        (AppendEntries(3, 1, 7, 2, 3, (b"a",), 6, 9), "append 8 of term 3 behind 7/2"),
        (AppendEntries(3, 1, 7, 2, 3, (b"a", b"b"), 6, 9), "append 8 to 9 of term 3 behind 7/2"),
        (AppendEntriesResult(3, True, 9, 0, 0, 4), "have up to 9; term 3, round 4"),
        (AppendEntriesResult(3, False, 9, 5, 2, 4), "lack 9, try 5/2; term 3, round 4"),
        (InstallSnapshot(3, 1, 20, 2, 64, b"xyz", True, 5), "snapshot 20/2, 3 bytes at 64, the last; term 3"),
        (InstallSnapshotResult(3, 20, 64, False, 5), "snapshot 20: bytes from 64 on, please; term 3"),
        (InstallSnapshotResult(3, 20, 64, True, 5), "snapshot 20 is in; term 3"),
        (TimeoutNow(3), "you lead from now on; term 3"),
        (ReadIndex(3, 8), "from where may I read? barrier 8, term 3"),
        (ReadIndexResult(3, 8, 12), "read from 12; barrier 8, term 3"),
        (ReadIndexResult(3, 8, -1), "can't tell; barrier 8, term 3"),
        (Proposals((Propose(4, 1, 0, b""), Propose(4, 2, 0, b""))), "propose 4.1, 4.2"),
    ],
)
def test_every_message_has_words(message: PeerMessage, words: str) -> None:
    assert describe(codec.encode(message, 5, 0)).startswith(words)


def test_bytes_that_are_no_message_have_words_too() -> None:
    assert describe(b"nonsense") == "no message: too short for a message"


@pytest.mark.parametrize(
    ("operation", "argument", "exptime", "content", "words"),
    [
        (READ, 0, 0, b"", "read f"),
        (STAT, 0, 0, b"", "stat f"),
        (WRITE, 0, 0, b"1.1;", "write f 1.1; for good"),
        (WRITE, 0, 5, b"x" * 100, "write f xxxxxxxxxxxxxxxxxxxx... (100 bytes) for 5 s"),
        (CAS, 3, 0, b"a", "cas f version 3 a for good"),
        (DELETE, ANY_VERSION, 0, b"", "delete f"),
        (DELETE, 3, 0, b"", "delete f version 3"),
        (APPEND, 0, KEEP_EXPTIME, b"a", "append f a"),
        (APPEND, 0, 2, b"a", "append f a for 2 s"),
        (TOUCH, 0, 2, b"", "touch f for 2 s"),
    ],
)
def test_every_request_has_words(operation: int, argument: int, exptime: int, content: bytes, words: str) -> None:
    assert describe_request(Request(1, operation, b"f", argument, exptime, content, 0, 0)) == words


def story(topics: tuple[Topic, ...] = tuple(Topic), from_us: int = 0, to_us: int | None = None) -> list[str]:
    lines: list[str] = []
    run(TRIAL, Story(lines.append, topics, from_us, to_us))
    return lines


def test_a_story_is_in_order_and_in_lines_of_one_shape() -> None:
    lines = story()
    matches = [LINE.fullmatch(line) for line in lines]
    assert all(matches), next(line for line, match in zip(lines, matches, strict=True) if not match)
    times = [float(match[1]) for match in matches if match]
    assert times == sorted(times)
    text = "\n".join(lines)
    for words in ("* fault", "* healed", "start: run 1", "end: killed", "LEADS term", "follows server", "asks server"):
        assert words in text
    for words in ("stands still until", "goes on", "cut: ", "no link is cut", "OK ", "gives up", " -> ", " -x "):
        assert words in text


def test_only_what_is_wanted_is_told() -> None:
    assert all("LEADS" in line or "follows" in line or "without a leader" in line for line in story((Topic.LEADERS,)))
    assert all("client" in line for line in story((Topic.CLIENTS,)))
    assert all(" -> " in line or " -x " in line for line in story((Topic.MESSAGES,)))
    within = story(from_us=2_000_000, to_us=2_500_000)
    assert within == [line for line in story() if 2_000 <= float(line.split()[0]) <= 2_500]


# ------------------------------------------------------------------------------------------ drawn


def recorded(from_us: int = 0, to_us: int | None = None) -> Recording:
    recording = Recording(from_us, to_us)
    recording.finish(run(TRIAL, recording).simulated_us)
    return recording


def test_a_recording_has_what_happened() -> None:
    outcome = run(TRIAL)
    recording = recorded()
    assert len(recording.exchanges) == outcome.operations
    assert sum(exchange.end is End.UNKNOWN for exchange in recording.exchanges) == outcome.unknown
    assert sum(span.condition is Condition.DOWN for span in recording.spans) == outcome.crashes
    assert sum(span.condition is Condition.LEADING for span in recording.spans) >= outcome.elections
    assert len(recording.notes) == sum(outcome.faults.values()) + 1
    assert recording.cuts
    for span in recording.spans:
        assert 0 <= span.from_us <= span.to_us <= outcome.simulated_us
    for flight in recording.flights:
        assert 0 <= flight.left_us <= flight.ended_us


def test_no_two_lead_one_term() -> None:
    leaders: dict[str, int] = {}
    for span in recorded().spans:
        if span.condition is Condition.LEADING:
            assert leaders.setdefault(span.what, span.server_id) == span.server_id


def test_conditions_end_with_what_ends_them() -> None:
    recording = Recording()
    recording.started(0, 1)
    recording.follows(5, 1, Role.LEADER, 3, 1)
    recording.paused(10, 1, 500)
    recording.paused(20, 1, 20)
    recording.paused(30, 1, 40)
    recording.ended(100, 1, "killed")
    recording.started(150, 1)
    recording.follows(160, 1, Role.FOLLOWER, 4, 2)
    recording.finish(200)
    found = [(span.condition, span.from_us, span.to_us, span.what) for span in recording.spans]
    assert found == [
        (Condition.PAUSED, 10, 20, "stands still"),
        (Condition.LEADING, 5, 100, "term 3"),
        (Condition.PAUSED, 30, 40, "stands still"),
        (Condition.DOWN, 100, 150, "killed"),
    ]


@pytest.mark.parametrize(("from_us", "to_us"), [(0, None), (2_000_000, 3_000_000), (50_000_000_000, None)])
def test_the_page_is_well_formed_and_stands_alone(from_us: int, to_us: int | None) -> None:
    recording = recorded(from_us, to_us)
    page = draw(recording, "run <1> & more", 5, 3)
    assert "<title>run &lt;1&gt; &amp; more</title>" in page
    assert not re.search(r"(src|href)=|url\((?!#)|@import", page)
    svg = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    name = "{http://www.w3.org/2000/svg}"
    arrows = [line for line in svg.iter(f"{name}line") if line.get("marker-end")]
    assert len(arrows) == len(recording.flights)
    assert sum("lost" in str(line.get("class")) for line in arrows) == sum(each.is_lost for each in recording.flights)
    assert sum("clients" in str(rect.get("class")) for rect in svg.iter(f"{name}rect")) == len(recording.exchanges)
    lanes = [text.text for text in svg.iter(f"{name}text") if text.get("class") == "lane"]
    assert lanes == ["server 1", "server 2", "server 3", "server 4", "server 5", "c1", "c2", "c3"]
    height = float(str(svg.get("height")))
    for line in arrows:
        assert 0 <= float(str(line.get("y1"))) <= float(str(line.get("y2"))) <= height
