"""What is going to be done to a cluster and when, drawn from a seed. Pure.

A plan is a row of faults, one every second to five seconds, each of which heals after its own time; so several may
be there at once. Faults are dealt from decks, as cards are: every round deals each kind that is enabled (frequent ones
more than once) in an order of its own, and each kind deals its variants (how many servers, which shape) in the same
manner, so that a run of some minutes has all of them and a run of one minute has every kind.

A plan names servers by an order in which they are to be taken, and says whether whoever leads is to be put
first. Who leads is known only when the time has come: so the same seed gives the same plan, and two runs of it differ
by what the cluster made of it.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator
from random import Random
from typing import Generic, TypeVar

import attrs

from fileserver.torture.shapes import Links, Shape, stages

Card = TypeVar("Card")

SECOND_US = 1_000_000
GAP_MIN_US = 1 * SECOND_US
GAP_MAX_US = 5 * SECOND_US
PAUSE_MAX_US = 20 * SECOND_US
QUIET_US = 3 * SECOND_US
"""No fault begins in the last moments of a run."""
JUMP_MAX_SECONDS = 300


class FaultKind(enum.Enum):
    """What is done."""

    KILL = "kill"
    """SIGKILL to one, two or all servers, which are started again later."""
    PAUSE = "pause"
    """SIGSTOP to one or two servers, SIGCONT later."""
    PARTITION = "partition"
    """A shape of lost links."""
    DELAY = "delay"
    """Some links are slow, lose packets and reorder them."""
    DISK_FULL = "disk-full"
    """A server's file system has no room."""
    CLOCK = "clock"
    """A server's wall clock jumps."""
    CORRUPTION = "corruption"
    """Bytes of a stopped server's files are flipped; it has to notice. Then the files are put back."""
    SLOW_FLUSH = "slow-flush"
    """Every flush of a server takes long."""
    RESTART = "restart"
    """SIGTERM, and a new start: a leader hands over first."""


_FREQUENCY = {FaultKind.KILL: 2, FaultKind.PARTITION: 3}
"""How often in a round, where it isn't once."""


class Target(enum.Enum):
    """Which file is damaged."""

    LOG = "log"
    SNAPSHOT = "snapshot"


