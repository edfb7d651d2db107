"""What one run is like: everything that is drawn from its seed before it begins.

Each seed mixes its own few faults, each in its own strength ("swarm testing": Groce et al., ISSTA 2012): a run with
every fault at once would rarely get anywhere, and hide what a quiet network and a failing disk can do together.
"""

from __future__ import annotations

import enum
from random import Random

import attrs

from fileserver.simulation.network import LinkWeather
from raftnode.expected_batches import PATIENCE_US_MAX
from raftnode.simulated_disk import Survival
from statemachine.roles import Options

CHUNK_BYTES_MIN_WITH_BIG_CONTENTS = 1_000
"""A snapshot with such a content in it takes thousands of smaller chunks, and longer than clients are ready to wait."""


class FaultKind(enum.Enum):
    """What can be done to a cluster, beside the weather on its links."""

    KILL = "kill"
    """A process ends; what it wrote stays."""
    POWER_CUT = "power-cut"
    """A machine ends; of what wasn't flushed, any part stays, torn anywhere."""
    CRASH_IN_CALL = "crash-in-call"
    """A power cut in the middle of a call to the disk."""
    KILL_ALL = "kill-all"
    ROLLING_RESTART = "rolling-restart"
    PARTITION = "partition"
    ONE_WAY = "one-way"
    PAUSE = "pause"
    CLOCK_RATE = "clock-rate"
    CLOCK_JUMP = "clock-jump"
    FULL_DISK = "full-disk"
    DISK_ERROR = "disk-error"
    SLOW_DISK = "slow-disk"
    ROT = "rot"
    HAND_OVER = "hand-over"


@attrs.frozen(slots=True, kw_only=True)
class RunOptions:
    """See the module's docstring."""

    servers: int
    raft: Options
    snapshot_log_bytes: int
    request_timeout_us: int
    weather: LinkWeather
    faults: tuple[FaultKind, ...]
    pause_between_faults_us: int
    """The longest."""
    notices_crashes: float
    """How often a server learns at once that another has ended, by the end of their connection."""
    survivals: tuple[Survival, ...]
    segment_bytes: int | None = None
    """Of the log's files; None: as real servers have them, which is more than a run fills."""
    in_place_bytes_max: int = 1 << 20
    """Saves from this size on are made in a thread, on quick disks too."""
    gathered_bytes_enough: int = 64 << 10
    """So much that has gathered doesn't wait for the batch of changes that is under way."""
    pass_us: int = 0
    """How long a server lets requests of its clients come together."""
    round_patience_us_max: int = PATIENCE_US_MAX
    """How long a leader waits for the batches of other servers at most."""

    @classmethod
    def draw(cls, dice: Random) -> RunOptions:
        """Some kind of run."""
        heartbeat_us = dice.choice((60_000, 150_000, 250_000, 400_000))
        election_us = heartbeat_us * dice.randint(5, 10)
        return cls(
            servers=dice.choice((1, 2, 3, 3, 3, 4, 5, 5, 5, 5, 6, 7)),
            raft=Options(
                election_timeout_us_min=election_us,
                election_timeout_us_max=2 * election_us,
                heartbeat_us=heartbeat_us,
                append_bytes_max=dice.choice((200, 1 << 20)),
                inflight_messages_max=dice.choice((1, 4, 256)),
                spare_us=dice.choice((0, 10_000, 30_000)),
                snapshot_chunk_bytes=dice.choice((64, 1_000, 240 << 10)),
            ),
            snapshot_log_bytes=dice.choice((100, 500, 2_500, 64 << 20)),
            request_timeout_us=dice.choice((2_000_000, 15_000_000)),
            weather=LinkWeather(
                delay_us_max=dice.choice((500, 2_000, 20_000)),
                loss=dice.choice((0.0, 0.0, 0.01, 0.1, 0.4)),
                repeats=dice.choice((0.0, 0.0, 0.05, 0.3)),
                long_delays=dice.choice((0.0, 0.0, 0.005, 0.05)),
                long_delay_us_max=dice.choice((200_000, 10_000_000)),
                in_order=dice.random() < 0.5,
            ),
            faults=tuple(dice.sample(list(FaultKind), dice.randint(1, 6))),
            pause_between_faults_us=dice.choice((2_000_000, 6_000_000, 15_000_000)),
            notices_crashes=dice.choice((0.0, 0.5, 1.0)),
            survivals=dice.choice(((Survival.NOTHING,), (Survival.RANDOM,), tuple(Survival))),
            segment_bytes=dice.choice((1_000, 4_000, 30_000, None)),
            in_place_bytes_max=dice.choice((0, 500, 1 << 20)),
            gathered_bytes_enough=dice.choice((1, 100, 64 << 10)),
            pass_us=(others := _apart_from(dice)).choice((0, 0, 30_000, 500_000)),
            round_patience_us_max=others.choice((0, 2_000, 10_000)),
        )

    def fit_for_big_contents(self) -> RunOptions:
        """The same, but for chunks of snapshots that are too small for them."""
        chunk_bytes = max(self.raft.snapshot_chunk_bytes, CHUNK_BYTES_MIN_WITH_BIG_CONTENTS)
        return attrs.evolve(self, raft=attrs.evolve(self.raft, snapshot_chunk_bytes=chunk_bytes))


def _apart_from(dice: Random) -> Random:
    """Dice for what is drawn only since a later version: what else a seed stands for stays as it was."""
    others = Random()
    others.setstate(dice.getstate())
    return Random(others.getrandbits(64))
