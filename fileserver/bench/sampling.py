"""Sampling the servers of a cluster under load with py-spy, from outside and without a change to them.

Theory of operation
    py-spy reads another process's memory: which Python calls each of its threads is in. For each sample it stops the
    process for a moment, as stacks that are read while they change don't fit together. It asks the system first which
    threads run, and notes the stacks of these alone; so calls into the system count while they take processor time,
    and not while they sleep. (Only the stacks of those who hold the interpreter's lock would leave all system calls
    out, and frames of C need debug symbols of whatever Python there is.) What isn't work of the server is sorted out
    afterwards, see :mod:`fileserver.bench.stacks`.

    A sampler that has to wait for a processor gets one when somebody goes to sleep, and so mostly finds servers asleep
    that it should have caught at work. So it goes before all others (a real-time process).

    Each case has two runs. The first, short one warms the servers up, and shows which follower works most: the leader
    sends entries at once to as many as a majority takes, and these are the ones that clients wait for. Then a py-spy is
    started for the leader and one for that follower; as soon as both say that they sample comes the second run. The
    servers sleep before and after it, so what was sampled is of the load.

    The system has to allow it: root may look into all processes, others mostly into their descendants alone, which the
    servers aren't of py-spy.
"""

from __future__ import annotations

import linecache
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

import fileserver
from fileserver.bench import generator
from fileserver.bench.cases import Case
from fileserver.bench.cpu import cpu_us
from fileserver.bench.growth import fill, fresh_cluster
from fileserver.bench.local import LocalCluster, NotReady, await_until, temporary_directory
from fileserver.bench.outcome import Outcome
from fileserver.bench.profile_results import CaseProfile, ServerProfile
from fileserver.bench.stacks import profile_of

PROGRAM = "py-spy"
TELLS = "py-spy> "
"""How the lines begin in which it says how it goes."""
SAYS_WHEN_IT_SAMPLES = f"{TELLS}Sampling process"
START_SECONDS = 30.0
STOP_SECONDS = 30.0
WARM_SECONDS = 1.0
MISSING = (
    "py-spy is missing: it is one of the development tools, which `bin/test lint` puts into .venv "
    "(or: pip install py-spy)"
)
NOT_PERMITTED = (
    "py-spy may not look into other processes here: run this as root, or let it by "
    "`sysctl kernel.yama.ptrace_scope=0`; a container needs the capability SYS_PTRACE"
)
NOT_FIRST = "py-spy isn't let before other processes (root could do that): short work is seen less often than there is"
_ROOT = str(Path(fileserver.__file__).parent.parent)


class CannotSample(Exception):
    """The servers can't be sampled. The text is one line that says why, and what to do."""


def sampler(beside: Path = Path(sys.executable).parent) -> str:
    """Where py-spy is: beside the Python that runs this, or on the path. Raises CannotSample."""
    found = shutil.which(PROGRAM, path=str(beside)) or shutil.which(PROGRAM)
    if found is None:
        raise CannotSample(MISSING)
    return found


def check_permitted(program: str) -> None:
    """Have py-spy, which is there, look into a process that is made for that. Raises CannotSample if it can't."""
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None, "asked for above"
        process.stdout.readline()
        command = [program, "dump", "--pid", str(process.pid)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        process.communicate(b"\n")
    if done.returncode:
        raise CannotSample(why(done.stderr))


def why(said: str) -> str:
    """Why py-spy has failed, in a line, by what it said."""
    if "Permission Denied" in said or "Operation not permitted" in said:
        return NOT_PERMITTED
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith(TELLS)]
    return f"py-spy has failed: {lines[0] if lines else 'it says nothing'}"


