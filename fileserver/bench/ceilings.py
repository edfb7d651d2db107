"""What one server does by itself: same protocol and store, no disk, nobody to agree with. A cluster can't do more."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from fileserver.bench import generator
from fileserver.bench.cases import CASES, Case, CaseResult, Measured
from fileserver.bench.local import NotReady, await_until, free_cluster
from fileserver.config import Address
from fileserver.processes import module_command

START_SECONDS = 20.0


def measure_ceilings(
    seconds: float, tell: Callable[[str], None], cases: Sequence[Case] = tuple(CASES)
) -> list[CaseResult]:
    """One round of each case, on a server alone; ``tell`` is given a line about what is done. Raises NotReady."""
    results = []
    with server_alone() as (address, pid):
        for case in cases:
            tell(f"one server alone: {case.name}")
            if case.load.read_percent:
                generator.fill(case.load.at([address]))
            outcome = generator.run(case.at(address, (address,), seconds), pids=[pid])
            results.append(CaseResult(case.name, (Measured.of(outcome),)))
    return results


@contextmanager
def server_alone() -> Iterator[tuple[Address, int]]:
    """A server by itself for the time of a ``with`` block: its address and its process. Raises NotReady."""
    address = free_cluster(1).servers[0].client
    command = [*module_command("fileserver.cli.fileserver"), "--alone", "--host", address.host]
    with subprocess.Popen(
        [*command, "--port", str(address.port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            await_until(f"an answer at {address}", lambda: _answers(address, process), START_SECONDS)
            yield address, process.pid
        finally:
            process.terminate()


def _answers(address: Address, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        raise NotReady(f"the server at {address} has ended with exit status {process.returncode}")
    try:
        (client,) = generator.connect_all([address], 1)
    except OSError:
        return False
    client.socket.close()
    return True
