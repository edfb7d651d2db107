"""One run as a value: the same every time, and whatever goes wrong in it is a finding."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import attrs
import pytest

from fileserver.simulation import settings
from fileserver.simulation.bound import TooLong
from fileserver.simulation.campaign import Totals, campaign, compared, is_repeated, run_bounded
from fileserver.simulation.oracle import Violation
from fileserver.simulation.run import Failure, Outcome, Trial, run
from fileserver.simulation.server import WatchedNode
from fileserver.simulation.settings import BadSetting
from fileserver.simulation.story import Story
from statemachine.invariants import InvariantViolation

SECOND_US = 1_000_000
ROOT = Path(__file__).resolve().parents[2]
TRIAL = Trial(seed=11, duration_us=10 * SECOND_US)
MIXED = Trial(
    seed=12,
    duration_us=15 * SECOND_US,
    values=settings.parse("servers=5 faults=power-cut,partition,clock-jump,disk-error fault-pause-us=2000000 loss=0.1"),
)


def same(outcome: Outcome) -> Outcome:
    """Without what differs from time to time."""
    return attrs.evolve(outcome, cpu_seconds=0.0)


def test_a_run_is_good_and_has_figures() -> None:
    outcome = run(MIXED)
    assert outcome.failure is None
    assert outcome.simulated_us > MIXED.duration_us
    assert outcome.operations == outcome.replies + outcome.unknown > 10
    assert min(outcome.messages, outcome.elections, outcome.crashes, sum(outcome.faults.values())) > 0
    assert outcome.cpu_seconds > 0


def test_the_same_trial_comes_to_the_same_and_another_does_not() -> None:
    first = run(MIXED)
    assert same(run(MIXED)) == same(first)
    assert run(attrs.evolve(MIXED, seed=13)).digest != first.digest
    assert run(attrs.evolve(MIXED, values={**MIXED.values, "loss": 0.11})).digest != first.digest


def test_to_watch_changes_nothing() -> None:
    lines: list[str] = []
    assert same(run(MIXED, Story(lines.append))) == same(run(MIXED))
    assert len(lines) > 200


def test_to_write_down_what_is_drawn_anyway_changes_nothing() -> None:
    values = settings.values_of(TRIAL.scenario())
    assert run(attrs.evolve(TRIAL, values=values)).digest == run(TRIAL).digest


@pytest.mark.slow
def test_it_is_the_same_whatever_the_hashes_of_strings_are() -> None:
    """Python's sets of strings have another order in each process: nothing may come of it."""
    code = (
        "from fileserver.simulation.run import Trial, run\n"
        "print([run(Trial(seed=seed, duration_us=10_000_000)).digest for seed in (11, 21, 31)])"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            check=True,
            timeout=200,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(found) == 1


def test_settings_that_do_not_go_together_are_no_finding() -> None:
    with pytest.raises(BadSetting):
        run(attrs.evolve(TRIAL, values={"heartbeat-us": 10**9}))


# ------------------------------------------------------------------------------------------ what goes wrong


def failing(error: BaseException) -> type[WatchedNode]:
    """A node that raises that at its fortieth turn."""

    class Failing(WatchedNode):
        turns = 0

        def turn(self) -> None:
            super().turn()
            type(self).turns += 1
            if self.turns == 40:
                raise error

    return Failing


@pytest.mark.parametrize(
    "error", [Violation("wrong"), InvariantViolation("wrong"), KeyError("wrong"), RecursionError("wrong")]
)
def test_any_exception_is_a_finding_with_its_place_and_time(error: Exception) -> None:
    outcome = run(TRIAL, node_class=failing(error))
    failure = outcome.failure
    assert failure is not None
    assert failure.kind.startswith(f"{type(error).__name__} in turn (test_run.py:")
    assert "wrong" in failure.message
    assert 0 < failure.at_us == outcome.simulated_us < TRIAL.duration_us
    assert str(failure).startswith(f"after {failure.at_us / 1e6:.6f} simulated seconds: {type(error).__name__}")


def test_the_same_failure_is_of_the_same_kind_and_another_is_not() -> None:
    kinds = [
        failure.kind
        for error in (Violation("one"), Violation("two"), KeyError("one"))
        if (failure := run(TRIAL, node_class=failing(error)).failure) is not None
    ]
    assert kinds[0] == kinds[1] != kinds[2]


def test_long_messages_are_cut_to_one_line() -> None:
    failure = run(TRIAL, node_class=failing(Violation("a\n" * 10_000))).failure
    assert failure is not None
    assert failure.message.startswith("a a a")
    assert failure.message.endswith(" ...")
    assert len(failure.message) < 2_000


def test_an_interrupt_is_no_finding() -> None:
    with pytest.raises(KeyboardInterrupt):
        run(TRIAL, node_class=failing(KeyboardInterrupt()))


# ------------------------------------------------------------------------------------------ many of them


@pytest.mark.slow
def test_a_campaign_runs_each_trial_once_and_some_twice() -> None:
    trials = [Trial(seed=seed, duration_us=3 * SECOND_US) for seed in (98, 99, 100, 101)]
    outcomes = sorted(campaign(trials, 2), key=lambda outcome: outcome.trial.seed)
    assert [same(outcome) for outcome in outcomes] == [same(run(trial)) for trial in trials]
    totals = Totals()
    for outcome in outcomes:
        totals.add(outcome)
    assert (totals.seeds, totals.repeated, totals.failed) == (4, 1, [])
    assert totals.simulated_us == sum(outcome.simulated_us for outcome in outcomes)
    assert str(totals).startswith("4 seeds (1 of them twice), 0.0 simulated hours, ")
    assert str(totals).endswith(" simulated seconds per CPU second, 0 failures")


def test_every_hundredth_seed_is_repeated() -> None:
    assert [seed for seed in range(250) if is_repeated(attrs.evolve(TRIAL, seed=seed))] == [0, 100, 200]


def test_two_runs_that_differ_are_a_failure() -> None:
    outcome = run_bounded(TRIAL)
    assert compared(outcome, outcome) is outcome
    failure = compared(outcome, attrs.evolve(outcome, digest=outcome.digest ^ 1)).failure
    assert failure is not None
    assert failure.kind == "not deterministic"
    failed = attrs.evolve(outcome, failure=Failure("kind", "message", 1))
    assert compared(failed, attrs.evolve(failed, digest=5)) is failed


def test_a_run_without_end_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fileserver.simulation.campaign.CPU_SECONDS_MORE", 0.05)
    monkeypatch.setattr("fileserver.simulation.campaign.CPU_SECONDS_PER_SIMULATED", 0.0)
    failure = run_bounded(attrs.evolve(TRIAL, duration_us=10_000 * SECOND_US)).failure
    assert failure is not None
    assert failure.kind.startswith("TooLong in raise_too_long (bound.py:")
    assert run_bounded(attrs.evolve(TRIAL, duration_us=1_000)).failure is None


def test_an_action_without_end_is_a_failure_even_where_an_exception_is_swallowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fileserver.simulation.bound._AGAIN_SECONDS", 0.02)
    swallowed = 0

    class Endless(WatchedNode):
        def turn(self) -> None:
            nonlocal swallowed
            while True:
                try:
                    while True:
                        pass
                except TooLong:
                    swallowed += 1
                    if swallowed == 2:
                        raise

    failure = run(TRIAL, node_class=Endless, cpu_seconds_max=0.02).failure
    assert failure is not None
    assert failure.kind.startswith("TooLong in ")
    assert swallowed == 2


def test_in_a_thread_there_is_no_bound() -> None:
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(run(TRIAL, cpu_seconds_max=0.001)))
    thread.start()
    thread.join()
    assert outcomes[0].failure is None
