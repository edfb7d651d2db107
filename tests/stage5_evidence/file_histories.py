"""Histories from seeds: true ones, from a file that really is linearizable, and spoilt ones."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import attrs

from fileserver.linearizability.history import (
    Action,
    Append,
    Cas,
    Delete,
    Deleted,
    Found,
    NotFound,
    Operation,
    Outcome,
    Read,
    Stat,
    Touch,
    VersionMismatch,
    Write,
    Written,
    found,
    found_by_stat,
)

SECOND_US = 1_000_000


@attrs.frozen(slots=True)
class Shape:
    """What a history is to be like."""

    operations: int = 6
    clients: int = 3
    files: int = 1
    unknown: float = 0.2
    """The part of operations that get no reply; half of these take effect, some of them long after."""
    expiring: float = 0.0
    """The part of changes that set an expiry."""
    clock_lag_us: int = 0
    """How far cluster time lies behind at most."""
    step_us: int = 250_000
    """Instants are multiples of this."""
    contents: int = 0
    """How many different contents there are; 0 if each is its own."""
    kinds: tuple[type[Action], ...] = (Write, Cas, Delete, Append, Touch, Read, Read, Stat)


@attrs.define
class _File:
    version: int = 0
    contents: bytes = b""
    deadline_us: int | None = None


@attrs.define
class FileServer:
    """Linearizable, being one object; versions and expiry as the contract has them."""

    version: int = 0
    clock_us: int = 0
    files: dict[str, _File] = attrs.field(factory=dict)

    def advance(self, clock_us: int) -> None:
        self.clock_us = max(self.clock_us, clock_us)
        for name, file in list(self.files.items()):
            if file.deadline_us is not None and file.deadline_us <= self.clock_us:
                del self.files[name]
                self.version += 1

    def _deadline(self, expires_us: int | None) -> int | None:
        return None if expires_us is None else self.clock_us + expires_us

    def _put(self, name: str, contents: bytes, deadline_us: int | None) -> Written:
        self.version += 1
        self.files[name] = _File(self.version, contents, deadline_us)
        return Written(self.version)

    def run(self, name: str, action: Action) -> Outcome:
        file = self.files.get(name)
        match action:
            case Write(contents, expires_us):
                return self._put(name, contents, self._deadline(expires_us))
            case Append(contents, expires_us, keep_expiry):
                old = file or _File()
                deadline_us = old.deadline_us if keep_expiry else self._deadline(expires_us)
                return self._put(name, old.contents + contents, deadline_us)
            case Cas(0, contents, expires_us) if file is None:
                return self._put(name, contents, self._deadline(expires_us))
        if file is None:
            return NotFound()
        if isinstance(action, Cas | Delete) and action.expected not in (None, file.version):
            return VersionMismatch(file.version)
        match action:
            case Cas(_, contents, expires_us):
                return self._put(name, contents, self._deadline(expires_us))
            case Delete():
                self.version += 1
                del self.files[name]
                return Deleted()
            case Touch(expires_us):
                file.deadline_us = self._deadline(expires_us)
                return Written(file.version)
        left = 0 if file.deadline_us is None else -((self.clock_us - file.deadline_us) // SECOND_US)
        if isinstance(action, Read):
            return found(file.version, file.contents, left)
        return found_by_stat(file.version, len(file.contents), left)


@attrs.define
class _Planned:
    client: int
    called_us: int
    effect_us: int
    returned_us: int | None


def true_history(random: Random, shape: Shape) -> list[Operation]:
    """What the clients of a linearizable server saw."""
    server = FileServer()
    lag_us = shape.clock_lag_us
    operations = []
    for serial, planned in enumerate(sorted(_plan(random, shape), key=lambda planned: planned.effect_us)):
        name = f"f{random.randrange(shape.files)}"
        action = _action(random, shape, serial, server)
        lag_us = random.randint(0, shape.clock_lag_us)
        server.advance(planned.effect_us - lag_us)
        outcome: Outcome | None = None
        if planned.returned_us is not None or random.random() < 0.5:
            outcome = server.run(name, action)
        if planned.returned_us is None:
            outcome = None
        operations.append(Operation(planned.client, name, action, planned.called_us, planned.returned_us, outcome))
    random.shuffle(operations)
    return operations


def _plan(random: Random, shape: Shape) -> list[_Planned]:
    """When which client asks, when that takes effect, and when it is over."""
    plan: list[_Planned] = []
    free_us = {client: random.randint(0, 2) for client in range(shape.clients)}
    while len(plan) < shape.operations:
        client = random.choice(list(free_us))
        called = free_us.pop(client) + random.randint(1, 2)
        effect = called + random.randint(0, 4)
        returned: int | None = effect + random.randint(0, 4)
        free_us[client] = effect + 4
        if random.random() < shape.unknown:
            if random.random() < 0.3:
                effect += random.randint(0, 4 * shape.operations)
            returned = None
            free_us[max(free_us) + shape.clients] = free_us.pop(client)
        else:
            assert returned is not None
            free_us[client] = returned
        # The instant of the effect is its own: no two are alike, whatever the step.
        effect_us = effect * shape.step_us + (0 if returned == effect else random.randrange(shape.step_us))
        plan.append(
            _Planned(client, called * shape.step_us, effect_us, None if returned is None else returned * shape.step_us)
        )
    return plan


def _action(random: Random, shape: Shape, serial: int, server: FileServer) -> Action:
    """Something to ask for."""
    contents = b"%d" % (random.randrange(shape.contents) if shape.contents else serial)
    expires_us = random.randint(1, 3) * SECOND_US if random.random() < shape.expiring else None
    expected = random.choice([0, server.version, max(1, server.version - 1)])
    match random.choice(shape.kinds):
        case kind if kind is Write:
            return Write(contents, expires_us)
        case kind if kind is Cas:
            return Cas(expected, contents, expires_us)
        case kind if kind is Delete:
            return Delete(random.choice([None, None, max(1, expected)]))
        case kind if kind is Append:
            return Append(contents, expires_us, keep_expiry=expires_us is None)
        case kind if kind is Touch:
            return Touch(expires_us)
        case kind if kind is Stat:
            return Stat()
        case _:
            return Read()


def spoilt(random: Random, operations: Sequence[Operation]) -> list[Operation]:
    """The history with one thing in it changed; by chance it may be true all the same."""
    changed = list(operations)
    place = random.randrange(len(changed))
    one = changed[place]
    if one.outcome is None or one.returned_us is None:
        changed.pop(place)
        return changed
    match random.randrange(5):
        case 0:  # it happened at another time
            shift_us = random.choice([-8, -4, 4, 8]) * 250_000
            called_us = max(0, one.called_us + shift_us)
            changed[place] = attrs.evolve(
                one, called_us=called_us, returned_us=max(called_us, one.returned_us + shift_us)
            )
        case 1:  # it got another's answer
            other = random.choice(changed)
            if other.outcome is not None:
                changed[place] = attrs.evolve(one, outcome=other.outcome)
        case 2:  # it wasn't there
            changed.pop(place)
        case 3:  # it got another version
            if isinstance(one.outcome, Written | VersionMismatch | Found):
                version = max(0, one.outcome.version + random.choice([-2, -1, 1, 2]))
                changed[place] = attrs.evolve(one, outcome=attrs.evolve(one.outcome, version=version))
        case _:  # the file was there, or not
            outcome = Found(random.randint(1, 4), 1, None) if isinstance(one.outcome, NotFound) else NotFound()
            changed[place] = attrs.evolve(one, outcome=outcome)
    return changed
