"""Every kind of broken promise is found, and what is right isn't called wrong.

Each case is a little story told to an oracle: clients ask, servers apply entries, clients are told. The last word of it
is the wrong one.
"""

from collections.abc import Callable

import attrs
import pytest

from fileserver.commands import ANY_VERSION, APPEND, CAS, DELETE, KEEP_EXPTIME, TOUCH, WRITE, Refusal, Result
from fileserver.requests import READ, STAT
from fileserver.simulation.oracle import Oracle, Request, Violation
from fileserver.store import Store
from tests.stage1_fileserver.store_commands import (
    MAX_FILE_BYTES,
    SECOND_US,
    Command,
    append,
    cas,
    delete,
    encode,
    touch,
    write,
)

FASTEST_CLOCK_US = 1_000 * SECOND_US
ARGUMENTS = {APPEND: MAX_FILE_BYTES, DELETE: ANY_VERSION}
EXPTIMES = {APPEND: KEEP_EXPTIME}


@attrs.define
class Told:
    """An oracle, and a store that does right by the same entries."""

    oracle: Oracle = attrs.Factory(lambda: Oracle(lambda: FASTEST_CLOCK_US))
    store: Store = attrs.Factory(Store)
    index: int = 0

    def ask(self, operation: int, name: bytes = b"f", content: bytes = b"", **more: int) -> Request:
        """A client asks."""
        argument = more.get("argument", ARGUMENTS.get(operation, 0))
        exptime = more.get("exptime", EXPTIMES.get(operation, 0))
        request = Request(1, operation, name, argument, exptime, content, 0, self.oracle.known_index)
        self.oracle.asks(request)
        return request

    def apply(self, *commands: Command, clock_us: int = SECOND_US, results: list[Result] | None = None) -> None:
        """The first server applies a batch, with the right results if no others are given."""
        self.index += 1
        payload = encode(*commands)
        right = self.store.apply(clock_us, 1, payload)
        self.oracle.applied(self.index, clock_us, 1, payload, right if results is None else results)
        self.oracle.state_is(1, self.index, self.store)

    def written(self, content: bytes = b"1", exptime: int = 0) -> int:
        """A client has written the file and was told its version."""
        request = self.ask(WRITE, content=content, exptime=exptime)
        self.apply(write(b"f", content, exptime))
        self.oracle.changed(request, self.store.version, None)
        return self.store.version

    def expire(self, clock_us: int) -> None:
        """Time comes to that with an entry."""
        self.index += 1
        self.store.advance(clock_us)
        self.oracle.time_came(self.index, clock_us)
        self.oracle.state_is(1, self.index, self.store)


# ------------------------------------------------------------------------------------------ what is right


def test_a_life_without_violations() -> None:
    told = Told()
    oracle = told.oracle
    assert told.written() == 1
    read = told.ask(READ)
    oracle.saw(read, 1, 1, 0, b"1")
    wrong_cas = told.ask(CAS, content=b"2", argument=7)
    told.apply(cas(b"f", 7, b"2"))
    oracle.changed(wrong_cas, None, 1)
    appended = told.ask(APPEND, content=b"3")
    told.apply(append(b"f", b"3"))
    oracle.changed(appended, 2, None)
    touched = told.ask(TOUCH, exptime=5)
    told.apply(touch(b"f", 5))
    oracle.changed(touched, 2, None)
    oracle.saw(told.ask(STAT), 2, 2, 5, None)
    deleted = told.ask(DELETE)
    told.apply(delete(b"f"))
    oracle.changed(deleted, 0, None)
    oracle.saw_none(told.ask(READ))
    nothing = told.ask(DELETE)
    told.apply(delete(b"f"))
    oracle.changed(nothing, None, None)
    busy = told.ask(WRITE, content=b"4")
    oracle.refused(busy)
    oracle.check_store(1, told.index, told.store)
    assert (oracle.replies, oracle.changes_acknowledged) == (10, 4)


def test_a_read_may_show_what_was_true_at_any_time_while_it_was_under_way() -> None:
    for version, content in ((1, b"1"), (2, b"2"), (3, b"3")):
        told = Told()
        told.written(b"1")
        read = told.ask(READ)
        told.written(b"2")
        told.written(b"3")
        told.oracle.saw(read, version, 1, 0, content)


def test_expiry_is_seen_from_its_entry_on() -> None:
    told = Told()
    told.written(exptime=2)
    read = told.ask(READ)
    told.expire(3 * SECOND_US)
    told.oracle.saw_none(read)
    told.oracle.saw_none(told.ask(STAT))


