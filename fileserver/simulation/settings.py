"""What a run is like, as one line of text: ``servers=5 faults=kill,power-cut loss=0.1``.

A run is drawn from its seed; a line like this one says what is to be otherwise. Every field of
:class:`~fileserver.simulation.options.RunOptions` and :class:`~fileserver.simulation.clients.Load` has a name in it, so
any run at all can be written down, and repeated from what was written. Pure.

Invariants:

* ``parse(show(values)) == values``.
* ``changed(anything, values_of(scenario)) == scenario``.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable, Mapping
from random import Random
from typing import Any, Protocol, TypeAlias

import attrs

from fileserver.simulation.clients import Load
from fileserver.simulation.options import FaultKind, RunOptions
from raftnode.simulated_disk import Survival

Value: TypeAlias = int | float | bool | tuple[int, ...] | tuple[enum.Enum, ...] | None

Values: TypeAlias = Mapping[str, Value]
"""By the names of settings."""
_NONE = "none"


class BadSetting(ValueError):
    """Text that is no setting, or values that no run can have."""


@attrs.frozen(slots=True)
class Scenario:
    """All that is drawn for a run."""

    options: RunOptions
    load: Load


class _Form(Protocol):
    """How a value is written."""

    def parse(self, text: str) -> Value:
        """The value; raises ValueError with what it should be."""

    def show(self, value: Any) -> str:
        """Its text, without white space."""


@attrs.frozen(slots=True)
class _Whole:
    least: int
    most: int

    def parse(self, text: str) -> Value:
        if not text.isascii() or not text.isdigit() or not self.least <= int(text) <= self.most:
            raise ValueError(f"a whole number from {self.least} to {self.most}")
        return int(text)

    def show(self, value: Any) -> str:
        return str(value)


@attrs.frozen(slots=True)
class _WholeOrNone(_Whole):
    def parse(self, text: str) -> Value:
        return None if text == _NONE else super().parse(text)

    def show(self, value: Any) -> str:
        return _NONE if value is None else str(value)


@attrs.frozen(slots=True)
class _Share:
    def parse(self, text: str) -> Value:
        try:
            share = float(text)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            raise ValueError("a number from 0 to 1")
        return share

    def show(self, value: Any) -> str:
        return repr(value)


@attrs.frozen(slots=True)
class _YesOrNo:
    def parse(self, text: str) -> Value:
        if text not in ("yes", "no"):
            raise ValueError("yes or no")
        return text == "yes"

    def show(self, value: Any) -> str:
        return "yes" if value else "no"


@attrs.frozen(slots=True)
class _Names:
    names: Mapping[str, enum.Enum]
    may_be_none: bool

    def parse(self, text: str) -> Value:
        words = [] if self.may_be_none and text == _NONE else text.split(",")
        if any(word not in self.names for word in words):
            none = f"{_NONE}, or some of " if self.may_be_none else "some of "
            raise ValueError(none + ",".join(self.names))
        return tuple(self.names[word] for word in words)

    def show(self, value: Any) -> str:
        name_of = {member: name for name, member in self.names.items()}
        return ",".join(name_of[member] for member in value) or _NONE


@attrs.frozen(slots=True)
class _Weights:
    count: int

    def parse(self, text: str) -> Value:
        words = text.split(",")
        if len(words) != self.count or not all(word.isascii() and word.isdigit() for word in words):
            raise ValueError(f"{self.count} whole numbers with commas between")
        weights = tuple(map(int, words))
        if not any(weights):
            raise ValueError("numbers that are not all 0")
        return weights

    def show(self, value: Any) -> str:
        return ",".join(map(str, value))


class _Part(enum.Enum):
    """Where the field of a setting is."""

    OPTIONS = enum.auto()
    RAFT = enum.auto()
    WEATHER = enum.auto()
    LOAD = enum.auto()


@attrs.frozen(slots=True)
class Setting:
    """One name, and what it stands for."""

    name: str
    part: _Part
    field: str
    form: _Form


_TIME = _Whole(1, 10**10)
_SIZE = _Whole(1, 1 << 40)
_WEIGHTS = 7
"""Of read, stat, write, cas, delete, append, touch."""
SERVERS_MAX = 9

SETTINGS: Mapping[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting("servers", _Part.OPTIONS, "servers", _Whole(1, SERVERS_MAX)),
        Setting("faults", _Part.OPTIONS, "faults", _Names({kind.value: kind for kind in FaultKind}, may_be_none=True)),
        Setting("fault-pause-us", _Part.OPTIONS, "pause_between_faults_us", _TIME),
        Setting("notices-crashes", _Part.OPTIONS, "notices_crashes", _Share()),
        Setting(
            "survivals",
            _Part.OPTIONS,
            "survivals",
            _Names({each.name.lower(): each for each in Survival}, may_be_none=False),
        ),
        Setting("request-timeout-us", _Part.OPTIONS, "request_timeout_us", _TIME),
        Setting("snapshot-log-bytes", _Part.OPTIONS, "snapshot_log_bytes", _SIZE),
        Setting("segment-bytes", _Part.OPTIONS, "segment_bytes", _WholeOrNone(500, 1 << 30)),
        Setting("in-place-bytes", _Part.OPTIONS, "in_place_bytes_max", _Whole(0, 1 << 40)),
        Setting("gathered-bytes", _Part.OPTIONS, "gathered_bytes_enough", _SIZE),
        Setting("pass-us", _Part.OPTIONS, "pass_us", _Whole(0, 10_000_000)),
        Setting("round-patience-us", _Part.OPTIONS, "round_patience_us_max", _Whole(0, 10_000_000)),
        Setting("heartbeat-us", _Part.RAFT, "heartbeat_us", _TIME),
        Setting("election-us-min", _Part.RAFT, "election_timeout_us_min", _TIME),
        Setting("election-us-max", _Part.RAFT, "election_timeout_us_max", _TIME),
        Setting("spare-us", _Part.RAFT, "spare_us", _Whole(0, 10**10)),
        Setting("append-bytes", _Part.RAFT, "append_bytes_max", _SIZE),
        Setting("inflight-messages", _Part.RAFT, "inflight_messages_max", _SIZE),
        Setting("snapshot-chunk-bytes", _Part.RAFT, "snapshot_chunk_bytes", _SIZE),
        Setting("delay-us-min", _Part.WEATHER, "delay_us_min", _Whole(0, 10**10)),
        Setting("delay-us-max", _Part.WEATHER, "delay_us_max", _TIME),
        Setting("loss", _Part.WEATHER, "loss", _Share()),
        Setting("repeats", _Part.WEATHER, "repeats", _Share()),
        Setting("long-delays", _Part.WEATHER, "long_delays", _Share()),
        Setting("long-delay-us", _Part.WEATHER, "long_delay_us_max", _TIME),
        Setting("in-order", _Part.WEATHER, "in_order", _YesOrNo()),
        Setting("clients", _Part.LOAD, "clients", _Whole(1, 10_000)),
        Setting("think-us", _Part.LOAD, "think_us", _TIME),
        Setting("patience-us", _Part.LOAD, "patience_us", _TIME),
        Setting("files", _Part.LOAD, "files", _Whole(1, 1_000_000)),
        Setting("weights", _Part.LOAD, "weights", _Weights(_WEIGHTS)),
        Setting("expires", _Part.LOAD, "expires", _Share()),
        Setting("pipelined", _Part.LOAD, "pipelined", _Share()),
        Setting("big", _Part.LOAD, "big", _Share()),
    )
}


def draw(seed: int) -> Scenario:
    """What the seed alone makes of a run."""
    return draw_from(Random(f"world {seed}"))


def draw_from(dice: Random) -> Scenario:
    """Some kind of run under some kind of load."""
    options, load = RunOptions.draw(dice), Load.draw(dice)
    return Scenario(options.fit_for_big_contents() if load.big else options, load)


def parse(text: str) -> dict[str, Value]:
    """Read ``name=value name=value ...``.

    Raises:
        BadSetting: it isn't that, or a value isn't one of its setting's.
    """
    values: dict[str, Value] = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        setting = SETTINGS.get(name)
        if setting is None or not equals:
            near = difflib.get_close_matches(name, SETTINGS, 1)
            hint = f"perhaps {near[0]}=..." if near else f"there are {', '.join(SETTINGS)}"
            raise BadSetting(f"{word!r} is no setting: {hint}")
        if name in values:
            raise BadSetting(f"{name} is set twice")
        try:
            values[name] = setting.form.parse(value)
        except ValueError as error:
            raise BadSetting(f"{name} is {error}, not {value!r}") from error
    return values


def show(values: Values) -> str:
    """The line that :func:`parse` reads."""
    return " ".join(f"{name}={SETTINGS[name].form.show(values[name])}" for name in SETTINGS if name in values)


def values_of(scenario: Scenario) -> dict[str, Value]:
    """Every setting of a run."""
    parts = {
        _Part.OPTIONS: scenario.options,
        _Part.RAFT: scenario.options.raft,
        _Part.WEATHER: scenario.options.weather,
        _Part.LOAD: scenario.load,
    }
    return {setting.name: getattr(parts[setting.part], setting.field) for setting in SETTINGS.values()}


def changed(scenario: Scenario, values: Values) -> Scenario:
    """The same run, but for these settings.

    Raises:
        BadSetting: they don't go together.
    """
    changes: dict[_Part, dict[str, Any]] = {part: {} for part in _Part}
    for name, value in values.items():
        changes[SETTINGS[name].part][SETTINGS[name].field] = value
    options = scenario.options
    try:
        options = attrs.evolve(
            options,
            raft=attrs.evolve(options.raft, **changes[_Part.RAFT]),
            weather=attrs.evolve(options.weather, **changes[_Part.WEATHER]),
            **changes[_Part.OPTIONS],
        )
    except ValueError as error:
        raise BadSetting(str(error)) from error
    if options.weather.delay_us_max < options.weather.delay_us_min:
        raise BadSetting("the delay's range is empty")
    return Scenario(options, attrs.evolve(scenario.load, **changes[_Part.LOAD]))


def differences(scenario: Scenario, other: Scenario) -> dict[str, Value]:
    """The settings of ``other`` that ``scenario`` has otherwise."""
    mine = values_of(scenario)
    return {name: value for name, value in values_of(other).items() if mine[name] != value}


def names_of_faults(kinds: Iterable[FaultKind]) -> str:
    """As ``faults=`` takes them."""
    return SETTINGS["faults"].form.show(tuple(kinds))
