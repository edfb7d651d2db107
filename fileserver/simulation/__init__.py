"""A whole cluster in one thread, on simulated time, network and disks, everything from one seed.

What runs is what a server runs: connections and parser, backend, store, sessions, node, Raft, log and snapshots.
Simulated are only the ends: bytes between clients and servers, messages between servers, the file system
(:class:`raftnode.simulated_disk.SimulatedDisk`) and the clocks. See :mod:`fileserver.simulation.world`.
"""
