"""A little world of our own: network, mounts and processes that vanish with the last process in it.

Theory of operation: :func:`run_apart` starts a program as the first process of new namespaces. Nothing in them has a
name that anybody else could see or trip over, and nothing has to be tidied up: when that process ends, however it ends,
the kernel kills whatever it left running, takes off what it mounted and removes its network interfaces. The process
itself ends with the one that started it.

Inside, further networks are made with :func:`new_network`, which are file descriptors and nothing else; a process or a
socket made within ``with inside(network)`` belongs to that network for good.

Linux only; elsewhere, and where the kernel forbids it, :func:`can_be_apart` says no.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

INSIDE_VARIABLE = "QUINTET_TORTURE_INSIDE"
"""Set to the number of the process outside, for the program that runs inside."""
_NEW_MOUNTS = 0x00020000
_NEW_USERS = 0x10000000
_NEW_PROCESSES = 0x20000000
_NEW_NETWORK = 0x40000000
_SIGNAL_AT_PARENTS_DEATH = 1

_library = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: int) -> None:
    """Call a function of the C library that returns 0 when it works. Raises OSError."""
    if getattr(_library, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _enter(flags: int) -> None:
    """Have new namespaces; in one of users, be root there. Raises OSError."""
    user, group = os.geteuid(), os.getegid()
    _call("unshare", flags)
    if flags & _NEW_USERS:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def try_out(flags: int) -> bool:
    """Whether such namespaces can be had and settled in; for a process that ends then."""
    try:
        _enter(flags)
        return (
            subprocess.run(["mount", "-t", "proc", "proc", "/proc"], capture_output=True, check=False).returncode == 0
        )
    except OSError:
        return False


@functools.cache
def _possible_flags() -> int | None:
    """The namespaces that this user may have here, tried out in processes that end at once; None if not enough."""
    if not sys.platform.startswith("linux") or shutil.which("ip") is None:
        return None
    python = [sys.executable, *(["-P"] if sys.flags.safe_path else [])]  # as `processes.module_command` does
    enough = _NEW_MOUNTS | _NEW_NETWORK | _NEW_PROCESSES
    for flags in (enough, enough | _NEW_USERS):
        trial = f"import sys; from fileserver.torture import namespaces; sys.exit(not namespaces.try_out({flags}))"
        if subprocess.run([*python, "-c", trial], check=False).returncode == 0:
            return flags
    return None


def can_be_apart() -> bool:
    """Whether this user may have namespaces here, and the tools to make something of them."""
    return _possible_flags() is not None


def is_apart() -> bool:
    """Whether this process was started by `run_apart`."""
    return INSIDE_VARIABLE in os.environ


def end_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends."""
    _call("prctl", _SIGNAL_AT_PARENTS_DEATH, signal.SIGKILL, 0, 0, 0)


def run_apart(command: Sequence[str]) -> int:
    """Run a program in namespaces of its own, handing on the signals that ask for an end; gives its exit status.

    This process is in the new network too from then on, so it should do nothing else.

    Raises:
        OSError: the kernel doesn't allow it; see `can_be_apart`.
    """
    flags = _possible_flags()
    assert flags is not None
    _enter(flags)
    process = subprocess.Popen(command, env={**os.environ, INSIDE_VARIABLE: str(os.getpid())})

    def hand_on(number: int, _frame: FrameType | None) -> None:
        process.send_signal(number)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, hand_on)
    status = process.wait()
    return status if status >= 0 else 128 - status


def settle_in() -> None:
    """What the first process inside does before all else.

    Raises:
        OSError: a mount or the loopback interface can't be had.
    """
    end_with_parent()
    for command in (
        ("mount", "--make-rprivate", "/"),
        ("mount", "-t", "proc", "proc", "/proc"),  # so that process numbers mean something here
        ("ip", "link", "set", "lo", "up"),
    ):
        run_tool(*command)


def run_tool(*command: str, text: str | None = None) -> str:
    """Run a program of the system; gives what it said.

    Raises:
        OSError: it is missing, or failed.
    """
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip() or f'status {done.returncode}'}")
    return done.stdout


def this_network() -> int:
    """A file descriptor for the network that this thread is in."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def new_network() -> int:
    """A file descriptor for a new network, which has an idle loopback interface and nothing else. Raises OSError."""
    home = this_network()
    try:
        _call("unshare", _NEW_NETWORK)
        try:
            return this_network()
        finally:
            _call("setns", home, _NEW_NETWORK)
    finally:
        os.close(home)


@contextmanager
def inside(network: int) -> Iterator[None]:
    """Sockets and processes made in the ``with`` block, which mustn't wait, belong to that network. Raises OSError."""
    home = this_network()
    try:
        _call("setns", network, _NEW_NETWORK)
        try:
            yield
        finally:
            _call("setns", home, _NEW_NETWORK)
    finally:
        os.close(home)
