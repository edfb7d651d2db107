"""Measures a cluster: a load generator, its figures, and a cluster of its own to measure if none is given."""
