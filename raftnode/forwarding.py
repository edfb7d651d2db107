"""What a leader keeps of proposals that others forward to it: which it has put in its log already.

A replica skips a batch that it has, so this saves only log and network; but servers that propose everything again
after a change of leader would otherwise double their batches. Within a session sequence numbers come without
gaps: one that leaves a gap is dropped, since it would be skipped anyway, and its sender proposes it again.
"""

from __future__ import annotations

import attrs

from raftnode.proposals import Propose


@attrs.define(slots=True)
class Forwarded:
    """The highest sequence number in this leader's log, by session."""

    _highest: dict[int, int] = attrs.field(factory=dict)

    def new_term(self) -> None:
        """What earlier leaders put into the log isn't known here."""
        self._highest.clear()

    def out_of_sequence(self, session: int) -> None:
        """A batch of the session was skipped for a gap before it: take what its sender proposes again."""
        self._highest.pop(session, None)

    def accepts(self, proposal: Propose, applied_sequence: int) -> bool:
        """Whether a proposal belongs in the log now; it is taken to be put there.

        ``applied_sequence`` is the last one of the session that is applied, 0 for a session that isn't known (yet).
        """
        if proposal.sequence <= applied_sequence:
            return False
        highest = self._highest.get(proposal.session)
        if highest is not None and proposal.sequence != max(highest, applied_sequence) + 1:
            return False
        self._highest[proposal.session] = proposal.sequence
        return True
