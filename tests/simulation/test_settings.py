"""Runs as text: whatever can be drawn can be written down and comes back the same."""

import pytest

from fileserver.simulation import settings
from fileserver.simulation.options import CHUNK_BYTES_MIN_WITH_BIG_CONTENTS, FaultKind
from fileserver.simulation.settings import BadSetting


@pytest.mark.parametrize("seed", range(100))
def test_every_run_can_be_written_down(seed: int) -> None:
    """A field that has no name here, in any of the classes, would be lost on the way."""
    scenario = settings.draw(seed)
    text = settings.show(settings.values_of(scenario))
    assert settings.changed(settings.draw(seed + 1), settings.parse(text)) == scenario
    assert settings.show(settings.parse(text)) == text


def test_big_contents_go_into_snapshots_of_few_chunks() -> None:
    """Otherwise one takes minutes to get across, and those who wait for it are rightly told that nobody serves them."""
    drawn = [settings.draw(seed) for seed in range(200)]
    with_big = [scenario.options.raft.snapshot_chunk_bytes for scenario in drawn if scenario.load.big]
    assert with_big
    assert min(with_big) == CHUNK_BYTES_MIN_WITH_BIG_CONTENTS
    assert any(scenario.options.raft.snapshot_chunk_bytes < min(with_big) for scenario in drawn)


def test_only_differences_need_to_be_written() -> None:
    one, other = settings.draw(1), settings.draw(2)
    values = settings.differences(one, other)
    assert settings.changed(one, values) == other
    assert settings.differences(one, settings.changed(one, {"servers": 9})) == {"servers": 9}
    assert settings.differences(one, one) == {}


def test_what_people_write() -> None:
    values = settings.parse(
        " servers=5  faults=kill,power-cut\tloss=0.1 in-order=no survivals=random weights=1,0,0,2,0,0,3 "
    )
    assert values["faults"] == (FaultKind.KILL, FaultKind.POWER_CUT)
    assert (values["servers"], values["loss"], values["in-order"]) == (5, 0.1, False)
    assert values["weights"] == (1, 0, 0, 2, 0, 0, 3)
    assert settings.parse("faults=none") == {"faults": ()}
    assert settings.show({"faults": ()}) == "faults=none"
    assert settings.parse("") == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("server=5", "perhaps servers="),
        ("zzz=1", "there are servers, faults"),
        ("servers", "is no setting"),
        ("servers=5 servers=5", "set twice"),
        ("servers=0", "whole number from 1 to 9"),
        ("servers=-1", "whole number"),
        ("servers=five", "whole number"),
        ("servers=²", "whole number"),
        ("loss=1.1", "from 0 to 1"),
        ("loss=nan", "from 0 to 1"),
        ("loss=x", "from 0 to 1"),
        ("in-order=maybe", "yes or no"),
        ("faults=kill,fire", "none, or some of kill,"),
        ("faults=", "some of"),
        ("survivals=none", "is some of nothing,"),
        ("weights=1,2", "7 whole numbers"),
        ("weights=1,1,1,1,1,1,x", "7 whole numbers"),
        ("weights=0,0,0,0,0,0,0", "not all 0"),
    ],
)
def test_what_is_no_setting_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(BadSetting, match=why):
        settings.parse(text)


@pytest.mark.parametrize("text", ["heartbeat-us=5000000", "election-us-min=9000000000", "delay-us-min=9000000000"])
def test_settings_that_do_not_go_together_are_refused(text: str) -> None:
    with pytest.raises(BadSetting):
        settings.changed(settings.draw(1), settings.parse(text))
