"""Fuzzes one target in a process of its own; its reports are lines of JSON on standard output.

With atheris (libFuzzer's coverage of edges, of every input) where it can be imported, else with our own loop. atheris
instruments modules as they are imported and never gives the process back: hence the process, and hence the targets,
with all of the product, are imported only here and only then.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any, Final, NoReturn

import attrs

from tests.fuzzing.judging import Judge, Summary
from tests.fuzzing.loop import Fuzzer, changed
from tests.fuzzing.target import Target

_MEMORY_BYTES_MAX: Final = 4 << 30
"""Of the process: what takes more than that gets a MemoryError, which is a finding."""
_REPORT_SECONDS: Final = 0.3
_REPORT_EVERY: Final = 64


@attrs.frozen(slots=True)
class Task:
    """What a worker is to do; ``inputs_count`` or ``seconds`` or both say how much."""

    target: str
    seed: str
    inputs_count: int | None
    seconds: float | None
    engine: str
    """``own`` or ``atheris``."""
    directory: str
    """Where inputs of findings are kept."""


@attrs.define
class _Reporter:
    """Writes a line now and then, and the inputs of findings as they come."""

    directory: Path
    _told_at: float = 0.0
    _saved: list[str] = attrs.Factory(list)

    def report(self, summary: Summary, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if not at_once and now - self._told_at < _REPORT_SECONDS:
            return
        self._told_at = now
        for finding in summary.findings[len(self._saved) :]:
            self._saved.append(f"{finding.save(self.directory)}: {finding.place}")
        fields = attrs.asdict(summary, filter=lambda field, _: field.name != "findings")
        sys.stdout.write(json.dumps(fields | {"findings": self._saved}) + "\n")
        sys.stdout.flush()


def atheris_is_there() -> bool:
    """Whether the atheris engine can be used."""
    return importlib.util.find_spec("atheris") is not None


def _run_atheris(task: Task, reporter: _Reporter) -> NoReturn:
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["raftnode", "fileserver"]):
        target = _target(task.target)
    judge = Judge(target)
    with (
        tempfile.TemporaryDirectory(prefix=f"fuzz-{target.name}-") as corpus,
        target.environment(),
        judge.watchdog.watching(),
    ):
        examples = target.examples()
        for number, example in enumerate(examples):
            Path(corpus, str(number)).write_bytes(example)
        started = time.monotonic()

        def run_one(data: bytes) -> None:
            judge.judge(data)
            summary = judge.summary
            is_last = summary.inputs_count == task.inputs_count
            if is_last or summary.inputs_count % _REPORT_EVERY == 0:
                summary.seconds = time.monotonic() - started
                summary.corpus_count = len(list(Path(corpus).iterdir())) if is_last else summary.corpus_count
                reporter.report(summary, at_once=is_last)

        def change(data: bytes, size_bytes_max: int, seed: int) -> bytes:
            random = Random(seed)
            return changed(target, data, random.choice(examples), random)[:size_bytes_max]

        options = [f"-seed={_number_of(task.seed)}", f"-max_len={target.size_bytes_max}", "-verbosity=0"]
        options += [] if task.inputs_count is None else [f"-runs={task.inputs_count}"]
        options += [] if task.seconds is None else [f"-max_total_time={max(int(task.seconds), 1)}"]
        atheris.Setup([sys.argv[0], *options, corpus], run_one, custom_mutator=change)
        atheris.Fuzz()
    raise AssertionError("atheris ends the process")


def _number_of(seed: str) -> int:
    """A seed as libFuzzer takes it, never 0, which stands for the time."""
    return Random(seed).getrandbits(31) | 1


def _run_own(task: Task, reporter: _Reporter) -> None:
    fuzzer = Fuzzer(_target(task.target), task.seed)
    summary = fuzzer.run(task.inputs_count, task.seconds, reporter.report)
    reporter.report(summary, at_once=True)


def _target(name: str) -> Target:
    target: Target = importlib.import_module("tests.fuzzing.targets").TARGETS[name]
    return target


def main() -> None:
    """Does the task that the only argument is, as JSON."""
    for ended_by in (signal.SIGINT, signal.SIGPIPE):
        signal.signal(ended_by, signal.SIG_DFL)  # Whoever is ended, or has lost its starter, ends without a word.
    task = Task(**json.loads(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES_MAX, _MEMORY_BYTES_MAX))
    reporter = _Reporter(Path(task.directory))
    if task.engine == "atheris":
        _run_atheris(task, reporter)
    else:
        _run_own(task, reporter)


if __name__ == "__main__":
    main()
