"""Thrifty replication: who is sent entries at once, who a little later, and when nobody is spared."""

from __future__ import annotations

import attrs
import pytest

from statemachine import thrift
from statemachine.configuration import Configuration
from statemachine.events import (
    LimitMemory,
    PeerConnected,
    PeerDisconnected,
    ReadBarrier,
    Receive,
    Submit,
    Timeout,
    TransferLeadership,
)
from statemachine.messages import AppendEntries, ReadIndex
from statemachine.raft import Raft
from statemachine.ready import Ready
from statemachine.thrift import GATHERED_BYTES_MAX, GATHERED_ENTRIES_MAX, NOT_PREFERRED_US
from tests.stage2_statemachine import states
from tests.stage2_statemachine.states import FIVE, MS, OPTIONS, accept, receive, save_all, saved, sent, step

SPARE_US = 10 * MS
THRIFTY = attrs.evolve(OPTIONS, spare_us=SPARE_US)


HEARTBEATS_TO_NOTICE = 3 + THRIFTY.silence_us // THRIFTY.heartbeat_us
"""After so many a leader takes notice that a follower doesn't answer."""


def thrifty_leader(configuration: Configuration = FIVE) -> Raft:
    """A leader all of whose followers have everything, just after a heartbeat."""
    raft = states.leader(term=4, configuration=configuration, options=THRIFTY)
    followers = sorted(configuration.members - {1})
    accept(raft, *followers)
    save_all(raft)
    heartbeat(raft, *followers)
    return raft


def heartbeat(raft: Raft, *answering: int) -> Ready:
    """The next heartbeat, and the answers of these to it."""
    ready = step(raft, Timeout(), raft.heartbeat_deadline_us - raft.now_us)
    for server in answering:
        accept(raft, server, index=raft.progress[server].match_index)
    save_all(raft)
    return ready


def submit(raft: Raft, *entries: bytes, waiting: frozenset[int] = frozenset()) -> dict[int, int]:
    """Submit and save; how many entries each server is sent at once."""
    ready = step(raft, Submit(entries or (b"x",), waiting))
    saved(raft, ready)
    return entries_sent(ready)


def entries_sent(ready: Ready) -> dict[int, int]:
    counts: dict[int, int] = {}
    for to, message in sent(ready):
        if isinstance(message, AppendEntries) and message.entries:
            counts[to] = counts.get(to, 0) + len(message.entries)
    return counts


def test_a_majority_gets_entries_at_once_and_the_others_soon() -> None:
    raft = thrifty_leader()
    begun_us = raft.now_us
    assert submit(raft) == {2: 1, 3: 1}
    assert raft.deadline_us == begun_us + SPARE_US
    accept(raft, 2, 3)
    assert raft.commit_index == raft.log.last_index
    raft.now_us += 3 * MS
    assert submit(raft) == {2: 1, 3: 1}
    accept(raft, 2, 3)
    assert raft.deadline_us == begun_us + SPARE_US, "the time counts from what was spared first"
    assert entries_sent(step(raft, Timeout(), SPARE_US - 3 * MS)) == {4: 2, 5: 2}
    assert raft.deadline_us == raft.heartbeat_deadline_us
    assert raft.thrift.preferred == {2, 3}


