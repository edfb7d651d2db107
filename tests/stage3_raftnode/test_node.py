"""Whole clusters of nodes while nothing fails: everything comes out everywhere, once, in one order."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.stage3_raftnode.clusters import Cluster, numbered


@pytest.mark.parametrize("count", [1, 10, 100, 1000])
async def test_appends_come_out_in_one_order_everywhere(autojump_clock: MockClock, count: int) -> None:
    async with trio.open_nursery() as nursery:
        cluster = Cluster(nursery)
        await cluster.start()
        await cluster.wait_leader()
        payloads = numbered(count)
        results = await cluster.servers[3].append(*payloads)
        assert results == list(range(1, count + 1))
        await cluster.settle(*payloads)
        assert all(server.items == payloads for server in cluster.running)
        nursery.cancel_scope.cancel()
