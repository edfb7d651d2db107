"""Changes to an input that are likely to mean something to whoever reads it.

Each mutator changes a ``bytearray`` in place. They are what fuzzers have in common (AFL's "havoc": bits, bytes, numbers
at the edges of their types in both byte orders, blocks left out, doubled, moved and taken from another input), and
tokens of the target's own format. Everything is drawn from the random generator given, so a run repeats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final, TypeAlias

_BLOCK_BYTES_MAX: Final = 64
_STACKED_LOG2_MAX: Final = 4

_EDGES: Final = tuple(
    (value & ((1 << (8 * size)) - 1)).to_bytes(size, order)
    for size in (1, 2, 4, 8)
    for order in ("little", "big")
    for value in (
        *(0, 1, 2, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 1000, 4095, 4096, 65_535, 65_536),
        *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, -1, -2, -8),
    )
)
"""Numbers at which something changes, as fields of every width."""


def _position(data: bytearray, random: Random) -> int:
    return int(random.random() * len(data))


def _block(data: bytes | bytearray, random: Random) -> tuple[int, int]:
    """The bounds of a block, mostly a short one."""
    begin = int(random.random() * len(data))
    longest = min(len(data) - begin, _BLOCK_BYTES_MAX if random.random() < 0.8 else len(data))
    return begin, begin + 1 + int(random.random() * longest)


def _flip_bit(data: bytearray, random: Random, _: bytes) -> None:
    data[_position(data, random)] ^= 1 << int(random.random() * 8)


def _set_byte(data: bytearray, random: Random, _: bytes) -> None:
    data[_position(data, random)] = random.getrandbits(8)


def _add_to_byte(data: bytearray, random: Random, _: bytes) -> None:
    position = _position(data, random)
    data[position] = (data[position] + random.choice((-8, -4, -2, -1, 1, 2, 4, 8))) & 0xFF


def _set_number(data: bytearray, random: Random, _: bytes) -> None:
    number = _EDGES[int(random.random() * len(_EDGES))]
    position = _position(data, random)
    if random.random() < 0.5:
        position -= position % len(number)
    data[position : position + len(number)] = number


def _cut_block(data: bytearray, random: Random, _: bytes) -> None:
    begin, end = _block(data, random)
    del data[begin:end]


def _cut_end(data: bytearray, random: Random, _: bytes) -> None:
    del data[_position(data, random) :]


def _double_block(data: bytearray, random: Random, _: bytes) -> None:
    begin, end = _block(data, random)
    data[end:end] = data[begin:end]


def _move_block(data: bytearray, random: Random, _: bytes) -> None:
    begin, end = _block(data, random)
    block = data[begin:end]
    if random.random() < 0.5:
        del data[begin:end]
    position = int(random.random() * (len(data) + 1))
    data[position:position] = block


def _insert_bytes(data: bytearray, random: Random, _: bytes) -> None:
    position = int(random.random() * (len(data) + 1))
    data[position:position] = random.randbytes(1 + int(random.random() * 8))


def _zero_block(data: bytearray, random: Random, _: bytes) -> None:
    begin, end = _block(data, random)
    data[begin:end] = bytes(end - begin)


def _splice(data: bytearray, random: Random, other: bytes) -> None:
    """A block of another input, in the place of one of this or between."""
    if other:
        begin, end = _block(other, random)
        position, stop = _block(data, random)
        data[position : stop if random.random() < 0.5 else position] = other[begin:end]


def _cross(data: bytearray, random: Random, other: bytes) -> None:
    """The beginning of this one and the end of the other."""
    if other:
        data[_position(data, random) :] = other[int(random.random() * len(other)) :]


_Mutator: TypeAlias = Callable[[bytearray, Random, bytes], None]
_MUTATORS: Final[Sequence[_Mutator]] = (
    _flip_bit,
    _flip_bit,
    _set_byte,
    _add_to_byte,
    _set_number,
    _set_number,
    _cut_block,
    _cut_end,
    _double_block,
    _move_block,
    _insert_bytes,
    _zero_block,
    _splice,
    _cross,
)


def mutate(data: bytes, other: bytes, random: Random, tokens: Sequence[bytes], size_bytes_max: int) -> bytes:
    """The input with one to eight changes; ``other`` is a second input, to take from."""
    changed = bytearray(data)
    for _ in range(1 << int(random.random() * _STACKED_LOG2_MAX)):
        if not changed:
            changed += other or b"\0"
        if tokens and random.random() < 0.25:
            begin, end = _block(changed, random)
            changed[begin : end if random.random() < 0.5 else begin] = tokens[int(random.random() * len(tokens))]
        else:
            _MUTATORS[int(random.random() * len(_MUTATORS))](changed, random, other)
    return bytes(changed[:size_bytes_max])
