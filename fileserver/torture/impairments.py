"""What is wrong with the links of a network at the moment, each fault's share kept apart. Pure.

Several faults may concern one link at a time: it is cut while any of them cuts it, it is as slow as the slowest of them
makes it, and what is lost is lost as often as the worst of them says.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from fileserver.torture.shapes import Link


@attrs.frozen(slots=True)
class Impairment:
    """What is wrong with one link."""

    cut: bool = False
    """Nothing arrives."""
    delay_us: int = 0
    """What arrives is at least so late."""
    jitter_us: int = 0
    """And at most so much later still, each packet for itself: so they overtake each other."""
    loss: float = 0.0
    """Which part of the packets doesn't arrive."""

    def joined(self, other: Impairment) -> Impairment:
        """Both at once."""
        return Impairment(
            self.cut or other.cut,
            max(self.delay_us, other.delay_us),
            max(self.jitter_us, other.jitter_us),
            max(self.loss, other.loss),
        )


NONE = Impairment()
CUT = Impairment(cut=True)


class Impairments:
    """The impairments of all links, by the number of the fault that they come from."""

    def __init__(self) -> None:
        self._by_fault: dict[int, Mapping[Link, Impairment]] = {}
        self.now: dict[Link, Impairment] = {}
        """What holds for each link of which something holds."""

    def impose(self, fault: int, links: Mapping[Link, Impairment]) -> None:
        """Let these be the fault's, in the place of what it had before."""
        self._by_fault[fault] = links
        self._join()

    def lift(self, fault: int) -> None:
        """Let the fault have none any more."""
        self._by_fault.pop(fault, None)
        self._join()

    def of(self, link: Link) -> Impairment:
        """What holds for a link."""
        return self.now.get(link, NONE)

    def _join(self) -> None:
        joined: dict[Link, Impairment] = {}
        for links in self._by_fault.values():
            for link, impairment in links.items():
                joined[link] = joined.get(link, NONE).joined(impairment)
        self.now = joined
