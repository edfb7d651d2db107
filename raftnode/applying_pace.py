"""How soon a server applies what is committed.

Theory of operation
-------------------
A leader, and whoever has clients that wait for an outcome or for a read, applies at once. At any other server nobody
knows the difference, so there what is committed gathers for up to `PACE_US` and is applied in one go: the code and the
files come to a cold cache each time that a server is woken for a message, and so they do once for several entries.

What a reader can see is no older for it, since its read makes the server apply at once all that it needs. Whoever
begins to lead does so, too. The state that is put off is at most `PACE_US` of a load, and applied in a fraction of
that time. After a pause the first entry is applied at once, so an idle cluster isn't woken for it once more. A read of
a file whose time is up, which waits for the cluster's clock to have come so far, may be answered later by up to
`PACE_US`.

Pure: time is given.
"""

from __future__ import annotations

import attrs

PACE_US = 20_000
"""A server for which nobody waits applies no more often than this."""


@attrs.define(slots=True, eq=False)
class ApplyingPace:
    """See the module's docstring. One server's."""

    until_us: int | None = None
    """Until when something is put off; None for nothing at all."""
    _applied_us: int = -PACE_US

    def rest(self) -> None:
        """There is nothing to apply, or it can't be."""
        self.until_us = None

    def is_time(self, now_us: int, *, awaited: bool) -> bool:
        """Whether to apply now what there is; ``awaited`` if somebody waits for it. If so, it is to be done."""
        if not awaited and now_us < self._applied_us + PACE_US:
            self.until_us = self._applied_us + PACE_US
            return False
        self.until_us = None
        self._applied_us = now_us
        return True
