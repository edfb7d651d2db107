"""Where entries stand: which frames are noted, and what is found by them."""

from __future__ import annotations

import pytest

from raftnode.frame_places import PLACE_BYTES, FramePlaces, Place

FIRST, SECOND, FAR, NEXT_SEGMENT = Place(1, 1, 128), Place(5, 1, 500), Place(9, 1, 128 + PLACE_BYTES), Place(12, 2, 128)


def noted() -> FramePlaces:
    """A log of two segments; the frame at 500 isn't noted."""
    places = FramePlaces()
    for place in (FIRST, SECOND, FAR, NEXT_SEGMENT):
        places.add(place.index, place.index, place.segment, place.offset)
    return places


@pytest.mark.parametrize(
    ("index", "found"),
    [
        (0, None),
        (1, (FIRST, FAR)),
        (8, (FIRST, FAR)),
        (9, (FAR, NEXT_SEGMENT)),
        (11, (FAR, NEXT_SEGMENT)),
        (12, (NEXT_SEGMENT, None)),
        (99, (NEXT_SEGMENT, None)),
    ],
)
def test_an_entry_is_behind_the_last_place_at_or_below_it(index: int, found: tuple[Place, Place | None] | None) -> None:
    assert noted().find(index) == found


@pytest.mark.parametrize(
    ("index", "found"), [(9, (FAR, Place(10, 2, 700))), (10, (Place(10, 2, 700), None)), (8, (FIRST, FAR))]
)
def test_what_is_written_over_is_found_no_more(index: int, found: tuple[Place, Place | None]) -> None:
    places = noted()
    places.add(10, 14, 2, 700)
    assert places.find(index) == found


def test_a_log_that_begins_anew_has_no_places() -> None:
    places = noted()
    places.clear()
    assert places.find(99) is None
    places.add(3, 20, 2, 900)
    assert places.find(99) == (Place(3, 2, 900), None)


def test_removed_segments_have_no_places() -> None:
    places = noted()
    places.drop_before(1)
    assert places.find(1) == (FIRST, FAR)
    places.drop_before(2)
    assert places.find(11) is None
    assert places.find(12) == (NEXT_SEGMENT, None)
    places.drop_before(9)
    assert places.find(12) is None
