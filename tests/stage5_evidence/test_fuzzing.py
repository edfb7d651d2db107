"""Every reader of bytes, fuzzed: by hypothesis, and by 20,000 inputs of our own loop, which itself is shown to find."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Hashable, Iterator
from pathlib import Path
from zlib import crc32

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing import cli, worker
from tests.fuzzing.cbor_changes import with_one_change
from tests.fuzzing.containers import chunks, join_files, join_parts, split_files, split_parts
from tests.fuzzing.disk_targets import repair_log
from tests.fuzzing.findings import FindingKind
from tests.fuzzing.judging import Summary, replay
from tests.fuzzing.loop import Fuzzer
from tests.fuzzing.target import Target
from tests.fuzzing.targets import TARGETS

INPUTS_COUNT = 20_000
EDITS = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 8), st.binary(max_size=8)), min_size=1, max_size=4
)
"""Where, as a part of the length; how many bytes go; what comes in their place."""

all_targets = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@pytest.fixture
def untraced() -> Iterator[None]:
    """Without the tracing of a coverage tool, which would take half of the time."""
    trace = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(trace)


def edited(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    for place, gone_bytes, new in edits:
        position = int(place * (len(data) + 1))
        data = data[:position] + new + data[position + gone_bytes :]
    return data


# ------------------------------------------------------------------------------------------- the product


@all_targets
def test_examples_are_read(target: Target) -> None:
    with target.environment():
        for example in target.examples():
            target.run(example)


@all_targets
@pytest.mark.usefixtures("untraced")
def test_20000_inputs_without_a_finding(target: Target) -> None:
    summary = Fuzzer(target, "ci").run(INPUTS_COUNT)
    assert [str(finding) + finding.text for finding in summary.findings] == []
    assert summary.inputs_count == INPUTS_COUNT
    assert summary.corpus_count > len(target.examples())
    assert summary.weighed_count >= INPUTS_COUNT // 200


@all_targets
@given(st.data())
def test_hypothesis_without_a_finding(target: Target, data: st.DataObject) -> None:
    with target.environment():
        examples = st.sampled_from(target.examples())
        content = data.draw(st.binary(max_size=300) | st.builds(edited, examples, EDITS))
        if target.repair is not None and data.draw(st.booleans()):
            content = target.repair(content, random.Random(data.draw(st.integers(0, 99))))
        try:
            target.run(content)
        except target.declared:
            return


# --------------------------------------------------------------------------------- what the loop can find


def target_of(run: Callable[[bytes], Hashable], **others: object) -> Target:
    """A target whose own lines, those of this module, guide the loop."""
    fields: dict[str, object] = {"examples": lambda: [b"hello there"], "declared": (ValueError,)}
    return Target(name="planted", modules=(sys.modules[__name__],), run=run, **(fields | others))  # type: ignore[arg-type]


def raises_behind_three_bytes(data: bytes) -> Hashable:
    """By chance some ten million inputs, since all three must come at once; a few thousand for each by itself."""
    if data[:1] == b"c":
        if data[1:2] == b"r":
            if data[2:3] == b"#":
                raise KeyError("planted")
            return None
        return None
    return None


def raises_behind_a_checksum(data: bytes) -> Hashable:
    if len(data) < 5 or crc32(data[4:]) != int.from_bytes(data[:4], "big"):
        raise ValueError("damaged")
    if data[4] == 200:
        raise KeyError("planted")
    return None


def with_checksum(data: bytes, _: random.Random) -> bytes:
    return crc32(data[4:]).to_bytes(4, "big") + data[4:]


def runs_for_ever(data: bytes) -> Hashable:
    while b"\xff" in data:
        pass
    return None


def takes_100_ms(data: bytes) -> Hashable:
    ends_ns = time.thread_time_ns() + 100_000_000
    while b"\xff" in data and time.thread_time_ns() < ends_ns:
        pass
    return None


def allocates_what_a_length_says(data: bytes) -> Hashable:
    return len(bytes(int.from_bytes(data[:3], "big")))


@pytest.mark.parametrize(
    ("target", "kind", "inputs_count"),
    [
        pytest.param(
            target_of(raises_behind_three_bytes, examples=lambda: [b"abcdefgh"]),
            FindingKind.EXCEPTION,
            400_000,
            id="guided by lines",
        ),
        pytest.param(
            target_of(
                raises_behind_a_checksum,
                repair=with_checksum,
                examples=lambda: [with_checksum(b"12345678", random.Random(0))],
            ),
            FindingKind.EXCEPTION,
            5_000,
            id="behind a checksum",
        ),
        pytest.param(target_of(runs_for_ever), FindingKind.SLOW, 60, id="no end"),
        pytest.param(target_of(takes_100_ms), FindingKind.SLOW, 60, id="slow"),
        pytest.param(
            target_of(allocates_what_a_length_says, examples=lambda: [bytes(4)]), FindingKind.MEMORY, 2_000, id="memory"
        ),
    ],
)
@pytest.mark.usefixtures("untraced")
def test_a_planted_fault_is_found_and_can_be_replayed(
    target: Target, kind: FindingKind, inputs_count: int, tmp_path: Path
) -> None:
    findings = Fuzzer(target, "1").run(inputs_count, stops_at_finding=True).findings
    assert {finding.kind for finding in findings} == {kind}
    path = findings[0].save(tmp_path)
    assert [finding.place for finding in replay(target, path.read_bytes())] == [findings[0].place]
    assert findings[0].place in path.with_suffix(".txt").read_text()
    assert replay(target, target.examples()[0]) == []


def test_declared_exceptions_are_no_finding() -> None:
    summary = Fuzzer(target_of(raises_behind_a_checksum), "1").run(500)
    assert summary.findings == []
    assert summary.inputs_count == 500


def test_the_same_seed_runs_the_same_inputs() -> None:
    def inputs_of(seed: str) -> list[bytes]:
        inputs: list[bytes] = []
        hello = TARGETS["hello"]

        def run(data: bytes) -> Hashable:
            inputs.append(data)
            return hello.run(data)

        Fuzzer(target_of(run, declared=hello.declared, examples=hello.examples, tokens=hello.tokens), seed).run(300)
        return inputs

    assert inputs_of("1") == inputs_of("1")
    assert inputs_of("1") != inputs_of("2")


def test_a_run_ends_when_its_time_is_over_and_tells_how_it_goes() -> None:
    told: list[int] = []

    def tell(summary: Summary) -> None:
        told.append(summary.inputs_count)

    summary = Fuzzer(TARGETS["codec"], "1").run(seconds=0.01, on_progress=tell)
    assert summary.seconds >= 0.01
    assert told[-1] == summary.inputs_count > 0


# ------------------------------------------------------------------------------------------- the inputs


@given(st.lists(st.binary()))
def test_parts_there_and_back(parts: list[bytes]) -> None:
    assert split_parts(join_parts(parts)) == parts


@given(st.dictionaries(st.text("abc-.", min_size=1, max_size=20), st.binary()))
def test_files_there_and_back(files: dict[str, bytes]) -> None:
    assert split_files(join_files(files)) == files


@given(st.binary(max_size=600), st.binary(max_size=4))
def test_chunks_are_the_data(data: bytes, plan: bytes) -> None:
    assert b"".join(chunks(data, plan)) == data


def test_a_changed_entry_is_believed_once_the_checksums_of_its_log_are_right() -> None:
    target = TARGETS["log"]
    with target.environment():
        whole = next(example for example in target.examples() if b"entry 3" in example)
        changed = whole.replace(b"entry 3", b"entry X")
        with pytest.raises(target.declared):
            target.run(changed)
        target.run(repair_log(changed, random.Random(1)))


@given(st.binary(max_size=40), st.integers(0, 99))
def test_cbor_changes_take_any_bytes(data: bytes, seed: int) -> None:
    with_one_change(data, random.Random(seed))


# ------------------------------------------------------------------------------------------- the program


def test_bin_fuzz_runs_workers_and_sums_up(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        cli.main, ["hello", "--inputs", "3001", "--jobs", "2", "--engine", "own", "--dir", str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == "1 targets, 3,001 inputs (own): no findings"
    assert list(tmp_path.iterdir()) == []


def test_bin_fuzz_keeps_what_it_finds_and_replays_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TARGETS, "hello", target_of(raises_behind_a_checksum, declared=()))
    path = tmp_path / "found.bin"
    path.write_bytes(b"no checksum")
    result = CliRunner().invoke(cli.main, ["hello", "--replay", str(path)])
    assert result.exit_code == 1
    assert "ValueError: damaged" in result.output
    path.write_bytes(with_checksum(b"0000 a sound one", random.Random(0)))
    result = CliRunner().invoke(cli.main, ["hello", "--replay", str(path)])
    assert (result.exit_code, result.output) == (0, f"{path}: nothing wrong\n")
    assert CliRunner().invoke(cli.main, ["all", "--replay", str(path)]).exit_code == 2


def test_bin_fuzz_fails_when_a_worker_dies_or_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "WORKER", "tests.no_such_module")
    result = CliRunner().invoke(cli.main, ["hello", "--inputs", "10", "--engine", "own", "--dir", str(tmp_path)])
    assert result.exit_code == 1
    assert "ended with status 1" in result.output


@pytest.mark.skipif(not worker.atheris_is_there(), reason="atheris is not installed")
def test_bin_fuzz_with_atheris(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.main, ["hello", "--inputs", "3000", "--engine", "atheris", "--dir", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == "1 targets, 3,000 inputs (atheris): no findings"
