"""One run from one line of text, as a value: what it was like, and what was wrong, if anything.

Whatever ends a run is a finding, be it a promise that was broken or an exception that nobody had thought of. Two
findings are of the same kind if they were raised at the same place: that is what shrinking holds on to.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import attrs

from fileserver.simulation import settings
from fileserver.simulation.bound import bounded
from fileserver.simulation.server import WatchedNode
from fileserver.simulation.settings import Scenario, Values
from fileserver.simulation.watcher import Watcher
from fileserver.simulation.world import World

_HELPERS = ("_demand",)
"""Functions that raise for others: the place is where they were called."""
_MESSAGE_LENGTH_MAX = 1_500


@attrs.frozen(slots=True, kw_only=True)
class Trial:
    """What to run."""

    seed: int
    duration_us: int
    values: Values = attrs.Factory(dict)
    """What is not to be as the seed draws it."""

    def scenario(self) -> Scenario:
        """All that is drawn, and what is otherwise.

        Raises:
            BadSetting: the values don't go together.
        """
        return settings.changed(settings.draw(self.seed), self.values)

    def __str__(self) -> str:
        """As the command line takes it."""
        options = f" --options '{settings.show(self.values)}'" if self.values else ""
        return f"--seed {self.seed} --seconds {self.duration_us / 1e6:.15g}{options}"


@attrs.frozen(slots=True)
class Failure:
    """What was wrong."""

    kind: str
    """What was raised, and where."""
    message: str
    at_us: int
    """True time in the run."""

    def __str__(self) -> str:
        """For people."""
        return f"after {self.at_us / 1e6:.6f} simulated seconds: {self.kind}: {self.message}"


@attrs.frozen(slots=True, kw_only=True)
class Outcome:
    """What a run was like."""

    trial: Trial
    simulated_us: int
    cpu_seconds: float
    faults: Mapping[str, int]
    """By kind."""
    replies: int
    unknown: int
    """Requests whose outcome the clients never learned."""
    messages: int
    elections: int
    """Won ones."""
    crashes: int
    """Ends of servers, whatever their reason."""
    digest: int
    failure: Failure | None

    @property
    def operations(self) -> int:
        """Requests of clients."""
        return self.replies + self.unknown


class _Finding:
    """A ``with`` block whose end by an exception is a finding; ^C is none."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __enter__(self) -> _Finding:
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if isinstance(error, Exception):
            self.error = error
            return True
        return False


def run(
    trial: Trial,
    watcher: Watcher | None = None,
    node_class: type[WatchedNode] = WatchedNode,
    cpu_seconds_max: float = math.inf,
) -> Outcome:
    """Run it, to its end or to the first finding; to take more than so much processor time is one.

    Raises:
        BadSetting: the trial's values don't go together.
    """
    scenario = trial.scenario()
    began = time.process_time()
    world = World(trial.seed, scenario.options, scenario.load, watcher, node_class)
    collects = gc.isenabled()
    # A run lets go of nothing that it couldn't keep until its end, and to look for that takes a fifth of its time.
    gc.disable()
    try:
        with _Finding() as finding, bounded(world.loop, cpu_seconds_max):
            world.run(trial.duration_us)
        world.drop()
    finally:
        if collects:
            gc.enable()
    return Outcome(
        trial=trial,
        simulated_us=world.loop.now_us,
        cpu_seconds=time.process_time() - began,
        faults=dict(world.nemesis.struck),
        replies=world.oracle.replies,
        unknown=world.unknown,
        messages=world.network.sent,
        elections=world.elections,
        crashes=world.events["end"],
        digest=world.digest,
        failure=None if finding.error is None else _failure_of(finding.error, world.loop.now_us),
    )


def _failure_of(error: Exception, at_us: int) -> Failure:
    kind = f"{type(error).__name__} in {_place_of(error)}"
    message = " ".join(str(error).split())
    if len(message) > _MESSAGE_LENGTH_MAX:
        message = message[:_MESSAGE_LENGTH_MAX] + " ..."
    return Failure(kind, message, at_us)


def _place_of(error: Exception) -> str:
    """Function, file and line of where it was raised."""
    traceback = error.__traceback__
    place = "nowhere"
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if code.co_name not in _HELPERS:
            place = f"{code.co_name} ({Path(code.co_filename).name}:{traceback.tb_lineno})"
        traceback = traceback.tb_next
    return place