def put_first(pid: int) -> bool:
    """Let all threads of a process have a processor whenever they want one; gives whether that is permitted."""
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setscheduler(int(thread.name), os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        return False
    return True


class Recorder:
    """A py-spy that samples one process."""

    def __init__(self, program: str, pid: int, rate_hz: int, directory: Path) -> None:
        """Nothing runs yet; ``directory`` is for what it writes."""
        self.goes_first = False
        self._folded = directory / f"{pid}.folded"
        self._log = directory / f"{pid}.log"
        self._command = [program, "record", "--pid", str(pid), "--rate", str(rate_hz), "--format", "raw"]
        self._command += ["--full-filenames", "--threads", "--output", str(self._folded)]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Sample for the time of a ``with`` block. Raises CannotSample, NotReady."""
        with self._log.open("wb") as log:
            process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            await_until("py-spy samples", lambda: self._has_begun(process), START_SECONDS)
            self.goes_first = put_first(process.pid)
            yield
            process.send_signal(signal.SIGINT)  # which it takes as the end of the recording
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise NotReady(f"py-spy hasn't ended within {STOP_SECONDS:.0f} s") from error
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            raise CannotSample(why(self._said()))

    def folded(self) -> str:
        """What was sampled, once that is over; see :mod:`fileserver.bench.stacks` for the form."""
        return self._folded.read_text(encoding="utf-8")

    def _has_begun(self, process: subprocess.Popen[bytes]) -> bool:
        if process.poll() is not None:
            raise CannotSample(why(self._said()))
        return SAYS_WHEN_IT_SAMPLES in self._said()

    def _said(self) -> str:
        return self._log.read_text(errors="replace")


@attrs.frozen(slots=True)
class Wishes:
    """How to profile."""

    seconds: float
    servers: int
    rate_hz: int
    tell: Callable[[str], None]
    """Is given a line about what is done now."""


def profile_cases(cases: tuple[Case, ...], wishes: Wishes) -> list[CaseProfile]:
    """Profile each case on a fresh cluster of this machine. Raises CannotSample, NotReady, ProcessGone, OSError."""
    check_permitted(sampler())
    profiles = []
    wishes.tell(f"starting {wishes.servers} servers")
    with fresh_cluster(wishes.servers) as cluster:
        for load in {case.load.folder: case.load for case in cases if case.load.read_percent}.values():
            wishes.tell(f"writing {load.files:,} files")
            fill(cluster, load)
        for case in cases:
            wishes.tell(case.name)
            profiles.append(_profile(cluster, case, wishes))
    return profiles


def _profile(cluster: LocalCluster, case: Case, wishes: Wishes) -> CaseProfile:
    used_us, _ = _run(cluster, case, WARM_SECONDS)
    leader = cluster.leader()
    followers = sorted((server for server in used_us if server != leader), key=lambda server: -used_us[server])
    roles = {leader: "leader"} | dict.fromkeys(followers[:1], "follower")
    with temporary_directory() as directory:
        recorders = {server: Recorder(sampler(), cluster.pid(server), wishes.rate_hz, directory) for server in roles}
        with ExitStack() as stack:
            for recorder in recorders.values():
                stack.enter_context(recorder.running())
            if not all(recorder.goes_first for recorder in recorders.values()):
                wishes.tell(NOT_FIRST)
            used_us, outcome = _run(cluster, case, wishes.seconds)
        servers = tuple(
            ServerProfile(
                role=roles[server],
                server_id=server,
                on_processor=used_us[server] / (outcome.seconds * 1e6),
                samples=round(outcome.seconds * wishes.rate_hz),
                profile=profile_of(recorder.folded(), _ROOT, linecache.getline),
            )
            for server, recorder in recorders.items()
        )
    return CaseProfile(
        name=case.name, per_second=outcome.figures().per_second, errors=outcome.errors.total(), servers=servers
    )


def _run(cluster: LocalCluster, case: Case, seconds: float) -> tuple[dict[int, int], Outcome]:
    """Put the load on the cluster; gives the processor time that each server has used for it, by its id, too."""
    load = attrs.evolve(case.at(cluster.leader_address(), cluster.addresses, seconds), warm_seconds=0.0)
    before = {server: cpu_us([cluster.pid(server)]) for server in cluster.ids}
    outcome = generator.run(load)
    return {server: cpu_us([cluster.pid(server)]) - before[server] for server in cluster.ids}, outcome