@attrs.frozen(slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong, and for how long."""

    number: int
    """Counted from 1."""
    kind: FaultKind
    at_us: int
    """Since the beginning of the run."""
    duration_us: int
    """From when it is there until it is healed."""
    order: tuple[int, ...]
    """Server ids: the first ``count`` are hit; of a network fault these are the places of its shape."""
    leader_first: bool
    """Whoever leads when the time has come is moved to the front of the order."""
    count: int
    """How many servers are hit."""
    shape: Shape | None = None
    """Of a partition."""
    stages: tuple[Links, ...] = ()
    """Of a partition or a delay: the links between places of the order that are hit, in each equal part of its time."""
    amount_us: int = 0
    """How long a packet or a flush is held up; how far a clock jumps (may be negative)."""
    loss: float = 0.0
    """Of a delay: which part of the packets is lost as well."""
    target: Target | None = None
    """Of a corruption."""

    @property
    def variant(self) -> str:
        """What sort of its kind it is, for tables."""
        match self.kind:
            case FaultKind.PARTITION:
                assert self.shape is not None
                return self.shape.value
            case FaultKind.CORRUPTION:
                assert self.target is not None
                return self.target.value
            case FaultKind.CLOCK:
                return "ahead" if self.amount_us > 0 else "back"
            case FaultKind.DELAY:
                return "lossy" if self.loss else "slow"
            case _:
                return "all" if self.count == len(self.order) else str(self.count)

    def targets(self, leader: int | None) -> tuple[int, ...]:
        """The servers in the order in which they are to be taken, given who leads."""
        if not self.leader_first or leader not in self.order:
            return self.order
        return (leader, *(server for server in self.order if server != leader))

    def __str__(self) -> str:
        """One line for people."""
        aim = "leader first, " if self.leader_first else ""
        servers = ",".join(map(str, self.order))
        return (
            f"#{self.number} at {self.at_us / SECOND_US:.1f} s for {self.duration_us / SECOND_US:.1f} s: "
            f"{self.kind.value} ({self.variant}), {aim}{self.count} of {servers}"
        )


@attrs.frozen(slots=True, kw_only=True)
class Plan:
    """All faults of a run, by time."""

    seed: int
    duration_us: int
    servers: tuple[int, ...]
    faults: tuple[Fault, ...]


class _Deck(Generic[Card]):
    """Deals cards, all of them before any comes again."""

    def __init__(self, cards: Collection[Card], random: Random) -> None:
        self._cards = tuple(cards)
        self._random = random
        self._left: list[Card] = []

    def deal(self) -> Card:
        """The next card."""
        if not self._left:
            self._left = self._random.sample(self._cards, len(self._cards))
        return self._left.pop()


def make_plan(seed: int, duration_us: int, servers: Collection[int], kinds: Collection[FaultKind]) -> Plan:
    """Draw a plan; the same arguments give the same plan.

    Args:
        seed: any number.
        duration_us: of the run.
        servers: their ids, at least three of them.
        kinds: what may be done; an empty plan if nothing may.
    """
    ids = tuple(sorted(servers))
    wanted = [kind for kind in FaultKind if kind in kinds]
    random = Random(f"plan {seed}")
    faults = tuple(_draw(random, duration_us, ids, wanted)) if wanted else ()
    return Plan(seed=seed, duration_us=duration_us, servers=ids, faults=faults)


def _draw(random: Random, duration_us: int, ids: tuple[int, ...], kinds: list[FaultKind]) -> Iterator[Fault]:
    rounds = _Deck([kind for kind in kinds for _ in range(_FREQUENCY.get(kind, 1))], random)
    first_round = _Deck(kinds, random)
    drawer = _Drawer(random, ids)
    at_us = SECOND_US
    number = 0
    while at_us < duration_us - QUIET_US:
        number += 1
        # Each kind once before any comes twice, so that a short run has as many kinds as can be.
        kind = first_round.deal() if number <= len(kinds) else rounds.deal()
        fault = drawer.fault(number, kind, at_us)
        yield attrs.evolve(fault, duration_us=min(fault.duration_us, duration_us - at_us))
        at_us += random.randint(GAP_MIN_US, GAP_MAX_US)


class _Drawer:
    """Draws faults, each kind's variants from a deck of its own."""

    def __init__(self, random: Random, ids: tuple[int, ...]) -> None:
        self._random = random
        self._ids = ids
        few = sorted({1, self._minority})
        self._counts = {
            FaultKind.KILL: _Deck(sorted({1, 2, len(ids)}), random),
            FaultKind.PAUSE: _Deck(few, random),
            FaultKind.DELAY: _Deck((len(ids),), random),
            FaultKind.DISK_FULL: _Deck(few, random),
            FaultKind.CLOCK: _Deck(range(1, len(ids) + 1), random),
            FaultKind.CORRUPTION: _Deck(few, random),
            FaultKind.SLOW_FLUSH: _Deck(range(1, len(ids) + 1), random),
            FaultKind.RESTART: _Deck((1, 2), random),
        }
        self._shapes = _Deck(tuple(Shape), random)
        self._targets = _Deck(tuple(Target), random)
        self._signs = _Deck((1, -1), random)
        self._losses = _Deck((0.0, random.uniform(0.05, 0.4)), random)

    @property
    def _minority(self) -> int:
        return (len(self._ids) - 1) // 2

    def fault(self, number: int, kind: FaultKind, at_us: int) -> Fault:
        """Draw a fault of that kind."""
        random = self._random
        base = Fault(
            number=number,
            kind=kind,
            at_us=at_us,
            duration_us=random.randint(SECOND_US, 6 * SECOND_US),
            order=tuple(random.sample(self._ids, len(self._ids))),
            leader_first=random.random() < 0.5,
            count=len(self._ids) if kind is FaultKind.PARTITION else self._counts[kind].deal(),
        )
        return self._particulars(base)

    def _particulars(self, fault: Fault) -> Fault:
        """Give a fault what only its kind has."""
        random = self._random
        size = len(self._ids)
        match fault.kind:
            case FaultKind.PAUSE:
                # Most are short, a few as long as can be: those outlast every timeout of a peer.
                longest_us = random.choice((SECOND_US, 4 * SECOND_US, 8 * SECOND_US, PAUSE_MAX_US))
                return attrs.evolve(fault, duration_us=random.randint(longest_us // 4, longest_us))
            case FaultKind.PARTITION:
                shape = self._shapes.deal()
                return attrs.evolve(fault, shape=shape, stages=stages(shape, size, random))
            case FaultKind.DELAY:
                links = frozenset(
                    (source, to)
                    for source in range(size)
                    for to in range(size)
                    if source != to and random.random() < 0.6
                )
                return attrs.evolve(
                    fault,
                    stages=(links or frozenset({(0, 1)}),),
                    amount_us=int(10 ** random.uniform(3.5, 5.7)),
                    loss=self._losses.deal(),
                )
            case FaultKind.CLOCK:
                seconds = max(2, int(JUMP_MAX_SECONDS ** random.random()))
                return attrs.evolve(fault, amount_us=self._signs.deal() * seconds * SECOND_US)
            case FaultKind.CORRUPTION:
                return attrs.evolve(fault, target=self._targets.deal())
            case FaultKind.SLOW_FLUSH:
                return attrs.evolve(fault, amount_us=int(10 ** random.uniform(4.3, 6.0)))
            case _:  # a kill, a restart or a full disk
                return fault
