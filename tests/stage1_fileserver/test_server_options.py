"""What a cluster's configuration means for the consensus of its servers."""

from __future__ import annotations

import attrs
import pytest

from fileserver.config import local_cluster
from fileserver.server import SPARE_US, _node_options


@pytest.mark.parametrize("heartbeat_us", [1_000, 20_000, 60_000, 250_000])
def test_a_follower_is_spared_for_less_than_a_heartbeat(heartbeat_us: int) -> None:
    config = attrs.evolve(
        local_cluster(nodes=5, host="127.0.0.1", port=8080),
        heartbeat_us=heartbeat_us,
        election_timeout_min_us=10 * heartbeat_us,
        election_timeout_max_us=20 * heartbeat_us,
    )
    options = _node_options(config, 1).raft
    assert options.heartbeat_us == heartbeat_us
    assert 0 < options.spare_us <= SPARE_US
    assert options.spare_us < heartbeat_us