def test_who_is_spared_at_a_heartbeat_after_a_long_rest_is_not_asked_after_what_it_was_not_sent() -> None:
    raft = thrifty_leader()
    for _ in range(2 * THRIFTY.election_timeout_us_min // THRIFTY.heartbeat_us):
        heartbeat(raft, 2, 3, 4, 5)
    raft.now_us = raft.heartbeat_deadline_us - SPARE_US // 2
    assert submit(raft) == {2: 1, 3: 1}
    messages = sent(step(raft, Timeout(), SPARE_US // 2))
    assert [to for to, _ in messages] == [2, 3, 4, 5]
    assert all(isinstance(message, AppendEntries) and not message.entries for _, message in messages)


def test_of_three_one_is_spared() -> None:
    assert submit(thrifty_leader(states.THREE)) == {2: 1}


@pytest.mark.parametrize("voters", [(1,), (1, 2)])
def test_in_the_smallest_clusters_nobody_is_spared(voters: tuple[int, ...]) -> None:
    raft = thrifty_leader(Configuration(voters))
    assert submit(raft) == dict.fromkeys(voters[1:], 1)


def test_learners_are_spared_and_never_preferred() -> None:
    raft = thrifty_leader(Configuration(voters=(1, 4, 5), learners=(2, 3)))
    assert submit(raft) == {4: 1}
    assert entries_sent(step(raft, Timeout(), SPARE_US)) == {2: 1, 3: 1, 5: 1}


def test_without_the_option_nobody_is_spared() -> None:
    raft = states.leader(term=4, configuration=FIVE)
    accept(raft, 2, 3, 4, 5)
    save_all(raft)
    heartbeat(raft, 2, 3, 4, 5)
    assert submit(raft) == dict.fromkeys((2, 3, 4, 5), 1)


def test_before_the_first_heartbeat_nobody_is_spared() -> None:
    raft = states.leader(term=4, configuration=FIVE, options=THRIFTY)
    accept(raft, 2, 3, 4, 5)
    save_all(raft)
    assert submit(raft) == dict.fromkeys((2, 3, 4, 5), 1)


def test_who_waits_for_an_outcome_is_not_spared() -> None:
    raft = thrifty_leader()
    assert submit(raft, waiting=frozenset({5})) == {2: 1, 3: 1, 5: 1}
    assert submit(raft) == {2: 1, 3: 1}, "and that is over then"


def test_who_reads_is_sent_what_is_committed() -> None:
    """Its read waits for these entries (thesis 6.4, step 5)."""
    raft = thrifty_leader()
    submit(raft)
    accept(raft, 2, 3)
    ready = receive(raft, 4, ReadIndex(4, 77))
    assert entries_sent(ready) == {4: 1}
    assert entries_sent(receive(raft, 4, ReadIndex(4, 78))) == {}
    assert entries_sent(receive(raft, 9, ReadIndex(4, 79))) == {}, "a stranger has no log"


def test_much_is_not_spared_anybody() -> None:
    raft = thrifty_leader()
    for _ in range(GATHERED_ENTRIES_MAX):
        assert submit(raft) == {2: 1, 3: 1}
    assert submit(raft) == {2: 1, 3: 1, 4: GATHERED_ENTRIES_MAX + 1, 5: GATHERED_ENTRIES_MAX + 1}
    submit(raft)
    big = bytes(GATHERED_BYTES_MAX + 1)
    assert submit(raft, big) == {2: 1, 3: 1, 4: 2, 5: 2}
    assert submit(raft) == {2: 1, 3: 1}


def test_what_is_spared_somebody_stays_in_memory_until_it_is_sent() -> None:
    raft = thrifty_leader()
    before = raft.log.last_index
    for _ in range(3):
        submit(raft)
        accept(raft, 2, 3)
    step(raft, LimitMemory(0, raft.log.last_index))
    assert raft.log.memory_base == before
    assert entries_sent(step(raft, Timeout(), SPARE_US)) == {4: 3, 5: 3}
    step(raft, LimitMemory(0, raft.log.last_index))
    assert raft.log.memory_base == raft.log.last_index


def test_who_led_keeps_nothing_in_memory_for_others() -> None:
    raft = thrifty_leader()
    submit(raft)
    accept(raft, 2, 3)
    receive(raft, 2, AppendEntries(5, 2, raft.log.last_index, 4, 0, (), raft.log.last_index, 1))
    step(raft, LimitMemory(0, raft.log.last_index))
    assert raft.log.memory_base == raft.log.last_index


def test_while_leadership_is_handed_over_nobody_is_spared() -> None:
    raft = thrifty_leader()
    submit(raft)
    ready = step(raft, TransferLeadership(5))
    assert entries_sent(ready) == {4: 1, 5: 1}


def test_a_preferred_follower_that_is_slow_is_not_waited_for() -> None:
    raft = thrifty_leader()
    submit(raft)
    accept(raft, 2)
    assert entries_sent(step(raft, Timeout(), SPARE_US)) == {4: 1, 5: 1}
    accept(raft, 4)
    assert raft.commit_index == raft.log.last_index
    assert submit(raft) == dict.fromkeys((2, 3, 4, 5), 1), "until a heartbeat finds out who is well"
    accept(raft, 2, 3, 4, 5)
    heartbeat(raft, 2, 3, 4, 5)
    assert submit(raft) == {2: 1, 4: 1}


def test_a_slow_follower_is_preferred_again_when_its_time_is_over_or_others_are_silent() -> None:
    raft = thrifty_leader()
    raft.thrift.slow_until_us[3] = raft.now_us + NOT_PREFERRED_US
    heartbeat(raft, 2, 3, 4, 5)
    assert raft.thrift.preferred == {2, 4}
    raft.thrift.slow_until_us[3] = raft.now_us
    for _ in range(HEARTBEATS_TO_NOTICE):
        heartbeat(raft, 2, 3, 5)
    assert raft.thrift.preferred == {2, 3}, "4 is silent"


def test_when_all_were_too_slow_some_are_preferred_all_the_same() -> None:
    raft = thrifty_leader()
    raft.thrift.slow_until_us = dict.fromkeys((3, 4, 5), raft.now_us + NOT_PREFERRED_US)
    heartbeat(raft, 2, 3, 4, 5)
    assert raft.thrift.preferred == {2, 3}
    assert submit(raft) == {2: 1, 3: 1}


def test_those_furthest_are_preferred() -> None:
    raft = thrifty_leader()
    raft.thrift.preferred = frozenset()
    submit(raft)
    accept(raft, 4, 5)
    heartbeat(raft, 2, 3, 4, 5)
    assert raft.thrift.preferred == {4, 5}


def test_too_few_that_are_well() -> None:
    raft = thrifty_leader()
    for _ in range(HEARTBEATS_TO_NOTICE):
        heartbeat(raft, 2)
    assert not raft.thrift.preferred


def test_a_preferred_follower_whose_connection_breaks() -> None:
    raft = thrifty_leader()
    submit(raft)
    assert entries_sent(step(raft, PeerDisconnected(4))) == {}, "nobody relies on that one"
    assert entries_sent(step(raft, PeerDisconnected(3))) == {4: 1, 5: 1}
    assert not raft.thrift.preferred


def test_a_preferred_follower_that_is_probed() -> None:
    """It may not have what it was sent: until it is known where it stands, nobody is spared."""
    raft = thrifty_leader()
    step(raft, PeerConnected(2))
    assert submit(raft) == {3: 1, 4: 1, 5: 1}


def test_time_that_is_not_up() -> None:
    raft = thrifty_leader()
    submit(raft)
    raft.step(Timeout(), raft.now_us + SPARE_US - 1)
    assert entries_sent(raft.ready()) == {}
    assert thrift.deadline_us(raft) == raft.now_us + 1


# Rounds of contact, which reads wait for


def asked(ready: Ready) -> list[int]:
    """Whom a ready value asks whether this server still leads."""
    return [to for to, message in sent(ready) if isinstance(message, AppendEntries) and not message.entries]


def test_a_majority_is_asked_whether_this_server_leads() -> None:
    raft = thrifty_leader()
    begun_us = raft.now_us
    assert asked(step(raft, ReadBarrier(1))) == [2, 3]
    assert raft.deadline_us == begun_us + SPARE_US
    accept(raft, 2)
    accept(raft, 3)
    ready = raft.ready()
    assert [confirmed.barrier for confirmed in ready.barriers] == [1]
    assert raft.deadline_us == raft.heartbeat_deadline_us


@pytest.mark.parametrize(
    ("askers", "expected"),
    [((4,), [2]), ((4, 5), [2]), ((2,), [3]), ((3,), [2]), ((2, 3), [2, 3]), ((3, 4), [2]), ((4, 1), [2, 3])],
)
def test_one_less_is_asked_if_who_reads_counts(askers: tuple[int, ...], expected: list[int]) -> None:
    raft = thrifty_leader()
    for asker in askers:
        if asker == 1:
            raft.step(ReadBarrier(1), raft.now_us)
        else:
            raft.step(Receive(asker, ReadIndex(4, 70 + asker)), raft.now_us)
    assert asked(raft.ready()) == expected


def test_who_was_not_asked_is_not_late() -> None:
    raft = thrifty_leader()
    receive(raft, 4, ReadIndex(4, 77))
    assert asked(step(raft, Timeout(), SPARE_US)) == [2, 3, 4, 5]
    assert set(raft.thrift.slow_until_us) == {2}


def test_all_are_asked_when_one_of_the_preferred_is_slow() -> None:
    raft = thrifty_leader()
    step(raft, ReadBarrier(1))
    accept(raft, 3)
    assert asked(step(raft, Timeout(), SPARE_US)) == [2, 3, 4, 5]
    assert set(raft.thrift.slow_until_us) == {2}
    accept(raft, 5)
    ready = raft.ready()
    assert [confirmed.barrier for confirmed in ready.barriers] == [1]
    assert not raft.thrift.preferred
    assert asked(step(raft, ReadBarrier(2))) == [2, 3, 4, 5]


def test_all_are_asked_when_the_connection_of_a_preferred_one_breaks() -> None:
    raft = thrifty_leader()
    step(raft, ReadBarrier(1))
    assert asked(step(raft, PeerDisconnected(3))) == [2, 3, 4, 5]


def test_who_is_asked_while_a_change_gathers() -> None:
    """The earlier of the two times counts, and when it is up, it counts for both."""
    raft = thrifty_leader()
    begun_us = raft.now_us
    submit(raft)
    assert asked(step(raft, ReadBarrier(1), 2 * MS)) == [2, 3]
    assert raft.deadline_us == begun_us + SPARE_US
    ready = step(raft, Timeout(), SPARE_US - 2 * MS)
    assert entries_sent(ready) == {4: 1, 5: 1}
    assert asked(ready) == [2, 3], "the others are asked by what they are sent"


def test_the_change_that_comes_with_a_read_asks_as_well() -> None:
    raft = thrifty_leader()
    raft.step(Submit((b"x",)), raft.now_us)
    ready = step(raft, ReadBarrier(1))
    assert entries_sent(ready) == {2: 1, 3: 1}
    assert asked(ready) == []
    assert raft.thrift.asked_since_us == raft.now_us
