"""Majorities, against the dumbest way to count them."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemachine.configuration import Configuration

SERVERS = st.integers(1, 9)
CONFIGURATIONS = st.builds(
    lambda voters, learners: Configuration(voters=voters, learners=learners - voters),
    st.frozensets(SERVERS, min_size=1),
    st.frozensets(SERVERS),
)


@given(CONFIGURATIONS, st.frozensets(SERVERS))
def test_a_quorum_is_more_than_half_of_the_voters(configuration: Configuration, servers: frozenset[int]) -> None:
    voting = [server for server in configuration.voters if server in servers]
    assert configuration.is_quorum(servers) == (len(voting) > len(configuration.voters) / 2)


@given(CONFIGURATIONS, st.dictionaries(SERVERS, st.integers(0, 20)))
def test_a_quorum_value_is_the_highest_that_a_majority_reaches(
    configuration: Configuration, values: dict[int, int]
) -> None:
    def reached(value: int) -> bool:
        return configuration.is_quorum([server for server in range(1, 10) if values.get(server, 0) >= value])

    assert configuration.quorum_value(values) == max(value for value in range(21) if reached(value))


@pytest.mark.parametrize("count", range(1, 8))
def test_any_two_quorums_have_a_server_in_common(count: int) -> None:
    configuration = Configuration(voters=range(1, count + 1))
    subsets = [set(some) for size in range(count + 1) for some in combinations(range(1, count + 1), size)]
    quorums = [subset for subset in subsets if configuration.is_quorum(subset)]
    assert all(one & other for one in quorums for other in quorums)


def test_learners_have_the_log_but_no_vote() -> None:
    configuration = Configuration(voters=(1, 2, 3), learners=(4, 5))
    assert configuration.members == {1, 2, 3, 4, 5}
    assert not configuration.is_quorum({3, 4, 5})
    assert configuration.quorum_value({1: 1, 2: 2, 4: 9, 5: 9}) == 1


@pytest.mark.parametrize(("voters", "learners"), [((), ()), ((), (1,)), ((1, 2), (2, 3))])
def test_configurations_that_make_no_sense_are_refused(voters: tuple[int, ...], learners: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="voter"):
        Configuration(voters=voters, learners=learners)
