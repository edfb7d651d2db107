"""The oracle's idea of files against the product's store: same commands, same results, versions, expiry."""

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from fileserver.commands import ANY_VERSION, KEEP_EXPTIME, Refusal
from fileserver.simulation.model import FilesModel, Outcome
from fileserver.store import Store
from tests.stage1_fileserver.store_commands import (
    SECOND_US,
    Command,
    append,
    cas,
    content_of_file,
    delete,
    drop,
    encode,
    part,
    touch,
    write,
)

NAMES = st.sampled_from([b"a", b"b", b"c"])
UPLOADS = st.integers(1, 2)
CONTENTS = st.binary(max_size=6) | UPLOADS
EXPTIMES = st.sampled_from([0, 0, 1, 2, 3])
VERSIONS = st.integers(0, 9)
COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.builds(write, NAMES, CONTENTS, EXPTIMES),
    st.builds(cas, NAMES, VERSIONS, CONTENTS, EXPTIMES),
    st.builds(delete, NAMES, VERSIONS | st.just(ANY_VERSION)),
    st.builds(append, NAMES, CONTENTS, EXPTIMES | st.just(KEEP_EXPTIME), st.sampled_from([3, 100])),
    st.builds(touch, NAMES, EXPTIMES),
    st.builds(part, UPLOADS, st.binary(max_size=4)),
    st.builds(drop, UPLOADS),
)


@attrs.frozen
class Step:
    """An entry: a batch, no more than time, or the end of a session."""

    session: int
    ahead_us: int
    commands: list[Command] | None


BATCHES = st.builds(Step, st.integers(1, 2), st.integers(-SECOND_US, 2 * SECOND_US), st.lists(COMMANDS, max_size=4))
STEPS = st.lists(BATCHES | st.builds(Step, st.integers(1, 2), st.integers(0, SECOND_US), st.none()), max_size=25)


@settings(max_examples=300)
@given(STEPS, st.booleans())
def test_the_model_does_what_the_store_does(steps: list[Step], ends_sessions: bool) -> None:
    model, store = FilesModel(), Store()
    clock_us = 10 * SECOND_US
    for index, step in enumerate(steps, 1):
        clock_us += step.ahead_us
        if step.commands is None and ends_sessions:
            model.end_session(step.session)
            store.end_session(step.session)
        elif step.commands is None:
            model.advance(index, clock_us)
            store.advance(clock_us)
        else:
            payload = encode(*step.commands)
            expected = [_outcome(each) for each in store.apply(clock_us, step.session, payload)]
            assert [each.outcome for each in model.apply(index, clock_us, step.session, payload)] == expected
        assert_same(model, store)


def _outcome(result: int | tuple[Refusal, int]) -> Outcome:
    return result if isinstance(result, int) else (int(result[0]), result[1])


def assert_same(model: FilesModel, store: Store) -> None:
    assert model.version == store.version
    present = model.present()
    assert len(present) == store.files
    for name, state in present.items():
        record = store.lookup(name)
        assert record is not None
        assert (record.version, record.deadline_us) == (state.version, state.deadline_us)
        assert content_of_file(store, name) == state.content


def test_the_past_of_a_file_is_kept_by_index() -> None:
    model = FilesModel()
    model.apply(3, SECOND_US, 1, encode(write(b"a", b"one", 2)))
    model.apply(5, SECOND_US, 1, encode(write(b"a", b"two", 1), write(b"a", b"three", 2)))
    model.advance(8, 3 * SECOND_US)
    states = [(model.state_at(b"a", index).version, model.state_at(b"a", index).content) for index in range(2, 10)]
    assert states == [
        (0, b""),
        (1, b"one"),
        (1, b"one"),
        (3, b"three"),  # what lasts for a part of an entry only is nothing that anybody could see
        (3, b"three"),
        (3, b"three"),
        (0, b""),
        (0, b""),
    ]
    assert model.state_at(b"b", 5).version == 0
