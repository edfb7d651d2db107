"""The shapes that a broken network can have, as sets of directed links that carry nothing.

Pure. A shape is drawn over places 0 to n - 1; which server stands at which place is decided by who asks. Place 0 is the
one that the shape is about: the one that is cut off, the bridge, the hub, or the leader where the leader is aimed at.

Sources: Jepsen's nemeses (one, majority, majorities-ring, bridge), OmniPaxos (quorum-loss star, chain), openraft
issue 2111 (two leaves), FoundationDB (swizzle: links are stopped one by one and restored in another order).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from random import Random

Link = tuple[int, int]
"""What the first sends to the second."""
Links = frozenset[Link]


class Shape(enum.Enum):
    """Who doesn't hear whom."""

    MAJORITY = "majority"
    """Two groups; place 0 is in the greater one."""
    MINORITY = "minority"
    """Two groups; place 0 is in the smaller one, with others if there are at least five servers."""
    ISOLATED = "isolated"
    """Place 0 alone."""
    RING = "ring"
    """Each hears its two neighbours; with five servers everybody sees a majority, and no two the same one."""
    BRIDGE = "bridge"
    """Two groups that share place 0, and nobody else."""
    STAR = "star"
    """Everybody hears place 0 only."""
    CHAIN = "chain"
    """Each hears the one before it and the one behind it."""
    TWO_LEAVES = "two-leaf"
    """Places 0 and 1 don't hear each other; all else is well."""
    DEAF = "one-way-deaf"
    """Place 0 is heard, and hears nobody."""
    MUTE = "one-way-mute"
    """Place 0 hears everybody, and isn't heard."""
    ONE_WAY = "one-way"
    """Who comes earlier isn't heard by who comes later."""
    SWIZZLED = "swizzled"
    """All links of some servers stop one after the other, and come back in another order."""


def all_links(count: int) -> Links:
    """Every directed link among so many servers."""
    return frozenset((source, to) for source in range(count) for to in range(count) if source != to)


def cut_links(shape: Shape, count: int) -> Links:
    """The links that carry nothing, among ``count`` servers; for SWIZZLED, at its height (a minority's links).

    Raises:
        ValueError: there are fewer than three servers, which have no shapes.
    """
    if count < 3:
        raise ValueError("a partition's shape needs three servers")
    everything = all_links(count)
    minority = (count - 1) // 2
    match shape:
        case Shape.MAJORITY:
            return _between(range(count - minority), range(count - minority, count))
        case Shape.MINORITY:
            return _between(range(minority), range(minority, count))
        case Shape.ISOLATED:
            return _between((0,), range(1, count))
        case Shape.RING if count > 3:
            return frozenset(link for link in everything if (link[0] - link[1]) % count not in {1, count - 1})
        case Shape.RING | Shape.CHAIN:  # a ring of three has no gap: it becomes a chain
            return frozenset(link for link in everything if abs(link[0] - link[1]) > 1)
        case Shape.BRIDGE:
            middle = 1 + (count - 1) // 2
            return _between(range(1, middle), range(middle, count))
        case Shape.STAR:
            return frozenset(link for link in everything if 0 not in link)
        case Shape.TWO_LEAVES:
            return _between((0,), (1,))
        case Shape.DEAF:
            return frozenset((source, 0) for source in range(1, count))
        case Shape.MUTE:
            return frozenset((0, to) for to in range(1, count))
        case Shape.ONE_WAY:
            return frozenset(link for link in everything if link[0] < link[1])
        case _:  # swizzled
            return _between(range(minority), range(count)) - frozenset((place, place) for place in range(count))


def _between(some: Iterable[int], others: Iterable[int]) -> Links:
    """The links from any of some to any of others, and back."""
    others = tuple(others)
    return frozenset(link for one in some for other in others if one != other for link in ((one, other), (other, one)))


def stages(shape: Shape, count: int, random: Random) -> tuple[Links, ...]:
    """What is cut in each of equally long stages, one behind the other; after the last one all is well.

    All but the swizzled shape have one stage.
    """
    if shape is not Shape.SWIZZLED:
        return (cut_links(shape, count),)
    places = list(range((count - 1) // 2 + 1))
    going = random.sample(places, len(places))
    coming = random.sample(places, len(places))
    gone: set[int] = set()
    found: list[Links] = []
    for place in going:
        gone.add(place)
        found.append(_between(gone, range(count)))
    for place in coming[:-1]:
        gone.remove(place)
        found.append(_between(gone, range(count)))
    return tuple(found)


def can_agree(links: Links, count: int) -> bool:
    """Whether some server both hears a majority and is heard by it, so that it could lead."""
    return any(
        1 + sum((place, other) not in links and (other, place) not in links for other in range(count) if other != place)
        > count // 2
        for place in range(count)
    )
