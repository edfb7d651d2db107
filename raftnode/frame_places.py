"""Where in the log's files entries stand: enough of it to find any entry by reading little. Pure.

A :class:`Place` is noted for the first frame with entries of each segment, for one in about every `PLACE_BYTES`
behind it, and wherever the log went back to a lower index than it had reached (truncation). What stood at that index
and behind it is gone, and so are the places noted for it. Hence places are in order of index as well as of where they
are; an entry is in a frame between the last place at or below its index and the next place; and there no index comes
twice, but for runs within one frame, the last of which counts.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from operator import attrgetter

from statemachine.values import value

PLACE_BYTES = 64 << 10
"""About so much has to be read to find an entry."""


@value
class Place:
    """A frame, and the lowest index that it has an entry for."""

    index: int
    segment: int
    """The segment's number."""
    offset: int
    """Where in the segment the frame begins."""


_index_of = attrgetter("index")


class FramePlaces:
    """See the module's docstring."""

    def __init__(self) -> None:
        """Begin with an empty log."""
        self._places: list[Place] = []

    def add(self, lowest_index: int, next_index: int, segment: int, offset: int) -> None:
        """Note a frame with entries, if it is to be noted; ``next_index`` is where the log went on before it."""
        places = self._places
        if lowest_index < next_index:
            del places[bisect_left(places, lowest_index, key=_index_of) :]
        elif places and places[-1].segment == segment and offset - places[-1].offset < PLACE_BYTES:
            return
        places.append(Place(lowest_index, segment, offset))

    def find(self, index: int) -> tuple[Place, Place | None] | None:
        """The place to look for an entry from, and the next place; None for an index below all that is noted."""
        places = self._places
        following = bisect_right(places, index, key=_index_of)
        if not following:
            return None
        return places[following - 1], places[following] if following < len(places) else None

    def clear(self) -> None:
        """The log is empty again."""
        self._places.clear()

    def drop_before(self, segment: int) -> None:
        """Segments of lower numbers are gone."""
        del self._places[: bisect_left(self._places, segment, key=attrgetter("segment"))]