def test_other_servers_may_come_later_and_to_the_same() -> None:
    told, other = Told(), Store()
    told.written(b"1")
    told.written(b"2")
    for index, content in ((1, b"1"), (2, b"2")):
        payload = encode(write(b"f", content))
        told.oracle.applied(index, SECOND_US, 1, payload, other.apply(SECOND_US, 1, payload))
        told.oracle.state_is(2, index, other)
    told.oracle.check_store(2, 2, other)


# ------------------------------------------------------------------------------------------ what is wrong

Case = Callable[[Told], None]


def phantom_command(told: Told) -> None:
    told.apply(write(b"f", b"nobody wrote this"))


def other_command_than_asked_for(told: Told) -> None:
    told.ask(WRITE, content=b"1")
    told.apply(write(b"g", b"1"))


def change_made_twice(told: Told) -> None:
    told.written(b"1")
    told.apply(write(b"f", b"1"))


def change_made_before_it_was_asked_for(told: Told) -> None:
    told.written(b"1")
    told.oracle.asks(Request(1, WRITE, b"f", 0, 0, b"2", 0, known_index=5))
    told.apply(write(b"f", b"2"))


def refused_change_made_later(told: Told) -> None:
    told.oracle.refused(told.ask(WRITE, content=b"1"))
    told.apply(write(b"f", b"1"))


def made_change_refused(told: Told) -> None:
    request = told.ask(WRITE, content=b"1")
    told.apply(write(b"f", b"1"))
    told.oracle.refused(request)


def acknowledged_and_never_made(told: Told) -> None:
    told.oracle.changed(told.ask(WRITE, content=b"1"), 1, None)


def acknowledged_with_another_version(told: Told) -> None:
    request = told.ask(WRITE, content=b"1")
    told.apply(write(b"f", b"1"))
    told.oracle.changed(request, 2, None)


def delete_acknowledged_and_never_made(told: Told) -> None:
    told.written()
    told.oracle.changed(told.ask(DELETE), 0, None)


def one_delete_acknowledged_to_two(told: Told) -> None:
    told.written()
    first, second = told.ask(DELETE), told.ask(DELETE)
    told.apply(delete(b"f"))
    told.oracle.changed(first, 0, None)
    told.oracle.changed(second, 0, None)


def cas_refused_though_it_was_made(told: Told) -> None:
    told.written()
    request = told.ask(CAS, content=b"2", argument=1)
    told.apply(cas(b"f", 1, b"2"))
    told.oracle.changed(request, None, 2)


def cas_told_a_version_that_the_file_never_had(told: Told) -> None:
    told.written()
    request = told.ask(CAS, content=b"2", argument=7)
    told.apply(cas(b"f", 7, b"2"))
    told.oracle.changed(request, None, 6)


def version_left_out(told: Told) -> None:
    told.ask(WRITE, content=b"1")
    told.apply(write(b"f", b"1"), results=[2])


def version_given_twice(told: Told) -> None:
    told.written(b"1")
    told.ask(WRITE, content=b"2")
    told.apply(write(b"f", b"2"), results=[1])


def cas_carried_out_on_another_version(told: Told) -> None:
    told.written(b"1")
    told.ask(CAS, content=b"2", argument=7)
    told.apply(cas(b"f", 7, b"2"), results=[2])


def cas_refused_on_the_right_version(told: Told) -> None:
    told.written(b"1")
    told.ask(CAS, content=b"2", argument=1)
    told.apply(cas(b"f", 1, b"2"), results=[(Refusal.VERSION, 1)])


def other_results_on_another_server(told: Told) -> None:
    told.written()
    told.oracle.applied(1, SECOND_US, 1, encode(write(b"f", b"1")), [9])


def other_state_on_another_server(told: Told) -> None:
    told.written()
    other = Store()
    other.apply(SECOND_US, 1, encode(write(b"f", b"2")))
    told.oracle.state_is(2, 1, other)


def version_of_the_store_is_wrong(told: Told) -> None:
    told.written()
    told.oracle.state_is(1, 1, Store())


def clock_ahead_of_all_clocks(told: Told) -> None:
    told.ask(WRITE, content=b"1")
    told.apply(write(b"f", b"1"), clock_us=FASTEST_CLOCK_US + 1)


def expired_early(told: Told) -> None:
    told.written(exptime=5)
    told.store.advance(6 * SECOND_US)
    told.oracle.time_came(2, 5 * SECOND_US)
    told.oracle.state_is(1, 2, told.store)


def seen_after_its_expiry(told: Told) -> None:
    told.written(exptime=2)
    told.expire(4 * SECOND_US)
    told.oracle.saw_none(told.ask(READ))
    told.oracle.saw(told.ask(READ), 1, 1, 1, b"1")


