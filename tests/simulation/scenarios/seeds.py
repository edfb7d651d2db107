"""Runs a script with many seeds: 100 if nothing else is said, each seed by itself with a fresh cluster.

``SCENARIO_SEEDS=500`` in the environment runs more of them, ``SCENARIO_FIRST_SEED=37 SCENARIO_SEEDS=1`` one again. The
first seed runs twice, and the hashes of all events must agree. ``SCENARIO_STORY=1`` tells what happens, line by line,
in what pytest shows of a failure.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TypeAlias

from fileserver.simulation.story import Story
from tests.simulation.scenarios.cluster import Cluster, Settings

SEEDS = 100

Script: TypeAlias = Callable[[Cluster], None]

MIT_TESTS: dict[str, str] = {}
"""By the names that MIT's course gives its tests: the name of the test here, of the modules that are imported."""


def seeds() -> range:
    """The seeds to run."""
    first = int(os.environ.get("SCENARIO_FIRST_SEED", "0"))
    return range(first, first + int(os.environ.get("SCENARIO_SEEDS", str(SEEDS))))


def run_seeds(script: Script, settings: Settings) -> None:
    """Run a script with every seed; a failure says which seed it was."""
    for seed in seeds():
        try:
            digest = _run(script, settings, seed)
            if seed == seeds()[0]:
                assert _run(script, settings, seed) == digest, "the same seed went another way"
        except BaseException as error:
            error.add_note(f"seed {seed}: to run it alone, set SCENARIO_FIRST_SEED={seed} SCENARIO_SEEDS=1")
            raise


def _run(script: Script, settings: Settings, seed: int) -> int:
    cluster = Cluster(seed, settings, Story(_tell) if "SCENARIO_STORY" in os.environ else None)
    try:
        cluster.begin()
        script(cluster)
        cluster.finish()
    finally:
        cluster.world.drop()
    return cluster.world.digest


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")


def scenario(settings: Settings | None = None, *, mit: str | None = None) -> Callable[[Script], Callable[[], None]]:
    """Make a script a test that runs it with every seed; ``mit``: the name of the test of MIT 6.5840 that it ports."""

    def make_test(script: Script) -> Callable[[], None]:
        def run_all() -> None:
            run_seeds(script, settings or Settings())

        name = script.__name__
        if mit is not None:
            assert mit not in MIT_TESTS, f"{mit} is ported twice"
            MIT_TESTS[mit] = name
        run_all.__name__ = run_all.__qualname__ = name
        run_all.__doc__ = script.__doc__
        run_all.__module__ = script.__module__
        return run_all

    return make_test
