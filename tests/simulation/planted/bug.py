"""What a planted bug is, and the conditions under which the simulator looks for it."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from types import MappingProxyType
from typing import Any, Final

import attrs

from fileserver.simulation.clients import Load
from fileserver.simulation.options import FaultKind, RunOptions
from fileserver.simulation.watcher import Watcher
from fileserver.simulation.world import World
from tests.simulation.planted.patching import Edit

_NOTHING: Mapping[str, Any] = MappingProxyType({})
BUSY: Final = {"think_us": 700_000, "clients": 5}
"""Clients that leave little time between their requests."""
SWIFT: Final = {"election_timeout_us_min": 300_000, "election_timeout_us_max": 600_000, "heartbeat_us": 60_000}
"""Elections as soon as with the cluster file's defaults."""


@attrs.frozen(slots=True, kw_only=True)
class Conditions:
    """What isn't drawn from the seed in runs that look for a bug: what it needs to show often enough."""

    faults: tuple[FaultKind, ...] | None = None
    options: Mapping[str, Any] = _NOTHING
    """Fields of :class:`RunOptions`. Only if it is said here do requests come together, or leaders wait for long."""
    raft: Mapping[str, Any] = _NOTHING
    """Fields of its ``raft``."""
    weather: Mapping[str, Any] = _NOTHING
    """Fields of its ``weather``."""
    load: Mapping[str, Any] = _NOTHING
    """Fields of :class:`Load`."""

    def world(self, seed: int, watcher: Watcher) -> World:
        """A cluster under these conditions; everything else is drawn from the seed."""
        dice = Random(f"planted {seed}")
        drawn = RunOptions.draw(dice)
        load = attrs.evolve(Load.draw(dice), **self.load)
        options = attrs.evolve(
            drawn,
            raft=attrs.evolve(drawn.raft, **self.raft),
            weather=attrs.evolve(drawn.weather, **self.weather),
            faults=drawn.faults if self.faults is None else self.faults,
            pass_us=0,
            round_patience_us_max=2_000,
        )
        return World(seed, attrs.evolve(options, **self.options), load, watcher)


@attrs.frozen(slots=True, kw_only=True)
class Bug:
    """One bug, as a patch, with how it is found."""

    name: str
    source: str
    """Where it is known from: a thread (project#number), a paper, a section of the thesis."""
    story: str
    """What goes wrong, in one sentence."""
    edits: tuple[Edit, ...]
    conditions: Conditions = Conditions()
    test: str | None = None
    """The named test that finds it where the simulator can't, as pytest names it."""


def bug(
    name: str,
    source: str,
    story: str,
    *edits: tuple[str, str, str],
    conditions: Conditions = Conditions(),
    test: str | None = None,
) -> Bug:
    """A bug, from edits as (function, old fragment, new fragment)."""
    return Bug(
        name=name,
        source=source,
        story=story,
        edits=tuple(Edit(*each) for each in edits),
        conditions=conditions,
        test=test,
    )
