"""Raft itself, pure: the consensus module of the Raft papers.

In the papers "state machine" is the application that the log feeds; here that is the file store. This
package is what the course called the state machine: a value that takes events (:mod:`statemachine.events`),
with the time inside them, and says what to do (:class:`statemachine.ready.Ready`). It does nothing by
itself: no input or output, no clock, no tasks, no callbacks, no randomness but the generator that it is
given. The standard library and attrs are all that it imports.

Who reads the code begins with :mod:`statemachine.raft`; each RPC has a module of its own, with the thesis'
Figure 3.1 quoted where it is carried out:

* :mod:`statemachine.elections`: RequestVote, pre-vote, TimeoutNow
* :mod:`statemachine.replication`: AppendEntries, the commit rule, check-quorum
* :mod:`statemachine.snapshots`: InstallSnapshot and compaction
* :mod:`statemachine.reads`: ReadIndex
* :mod:`statemachine.transfer`: leadership transfer

:mod:`statemachine.invariants` watches a whole cluster in tests and simulation.
"""
