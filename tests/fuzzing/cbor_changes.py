"""CBOR that is sound, and says something else: one value of a decoded item put in another's place.

Changed bytes mostly make CBOR that can't be decoded, so what is behind the decoder is reached by this.
"""

from __future__ import annotations

from random import Random
from typing import Any, Final

import cbor2

_ODD: Final[tuple[Any, ...]] = (
    *(0, 1, 2, 5, -1, -2, 255, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1),
    *(10**12, 10**12 + 1, 10**30, -(10**30)),
    *("", "text", "0", "Infinity", b"", b"x", b"x" * 40, b"x" * 200, b"\xff", "\u0000", "f" * 300),
    *(None, True, False, 0.0, 1.5, float("nan"), float("inf"), -0.0),
    *([], [1], [[]], [[], []], {}, {1: 2}, {b"a": []}, [1, 2, 3, 4, 5], [[1, b"\x80"], [2, b"\x81\x01"]]),
    *(
        cbor2.CBORTag(1, 0),
        cbor2.CBORTag(35, "a+"),
        cbor2.CBORTag(28, [cbor2.CBORTag(29, 0)]),
        cbor2.CBORTag(4, [1, 2]),
    ),
    *(cbor2.CBORTag(258, [1]), cbor2.CBORTag(9999, b""), cbor2.undefined),
)
_DEPTH_MAX: Final = 4


def with_one_change(data: bytes, random: Random) -> bytes:
    """The item with one value replaced, left out, doubled or moved; the data itself where that can't be."""
    try:
        item = cbor2.loads(data, max_depth=_DEPTH_MAX + 1)
    except (cbor2.CBORDecodeError, ValueError, TypeError, OverflowError):
        return data
    if isinstance(item, list):
        _change(item, random)
    try:
        return cbor2.dumps(item)
    except (cbor2.CBOREncodeError, ValueError, TypeError, OverflowError):
        return data


def _change(items: list[Any], random: Random) -> None:
    """Goes down to some list within the list and changes one of its items."""
    for _ in range(_DEPTH_MAX):
        inner = [item for item in items if isinstance(item, list)]
        if not inner or random.random() < 0.3:
            break
        items = random.choice(inner)
    position = int(random.random() * (len(items) + 1))
    way = random.random()
    if position == len(items):
        items.append(random.choice(_ODD))
    elif way < 0.5:
        items[position] = random.choice(_ODD)
    elif way < 0.7 and isinstance(items[position], int):
        items[position] += random.choice((-1, 1))
    elif way < 0.8:
        del items[position]
    elif way < 0.9:
        items.insert(position, items[position])
    else:
        other = int(random.random() * len(items))
        items[position], items[other] = items[other], items[position]
