"""Nothing may become dearer by more than a fifth, in processor time against a reference.

It measures five real servers, so it is run by itself (``bin/test evidence`` does); beside other tests it would measure
those. What to do when it fails: see test_regression.py.
"""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.stage6_speed.baseline import COMMAND, GROWTH_MAX, baseline
from tests.stage6_speed.ratios import Sample, dearer, ratio, ratios, rounds_of

PATIENCE_SECONDS = 40.0
ROUNDS_MIN = 2


@pytest.mark.slow
def test_processor_time_against_the_reference(tmp_path: Path) -> None:
    """Ends with the first round after which all is well; noise is given `PATIENCE_SECONDS` to go away."""
    kept = baseline()["ratios"]
    deadline = time.monotonic() + PATIENCE_SECONDS
    rounds: list[dict[str, Sample]] = []
    found: dict[str, str] = {}
    with closing(rounds_of(tmp_path)) as coming:
        for samples in coming:
            rounds.append(samples)
            found = dearer(ratios(rounds), kept, GROWTH_MAX)
            if len(rounds) >= ROUNDS_MIN and (not found or time.monotonic() > deadline):
                break
    for name in list(found):
        quiet = [samples[name] for samples in rounds if samples[name].is_quiet]
        if quiet:
            assert name not in dearer({name: ratio(quiet)}, kept, GROWTH_MAX), (
                f"{name} costs the servers more references than it may: {found[name]} (in {len(rounds)} rounds). "
                f"To keep the new figures: {COMMAND}, on a machine that does nothing else"
            )
    if found:
        pytest.skip(f"other programs were too busy to tell whether these became dearer: {found}")
