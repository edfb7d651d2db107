"""What a power cut may leave: from a record of changes to the images of the disk at every boundary.

Theory of operation
-------------------
:class:`Disk` goes through the operations of a recording. For each file it keeps what is durable, and the changes
since that wait for a flush; for the directory the same. An operation is played in two halves: after the first its
change is made but nothing more is flushed than before (:meth:`Disk.begin`), after the second it is all done
(:meth:`Disk.end`). Everything that a crash before, within or right behind the operation can leave is to be had from
the state between the halves, since each waiting change may survive, or not, or partly.

What may become of the changes that wait:

* Of the directory's, a first part survives: file systems keep them in a journal.
* Of a file's, any subset survives, in their order or with the order turned round; where there are few, all subsets
  are made, otherwise the dice choose.
* One write may come apart (:class:`Damage`): only its first or last bytes come to the disk, or some of its sectors of
  512 or blocks of 4096 bytes; sectors hold zeros or rubbish instead; the file has grown and nothing is in it. A
  truncation may have come half-way.

What a write doesn't change isn't harmed by it. Rubbish stands in the place of bytes that were written since the last
flush, and up to the end of their sector where that was never used; not where a write repeats what was durable (the
log's last frame, on opening). This is the "powersafe overwrite" that SQLite and others rely on (sqlite.org/psow.html):
a disk that spoils, when the power goes, bytes of a sector that it was told to write as they were, could take the frame
before, too.

The images are drawn until enough different ones have come, or no new ones do; the dice are seeded, so they repeat.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import compress, product
from random import Random
from typing import TypeAlias

import attrs

from tests.crash_images.recorder import Image, Kind, Operation

Write: TypeAlias = tuple[int, bytes | None]
"""(offset, data), or (length, None): a truncation."""

SECTOR_BYTES = 512
BLOCK_BYTES = 4096
SUBSETS_OF_MAX = 4
"""Of so many waiting changes all subsets are made."""
TRIES_IN_VAIN_MAX = 40
"""If so many images in a row had come before, no more are drawn."""
_EDGES_BYTES = (1, 4, 7, 8, 12, 31, 32, 33, 127, 128, 129)
"""Where in a frame, a header or a footer something ends."""


class Damage(enum.Enum):
    """How a write comes apart."""

    FIRST_BYTES = "first bytes"
    LAST_BYTES = "last bytes"
    SECTORS = "some sectors"
    BLOCKS = "some blocks"
    ZEROS = "zeros"
    ZERO_SECTORS = "sectors of zeros"
    RUBBISH = "rubbish"
    RUBBISH_SECTORS = "sectors of rubbish"
    LENGTH = "only the length"


ALL_DAMAGES = tuple(Damage)


def digest(image: Image) -> bytes:
    """Tells images apart."""
    found = blake2b(digest_size=16)
    for name in sorted(image):
        found.update(b"%s\0%d\0" % (name.encode(), len(image[name])))
        found.update(image[name])
    return found.digest()


@attrs.define
class _File:
    durable: bytes = b""
    waiting: list[Write] = attrs.Factory(list)


def _after(content: bytes, writes: Sequence[Write]) -> bytes:
    """The content with those changes made."""
    if not writes:
        return content
    result = bytearray(content)
    for offset, data in writes:
        if data is None and offset < len(result):
            del result[offset:]
        elif offset > len(result):
            result.extend(bytes(offset - len(result)))
        if data:
            result[offset : offset + len(data)] = data
    return bytes(result)


class Disk:
    """What is durable and what waits, at one moment of a recording."""

    def __init__(self, image: Image | None = None) -> None:
        self._files: dict[int, _File] = {}
        self._names: dict[str, int] = {}
        self._waiting: list[tuple[tuple[str, int | None], ...]] = []
        self._restart(image or {})

    def _restart(self, image: Image) -> None:
        # Numbered as a recorder does that finds these files.
        self._files = {number: _File(content) for number, content in enumerate(image.values(), 1)}
        self._names = {name: number for number, name in enumerate(image, 1)}
        self._waiting.clear()

    def begin(self, operation: Operation) -> None:
        """The change is made; nothing is flushed by it yet."""
        kind, number = operation.kind, operation.file
        if kind is Kind.CREATE:
            self._files[number] = _File()
            self._waiting.append(((operation.name, number),))
        elif kind is Kind.WRITE:
            self._files[number].waiting.append((operation.offset, operation.data))
        elif kind is Kind.TRUNCATE:
            self._files[number].waiting.append((operation.offset, None))
        elif kind is Kind.RENAME:
            self._waiting.append(((operation.name, None), (operation.target, number)))
        elif kind is Kind.UNLINK:
            self._waiting.append(((operation.name, None),))
        elif kind is Kind.RESTARTED:
            assert operation.image is not None
            self._restart(operation.image)

    def end(self, operation: Operation) -> None:
        """It has returned: what it flushes is durable."""
        if operation.kind is Kind.FLUSH or operation.flushed:
            file = self._files[operation.file]
            file.durable = _after(file.durable, file.waiting)
            file.waiting.clear()
        elif operation.kind is Kind.FLUSH_DIRECTORY:
            self._names = self._names_after(len(self._waiting))
            self._waiting.clear()

    def _names_after(self, changes: int) -> dict[str, int]:
        names = dict(self._names)
        for change in self._waiting[:changes]:
            for name, number in change:
                if number is None:
                    names.pop(name, None)
                else:
                    names[name] = number
        return names

    def images(self, dice: Random, count: int) -> Iterator[tuple[str, Image]]:
        """At most so many different images that a crash may leave here, each with how it came about."""
        seen: set[int] = set()
        in_vain = 0
        for how, image in self._candidates(dice):
            mark = hash(tuple(image.items()))
            if mark in seen:
                # Where little can be lost, the same images come again and again: then that was all.
                in_vain += 1
                if in_vain == TRIES_IN_VAIN_MAX:
                    return
                continue
            in_vain = 0
            seen.add(mark)
            yield how, image
            if len(seen) == count:
                return

    def _candidates(self, dice: Random) -> Iterator[tuple[str, Image]]:
        """First what is regular; then, if any file has something to lose, what the dice give, without end."""
        cuts = range(len(self._waiting), -1, -1)
        for cut in cuts:
            names = self._names_after(cut)
            files = {name: self._files[number] for name, number in names.items()}
            yield f"{cut} names, all data", {name: _after(file.durable, file.waiting) for name, file in files.items()}
            yield f"{cut} names, no data", {name: file.durable for name, file in files.items()}
        for number, file in self._files.items():
            if 1 < len(file.waiting) <= SUBSETS_OF_MAX:
                for included in product((False, True), repeat=len(file.waiting)):
                    writes = list(compress(file.waiting, included))
                    yield f"subset {included}", self._image(len(self._waiting), {number: writes})
        while any(file.waiting for file in self._files.values()):
            cut = dice.choice(cuts)
            hows = [f"{cut} names"]
            fates = {}
            for number, file in self._files.items():
                if file.waiting:
                    how, fates[number] = _fate(file, dice)
                    hows.append(f"file {number}: {how}")
            yield ", ".join(hows), self._image(cut, fates)

    def _image(self, cut: int, fates: dict[int, list[Write]]) -> Image:
        image = {}
        for name, number in self._names_after(cut).items():
            file = self._files[number]
            image[name] = _after(file.durable, fates.get(number, file.waiting))
        return image


def _fate(file: _File, dice: Random) -> tuple[str, list[Write]]:
    """What becomes of the changes of a file."""
    count = len(file.waiting)
    chance = dice.choice((0.0, 0.2, 0.5, 0.8, 1.0, 1.0))
    kept = [dice.random() < chance for _ in range(count)]
    victim = dice.randrange(count) if dice.random() < 0.85 else None
    hows = [f"kept {''.join(map(str, map(int, kept)))}"]
    writes: list[Write] = []
    for position, write in enumerate(file.waiting):
        if position == victim:
            how, pieces = _taken_apart(write, file.durable, dice)
            hows.append(f"{position} {how}")
            writes += pieces
        elif kept[position]:
            writes.append(write)
    if len(writes) > 1 and dice.random() < 0.2:
        hows.append("turned round")
        writes.reverse()
    return " ".join(hows), writes


def _taken_apart(write: Write, durable: bytes, dice: Random) -> tuple[str, list[Write]]:
    """What comes to the disk of one change."""
    offset, data = write
    if data is None:
        if offset >= len(durable):
            return "truncated", [write]
        size_bytes = dice.randrange(offset, len(durable) + 1)
        return f"truncated to {size_bytes}", [(size_bytes, None)]
    repeats = durable[offset : offset + len(data)] == data
    damage = dice.choice(ALL_DAMAGES[:4] if repeats else ALL_DAMAGES)
    if damage in (Damage.FIRST_BYTES, Damage.LAST_BYTES):
        edges = [edge for near in _EDGES_BYTES for edge in (near, len(data) - near) if 0 <= edge <= len(data)]
        bound = dice.choice(edges) if edges and dice.random() < 0.3 else dice.randrange(len(data) + 1)
        piece = (offset, data[:bound]) if damage is Damage.FIRST_BYTES else (offset + bound, data[bound:])
        return f"{damage.value} up to or from {bound}", [piece]
    if damage in (Damage.ZEROS, Damage.RUBBISH):
        size_bytes = _spoilt_end(durable, offset + len(data)) - offset
        return damage.value, [(offset, dice.randbytes(size_bytes) if damage is Damage.RUBBISH else bytes(len(data)))]
    if damage is Damage.LENGTH:
        return damage.value, [(offset + len(data), b"")]
    return damage.value, _by_sectors(damage, offset, data, durable, dice)


def _spoilt_end(durable: bytes, end: int) -> int:
    """How far rubbish goes that stands in the place of a write: to the end of its last sector, if that is unused."""
    sector_end = min(end + -end % SECTOR_BYTES, max(len(durable), end))
    return end if any(durable[end:sector_end]) else sector_end


def _by_sectors(damage: Damage, offset: int, data: bytes, durable: bytes, dice: Random) -> list[Write]:
    """Some sectors, or blocks, of a write, or some of them spoilt."""
    unit_bytes = BLOCK_BYTES if damage is Damage.BLOCKS else SECTOR_BYTES
    chance = dice.choice((0.1, 0.5, 0.9))
    writes: list[Write] = []
    for unit in range(offset - offset % unit_bytes, offset + len(data), unit_bytes):
        begin, end = max(unit, offset), min(unit + unit_bytes, offset + len(data))
        piece = data[begin - offset : end - offset]
        if dice.random() < chance:
            writes.append((begin, piece))
        elif damage is Damage.ZERO_SECTORS:
            writes.append((begin, bytes(len(piece))))
        elif damage is Damage.RUBBISH_SECTORS:
            writes.append(
                (begin, dice.randbytes(_spoilt_end(durable, end) - begin if end % SECTOR_BYTES else len(piece)))
            )
    return writes
