"""Gives the pure Raft of :mod:`statemachine` a network, a disk and a clock; knows nothing of files."""
