"""Bugs that others had, planted one by one: the simulator, or a named test, finds every one of them.

Each run begins with the seed that found the bug when ``bin/simulate --bugs --record`` last looked for it from seed 1
on; when that finds it no longer, since the product has changed, the search begins anew. The same seed without the bug
must find nothing.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from click.testing import CliRunner

from statemachine.configuration import Configuration
from tests.simulation.planted import command
from tests.simulation.planted.catalogue import BUGS
from tests.simulation.planted.findings import recorded
from tests.simulation.planted.patching import Edit, NotPlantable, planted
from tests.simulation.planted.search import SEEDS_MAX, fails_with, find, run_with, run_without

FOUND = recorded()
BY_SIMULATION = [name for name, bug in BUGS.items() if bug.test is None]
BY_TEST = [name for name, bug in BUGS.items() if bug.test is not None]


@pytest.mark.parametrize("name", BY_SIMULATION)
def test_the_simulator_finds(name: str) -> None:
    bug = BUGS[name]
    seed = FOUND[name].seed if name in FOUND else 1
    finding = run_with(bug, seed) or find(bug, 1, SEEDS_MAX)
    assert finding is not None, bug.story
    assert run_without(bug, finding.seed) is None


@pytest.mark.parametrize("name", BY_TEST)
def test_a_named_test_finds(name: str) -> None:
    assert fails_with(BUGS[name]) is not None, BUGS[name].story


def test_there_are_enough_and_they_are_found_soon() -> None:
    seeds = [FOUND[name].seed for name in BY_SIMULATION]
    assert len(BUGS) >= 80
    assert len(BY_TEST) <= 12
    assert statistics.median(seeds) <= 50
    assert max(seeds) <= SEEDS_MAX


class TestPatching:
    """What plants the bugs."""

    HALF = Edit("statemachine.configuration:Configuration.is_quorum", ">= self.majority", ">= self.majority - 1")

    def test_a_bug_is_there_within_the_block_only(self) -> None:
        pair = Configuration(frozenset({1, 2}))
        with planted([self.HALF]):
            assert pair.is_quorum({1})
        assert not pair.is_quorum({1})

    def test_a_fragment_that_is_gone_is_told(self) -> None:
        with pytest.raises(NotPlantable, match="0 times in its source"), planted([Edit(self.HALF.function, "!!", "")]):
            pass

    def test_a_fragment_that_is_there_twice_is_told(self) -> None:
        with pytest.raises(NotPlantable, match="2 times"), planted([Edit(self.HALF.function, "self.", "")]):
            pass

    @pytest.mark.parametrize("place", ["statemachine.raft:Raft.nothing", "statemachine.raft:Save"])
    def test_a_function_that_is_gone_is_told(self, place: str) -> None:
        with pytest.raises(NotPlantable), planted([Edit(place, "x", "y")]):
            pass


def test_the_table_takes_the_place_of_the_last_one(tmp_path: Path) -> None:
    page = tmp_path / "evidence.md"
    command.write(page, "first")
    assert page.read_text() == f"{command.BEGIN}\nfirst\n{command.END}\n"
    page.write_text(f"# Evidence\n\n{page.read_text()}\nmore\n")
    command.write(page, "second \\1")
    assert page.read_text() == f"# Evidence\n\n{command.BEGIN}\nsecond \\1\n{command.END}\n\nmore\n"
    page.write_text("# Evidence\n")
    command.write(page, "third")
    assert page.read_text() == f"# Evidence\n\n{command.BEGIN}\nthird\n{command.END}\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--nothing"], "Error: No such option '--nothing'."),
        (["--only", "nosuchbug"], "Error: --only: no bug has 'nosuchbug' in its name"),
    ],
)
def test_a_wrong_option_is_told_in_a_line(arguments: list[str], line: str) -> None:
    result = CliRunner().invoke(command.main, arguments)
    assert result.exit_code == 2
    assert result.output.splitlines()[-1] == line
