"""Shrinking finds what a failure really needs, with the run as a function of our own."""

from collections.abc import Callable

import attrs
import pytest

from fileserver.simulation import settings
from fileserver.simulation.options import FaultKind
from fileserver.simulation.run import Failure, Trial
from fileserver.simulation.settings import Value
from fileserver.simulation.shrink import Search, candidates

SECOND_US = 1_000_000
FAILURE = Failure("Violation in oracle", "wrong", 30 * SECOND_US)
SEED = next(
    seed
    for seed in range(1_000)
    if FaultKind.PAUSE in settings.draw(seed).options.faults
    and len(settings.draw(seed).options.faults) > 3
    and settings.draw(seed).options.servers > 4
)
TRIAL = Trial(seed=SEED, duration_us=60 * SECOND_US)


@attrs.define
class Planted:
    """Fails under a condition; counts its runs."""

    condition: Callable[[dict[str, Value], Trial], bool]
    failure: Failure = FAILURE
    runs: list[Trial] = attrs.Factory(list)

    def __call__(self, trial: Trial) -> Failure | None:
        self.runs.append(trial)
        return self.failure if self.condition(settings.values_of(trial.scenario()), trial) else None


def faults_of(values: dict[str, Value]) -> tuple[object, ...]:
    faults = values["faults"]
    assert isinstance(faults, tuple)
    return faults


def number(value: Value) -> float:
    assert isinstance(value, int | float)
    return value


def test_only_what_is_needed_stays() -> None:
    def condition(values: dict[str, Value], trial: Trial) -> bool:
        return FaultKind.PAUSE in faults_of(values) and number(values["servers"]) >= 3

    planted = Planted(condition)
    trial, why = Search(planted).smallest(TRIAL, FAILURE)
    values = settings.values_of(trial.scenario())
    assert why == FAILURE
    assert values["faults"] == (FaultKind.PAUSE,)
    assert (values["servers"], values["clients"], values["loss"], values["files"]) == (3, 1, 0.0, 1)
    assert trial.duration_us < 60 * SECOND_US
    weights = values["weights"]
    assert isinstance(weights, tuple)
    assert sum(weight != 0 for weight in weights) == 1
    assert planted(trial) == FAILURE


def test_what_is_written_down_repeats_what_was_found() -> None:
    planted = Planted(lambda values, _: number(values["servers"]) >= 2 and not values["in-order"])
    trial, _ = Search(planted).smallest(attrs.evolve(TRIAL, values={"in-order": False}), FAILURE)
    assert settings.parse(settings.show(trial.values)) == trial.values
    again = Trial(seed=trial.seed, duration_us=trial.duration_us, values=settings.parse(settings.show(trial.values)))
    assert planted(again) == FAILURE
    assert again.scenario() == trial.scenario()


def test_another_failure_does_not_count() -> None:
    other = Planted(lambda values, _: True, failure=Failure("KeyError in store", "'x'", 5))
    trial, why = Search(other).smallest(TRIAL, FAILURE)
    assert trial.scenario() == TRIAL.scenario()
    assert (trial.duration_us, why) == (TRIAL.duration_us, FAILURE)


def test_other_seeds_are_tried_too() -> None:
    planted = Planted(lambda values, trial: trial.seed % 3 == 1)
    trial, _ = Search(planted).smallest(TRIAL, FAILURE)
    assert trial.seed % 3 == 1
    assert faults_of(settings.values_of(trial.scenario())) == ()


def test_the_search_ends_after_so_many_runs() -> None:
    planted = Planted(lambda values, _: True)
    seen: list[int] = []
    search = Search(planted, runs_max=5, progress=lambda runs, trial: seen.append(runs))
    search.smallest(TRIAL, FAILURE)
    assert len(planted.runs) == search.runs == 5
    assert seen == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("seed", range(5))
def test_every_candidate_is_smaller_in_something_and_none_in_nothing(seed: int) -> None:
    values = settings.values_of(settings.draw(seed))
    trial = Trial(seed=seed, duration_us=60 * SECOND_US, values=values)
    found = list(candidates(trial, FAILURE))
    assert len(found) > 10
    assert len({what for what, _ in found}) == len(found)
    for _, candidate in found:
        assert candidate.duration_us < trial.duration_us or candidate.values != trial.values
