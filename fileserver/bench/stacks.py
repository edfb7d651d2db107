"""Sampled stacks of a server: read from folded lines, told apart, and counted. Pure.

Theory of operation
    A sampler looks at a process some hundred times a second and writes down each thread's calls if the system says that
    the thread runs. The result is *folded*: one line for each stack that occurred, the outermost call first, with how
    often it did: ``thread (17): MainThread;run (/a/b.py:12);turn (/a/c.py:3) 42``. The line number is where the
    function was, so one function stands in many lines. Functions that are written in C, and system calls, have no
    frames: their time is that of the function that calls them.

    For the system, a thread that is ready and waits for a processor runs, too, and on a busy machine that is much of
    the time. Where a server steps aside or goes to sleep, hardly anything else is ever seen: it *gives way* before it
    looks for news (:mod:`raftnode.giving_way`), and it waits for them in a poller, where it stands *woken* until it
    gets a processor. Samples at these calls are counted apart, since they tell how busy the machine is and not what a
    server does. In all others it *ran*. (Among these is still who waits for a processor at the end of a flush, or
    because somebody else took it away.)

    Only the main thread's stacks are kept: it does all that is done for requests, but for the biggest saves. Of helper
    threads it is counted how often one of them ran.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs

MAIN_THREAD = "MainThread"
GAVE_WAY_CALL = "give_way()"
POLL_CALL = ".poll("
POLLS_NOW_CALL = ".poll(0"
"""Looks and doesn't wait."""
POLLING_FILES = ("raftnode/reactor.py", "trio/_core/_io_epoll.py")
IDLE_HELPER = "trio/_core/_thread_cache.py WorkerThread._work"
"""Where a helper thread waits for work; also ready now and then, and for nothing."""
_FRAME = re.compile(r"(?P<function>.+?) \((?P<file>.*):(?P<line>-?\d+)\)")
_ATTRS = re.compile(r"<attrs generated methods (?P<name>.*)>")
_LIBRARY = re.compile(r".*/(?:site-packages|dist-packages|lib/python3\.\d+)/")

Stack = tuple[str, ...]
"""Labels of functions, the outermost first. A label is a short path and a qualified name, with a space between."""


@attrs.frozen(slots=True)
class Frame:
    """A call that had not returned yet."""

    function: str
    """Its qualified name."""
    file: str
    line: int
    """Where in it; 0 if that isn't known."""

    @classmethod
    def parse(cls, text: str) -> Frame:
        """Read what a folded line has between two semicolons."""
        match = _FRAME.fullmatch(text)
        return cls(match["function"], match["file"], int(match["line"])) if match else cls(text, "", 0)

    def label(self, root: str) -> str:
        """Its function, for people; ``root`` is the directory of the server's own packages."""
        generated = _ATTRS.fullmatch(self.file)
        if generated:
            return f"{generated['name']} {self.function}"
        own = self.file.removeprefix(f"{root}/")
        return f"{own if own != self.file and '/site-packages/' not in own else _LIBRARY.sub('', own)} {self.function}"


@attrs.frozen(slots=True)
class Sample:
    """A stack of one thread, and how often it was seen."""

    thread: str
    frames: tuple[Frame, ...]
    count: int


def parse_folded(text: str) -> Iterator[Sample]:
    """Read folded lines whose outermost frames name the threads. Lines of another form are left out."""
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        thread, *frames = stack.split(";")
        if frames and count.isdigit():
            yield Sample(thread, tuple(map(Frame.parse, frames)), int(count))


@attrs.frozen(slots=True)
class Profile:
    """What became of all samples of one server; see the module's docstring for the words."""

    stacks: Mapping[Stack, int]
    """How often the main thread ran in each stack."""
    gave_way: int = 0
    woken: int = 0
    helpers_ran: int = 0

    @property
    def ran(self) -> int:
        """How often the main thread ran."""
        return sum(self.stacks.values())

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; its stacks are folded, as drawers of flame graphs read them."""
        return {
            "ran": self.ran,
            "gave_way": self.gave_way,
            "woken": self.woken,
            "helpers_ran": self.helpers_ran,
            "stacks": {";".join(stack): count for stack, count in self.stacks.items()},
        }


def profile_of(text: str, root: str, source_line: Callable[[str, int], str]) -> Profile:
    """Count what a sampler has seen.

    Args:
        text: folded lines, see `parse_folded`.
        root: the directory of the server's own packages.
        source_line: gives a line of a source file, by path and number; an empty one if there is none.
    """
    stacks: Counter[Stack] = Counter()
    gave_way = woken = helpers_ran = 0
    for sample in parse_folded(text):
        stack = tuple(frame.label(root) for frame in sample.frames)
        last = sample.frames[-1]
        if not sample.thread.endswith(MAIN_THREAD):
            helpers_ran += sample.count * (stack[-1] != IDLE_HELPER)
            continue
        is_poller = stack[-1].startswith(POLLING_FILES)
        line = source_line(last.file, last.line) if is_poller else ""
        if GAVE_WAY_CALL in line:
            gave_way += sample.count
        elif POLL_CALL in line and POLLS_NOW_CALL not in line:
            woken += sample.count
        else:
            stacks[stack] += sample.count
    return Profile(dict(stacks), gave_way, woken, helpers_ran)


@attrs.frozen(slots=True)
class FunctionShare:
    """How much of the time a function takes: shares from 0 to 1 of all samples in which the main thread ran."""

    label: str
    own: float
    """It was the innermost one."""
    with_callees: float
    """It was among the calls, at least once."""


def function_shares(profile: Profile, own_min: float, samples_min: int = 1) -> Sequence[FunctionShare]:
    """The functions with at least that share, and so many samples, of their own; the biggest first."""
    own: Counter[str] = Counter()
    with_callees: Counter[str] = Counter()
    for stack, count in profile.stacks.items():
        own[stack[-1]] += count
        for label in set(stack):
            with_callees[label] += count
    ran = profile.ran
    return [
        FunctionShare(label, count / ran, with_callees[label] / ran)
        for label, count in sorted(own.items(), key=lambda item: (-item[1], item[0]))
        if count >= max(own_min * ran, samples_min)
    ]