def gone_before_its_expiry(told: Told) -> None:
    told.written(exptime=2)
    told.oracle.saw_none(told.ask(READ))


def more_time_left_than_it_was_given(told: Told) -> None:
    told.written(exptime=2)
    told.oracle.saw(told.ask(STAT), 1, 1, 3, None)


def expiry_of_a_file_that_has_none(told: Told) -> None:
    told.written()
    told.oracle.saw(told.ask(STAT), 1, 1, 3, None)


def value_that_was_never_there(told: Told) -> None:
    told.written()
    told.oracle.saw(told.ask(READ), 1, 1, 0, b"x")


def wrong_size(told: Told) -> None:
    told.written()
    told.oracle.saw(told.ask(STAT), 1, 2, 0, None)


def stale_read_of_ones_own_write(told: Told) -> None:
    told.written(b"1")
    told.written(b"2")
    told.oracle.saw(told.ask(READ), 1, 1, 0, b"1")


def reads_that_go_back(told: Told) -> None:
    told.written(b"1")
    first = told.ask(READ)
    request = told.ask(WRITE, content=b"2")
    told.apply(write(b"f", b"2"))
    told.oracle.saw(first, 2, 1, 0, b"2")
    second = told.ask(READ)
    told.oracle.saw(second, 1, 1, 0, b"1")
    told.oracle.changed(request, 2, None)


def read_from_the_future(told: Told) -> None:
    told.written()
    told.oracle.saw(told.ask(READ), 2, 1, 0, b"2")


def none_seen_of_an_acknowledged_file(told: Told) -> None:
    told.written()
    told.oracle.saw_none(told.ask(READ))


def back_from_the_dead(told: Told) -> None:
    told.written()
    deleted = told.ask(DELETE)
    told.apply(delete(b"f"))
    told.oracle.changed(deleted, 0, None)
    told.oracle.saw(told.ask(READ), 1, 1, 0, b"1")


def behind_in_the_end(told: Told) -> None:
    told.written()
    told.oracle.check_store(2, 0, Store())


def file_missing_in_the_end(told: Told) -> None:
    told.written()
    told.oracle.check_store(2, 1, Store())


def other_content_in_the_end(told: Told) -> None:
    told.written()
    other = Store()
    other.apply(SECOND_US, 1, encode(write(b"f", b"2")))
    told.oracle.check_store(2, 1, other)


def other_expiry_in_the_end(told: Told) -> None:
    told.written()
    other = Store()
    other.apply(SECOND_US, 1, encode(write(b"f", b"1", 9)))
    told.oracle.check_store(2, 1, other)


CASES: dict[Case, str] = {
    phantom_command: "nobody asked for",
    other_command_than_asked_for: "another change was made",
    change_made_twice: "made twice",
    change_made_before_it_was_asked_for: "before it was asked for",
    refused_change_made_later: "told is not applied",
    made_change_refused: "told as not applied",
    acknowledged_and_never_made: "is what the client was told",
    acknowledged_with_another_version: "is what the client was told",
    delete_acknowledged_and_never_made: "is what the client was told",
    one_delete_acknowledged_to_two: "is what the client was told",
    cas_refused_though_it_was_made: "is what the client was told",
    cas_told_a_version_that_the_file_never_had: "is what the client was told",
    version_left_out: "led to 2",
    version_given_twice: "led to 1",
    cas_carried_out_on_another_version: "led to 2",
    cas_refused_on_the_right_version: "led to",
    other_results_on_another_server: "other results",
    other_state_on_another_server: "another state|and it should be",
    version_of_the_store_is_wrong: "and it should be",
    clock_ahead_of_all_clocks: "ahead of every clock",
    expired_early: "and it should be",
    seen_after_its_expiry: "not true at any index",
    gone_before_its_expiry: "there was a file",
    more_time_left_than_it_was_given: "not true at any index",
    expiry_of_a_file_that_has_none: "not true at any index",
    value_that_was_never_there: "another content",
    wrong_size: "not true at any index",
    stale_read_of_ones_own_write: "not true at any index",
    reads_that_go_back: "not true at any index",
    read_from_the_future: "not true at any index",
    none_seen_of_an_acknowledged_file: "there was a file",
    back_from_the_dead: "not true at any index",
    behind_in_the_end: "has applied 0 of 1",
    file_missing_in_the_end: "has 0 files",
    other_content_in_the_end: "another content",
    other_expiry_in_the_end: "and it should be",
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_every_violation_is_found(case: Case) -> None:
    with pytest.raises(Violation, match=CASES[case]):
        case(Told())
