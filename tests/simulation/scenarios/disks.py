"""Logs that are laid on servers' disks before they start: what an exact script begins with."""

from __future__ import annotations

from itertools import groupby

from raftnode.entries import encode_tick
from raftnode.storage import Storage, StorageIdentity
from statemachine.events import EntriesRun, HardState
from tests.simulation.scenarios.cluster import Cluster


def lay_log(cluster: Cluster, server: int, terms: tuple[int, ...], current_term: int) -> None:
    """Give a server that has never run entries of these terms, from index 1 on, saved by the product's own storage.

    The entries do nothing but tell the time; those of one index and term are the same on all servers.
    """
    simulated = cluster.server(server)
    identity = StorageIdentity(cluster.world.config.cluster, server)
    storage, _ = Storage.open(simulated.directory, identity, simulated.disk, [])
    entries = [(term, encode_tick(term * 100 + index)) for index, term in enumerate(terms, 1)]
    runs = []
    first_index = 1
    for term, group in groupby(entries, key=lambda entry: entry[0]):
        run = EntriesRun(first_index, term, tuple(entry for _, entry in group))
        runs.append(run)
        first_index = run.last_index + 1
    storage.save(HardState(current_term, None), runs)
    storage.close()
