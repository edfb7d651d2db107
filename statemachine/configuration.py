"""Who belongs to the cluster, and the one place where majorities are computed.

Membership is a value, so that changing it later means replacing a value: nothing else in the package
counts servers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import attrs

from statemachine.messages import ServerId


def _set_of(servers: Iterable[ServerId]) -> frozenset[ServerId]:
    return frozenset(servers)


@attrs.frozen(slots=True)
class Configuration:
    """The servers of a cluster (thesis 4.1)."""

    voters: frozenset[ServerId] = attrs.field(converter=_set_of)
    """Whose votes and acknowledgements count."""
    learners: frozenset[ServerId] = attrs.field(default=frozenset(), converter=_set_of)
    """Who receives the log without a vote (thesis 4.2.1, non-voting servers)."""
    majority: int = attrs.field(init=False, eq=False, repr=False)
    """How many voters are one."""

    @majority.default
    def _count_of_majority(self) -> int:
        return len(self.voters) // 2 + 1

    def __attrs_post_init__(self) -> None:
        """Refuse what could never elect a leader.

        Raises:
            ValueError: no voters, or a server that is both voter and learner.
        """
        if not self.voters:
            raise ValueError("a configuration needs at least one voter")
        if self.voters & self.learners:
            raise ValueError("a server is either a voter or a learner")

    @property
    def members(self) -> frozenset[ServerId]:
        """All servers that receive the log."""
        return self.voters | self.learners

    def is_quorum(self, servers: Collection[ServerId]) -> bool:
        """Whether these servers include a majority of the voters."""
        return len(self.voters.intersection(servers)) >= self.majority

    def count_missing(self, servers: Collection[ServerId]) -> int:
        """How many more voters make these servers a majority; 0 or less if they are one."""
        return self.majority - len(self.voters.intersection(servers))

    def quorum_value(self, values: Mapping[ServerId, int]) -> int:
        """The highest value that a majority of the voters has reached; a voter that is missing counts as 0.

        For match indexes this is the highest index stored on a majority (thesis, Figure 3.1, Rules for Leaders).
        """
        ordered = sorted([values.get(voter, 0) for voter in self.voters], reverse=True)
        return ordered[len(self.voters) // 2]
