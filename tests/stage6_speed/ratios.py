"""Processor time of five real servers for one operation, in units of a fixed reference load measured in turns with it.

A ratio within one run hardly depends on how fast the machine is. On what else it does it depends a little: other
programs empty the caches between two operations, and their more than those of a tight loop. So of several rounds the
least of each side counts, as noise only ever adds; and a round in which others took more than a fifth of the machine
can show that all is well, but not that it isn't.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

import attrs

from fileserver.bench import generator
from fileserver.bench.cases import CASES
from fileserver.bench.local import local_servers
from fileserver.config import local_cluster
from tests.stage4_cluster import ports
from tests.stage4_cluster.harness import ROOT

SERVERS = 5
SECONDS = 0.8
WARM_SECONDS = 0.2
REFERENCES = {"write-1": 1, "write-64": 16, "read-64": 16}
"""By case, how many requests are under way in its reference."""
OTHERS_SHARE_MAX = 0.2
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@attrs.frozen(slots=True)
class Sample:
    """A case and its reference, measured one right after the other, in microseconds of processor time an operation."""

    servers_us: float
    reference_us: float
    others_share: float
    """How much of the machine was used by other programs meanwhile."""

    @property
    def is_quiet(self) -> bool:
        """Whether it can show that something has become dearer."""
        return self.others_share <= OTHERS_SHARE_MAX


def rounds_of(directory: Path) -> Generator[dict[str, Sample], None, None]:
    """Measure round by round, each with a sample of every case, until nobody asks for more."""
    cases = {case.name: case for case in CASES if case.name in REFERENCES}
    reserved = ports.reserve()
    try:
        config = local_cluster(nodes=SERVERS, host="127.0.0.1", port=reserved.first)
        with local_servers(SERVERS, directory / "cluster", config) as cluster:
            leader = cluster.leader_address()
            generator.fill(cases["read-64"].at(leader, cluster.addresses, SECONDS))
            while True:
                samples = {}
                for name, case in cases.items():
                    reference = reference_us(REFERENCES[name])
                    load = attrs.evolve(case.at(leader, cluster.addresses, SECONDS), warm_seconds=WARM_SECONDS)
                    began_at, busy = time.monotonic(), _busy_seconds()
                    outcome = generator.run(load, pids=cluster.pids)
                    assert not outcome.errors, outcome.errors
                    assert outcome.server_cpu_us is not None, "the servers run"
                    # The warm-up is in the machine's time and not in the outcome's, but as busy as the rest.
                    seconds = time.monotonic() - began_at
                    ours = (outcome.server_cpu_us + outcome.generator_cpu_us) / 1e6 * seconds / outcome.seconds
                    others = max(0.0, _busy_seconds() - busy - ours) / seconds / (os.cpu_count() or 1)
                    samples[name] = Sample(outcome.server_cpu_us / outcome.operations, reference, others)
                yield samples
    finally:
        reserved.release()


def _busy_seconds() -> float:
    """How long the machine's processors have not been idle, all together."""
    user, nice, system, _idle, _waiting, *others = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    return sum(map(int, (user, nice, system, *others))) / _TICKS_A_SECOND


def reference_us(under_way: int) -> float:
    """One measurement of the reference, in a process of its own: what the tests have in memory would slow it down."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tests.stage6_speed.reference", str(under_way)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return float(done.stdout)


def ratios(rounds: Sequence[Mapping[str, Sample]]) -> dict[str, float]:
    """For each case how many references its operation costs all servers together."""
    return {name: ratio([each[name] for each in rounds]) for name in rounds[0]}


def ratio(samples: Sequence[Sample]) -> float:
    """The least that the servers took, in units of the least that the reference took."""
    return min(each.servers_us for each in samples) / min(each.reference_us for each in samples)


def dearer(measured: Mapping[str, float], kept: Mapping[str, float], growth_max: float) -> dict[str, str]:
    """What costs more than it may, with both figures."""
    return {
        name: f"{value:.2f}, which is {value / kept[name]:.2f} times the baseline of {kept[name]:.2f}"
        for name, value in measured.items()
        if value > growth_max * kept[name]
    }
