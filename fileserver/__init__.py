"""A file server of five that behaves as one: the product on top of :mod:`raftnode`.

Imports point one way: ``bin -> fileserver -> raftnode -> statemachine``; ``tests/test_layering.py``
walks them. ARCHITECTURE.md says which module does what.
"""

__version__ = "0.1.0"
