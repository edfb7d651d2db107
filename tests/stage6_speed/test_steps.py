"""``bin/bench steps``: the walk through the code that it times, and the program."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from fileserver.bench import steps as steps_module
from fileserver.bench.cases import CASES
from fileserver.bench.steps import COLD_BYTES, READ, WRITE, Cluster, StepCost, Stopwatch, Walk, costs
from fileserver.cli.bench_steps import steps
from fileserver.pages import begin_mark


def test_five_servers_of_which_the_first_leads() -> None:
    cluster = Cluster()
    assert cluster.leader.is_leader
    assert {raft.leader_id for raft in cluster.rafts.values()} == {1}
    assert {raft.commit_index for raft in cluster.rafts.values()} >= {1}


@pytest.mark.parametrize("requests", [1, 3])
def test_a_walk_really_writes_and_reads(tmp_path: Path, requests: int) -> None:
    """What isn't there, or can't be read, fails an assertion within the walk."""
    walk = Walk(requests, tmp_path)
    for _ in range(3):
        walk.write()
        walk.read()
    walk.close()
    assert all(len(times) == 3 for times in walk.stopwatch.times.values())
    assert any((tmp_path / f"steps-{requests}").read_bytes()[:1000])


def test_costs_are_medians_by_step(tmp_path: Path) -> None:
    found = costs(2, 3, tmp_path)
    assert {cost.path for cost in found} == {WRITE, READ}
    assert {cost.where for cost in found} == {"leader", "follower"}
    assert all(cost.wall_us > 0 for cost in found)
    watch = Stopwatch()
    watch.times["write", "a", "leader"] = [(1000, 500), (9000, 700), (3000, 100)]
    assert watch.costs() == [StepCost("write", "a", "leader", 3.0, 0.5)]


def test_cold_caches_are_made_before_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That steps then take longer shows only on a quiet machine; here, that other memory is read each time."""
    read_bytes: list[int] = []
    monkeypatch.setattr(steps_module, "adler32", lambda data: read_bytes.append(len(data)))
    found = costs(1, 1, tmp_path, is_cold=True)
    assert read_bytes == [COLD_BYTES] * len(found)
    costs(1, 1, tmp_path)
    assert len(read_bytes) == len(found)


def test_the_tables_of_the_program(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    done = CliRunner().invoke(steps, ["--passes", "2", "--secs", "0.1", "--write", str(page)])
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert begin_mark("steps") in text
    assert begin_mark("ceilings") in text
    assert "leader and two followers" in text
    assert "what one server alone does, too" in text
    assert all(f"| {case.name} |" in text for case in CASES)
