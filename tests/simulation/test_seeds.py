"""A sample of runs in which nothing may be wrong; ``bin/simulate --seeds 300`` is the whole of it."""

import pytest

from fileserver.simulation.run import Trial, run

SECOND_US = 1_000_000


@pytest.mark.parametrize("seed", range(1_000, 1_030))
def test_a_minute_of_faults_and_then_rest(seed: int) -> None:
    outcome = run(Trial(seed=seed, duration_us=60 * SECOND_US))
    assert outcome.failure is None, f"bin/simulate {outcome.trial}"
    assert outcome.operations > 0
