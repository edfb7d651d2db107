"""All fuzz targets, by name."""

from __future__ import annotations

from typing import Final

from tests.fuzzing.client_targets import CONFIG, HTTP, PARSER
from tests.fuzzing.command_targets import COMMANDS, ENTRIES, RECORDS
from tests.fuzzing.disk_targets import HARD_STATE, LOG, SNAPSHOT
from tests.fuzzing.peer_targets import CODEC, FRAMES, HELLO
from tests.fuzzing.target import Target

TARGETS: Final[dict[str, Target]] = {
    target.name: target
    for target in (
        *(PARSER, HTTP, CONFIG),
        *(HELLO, FRAMES, CODEC),
        *(ENTRIES, COMMANDS, RECORDS),
        *(LOG, HARD_STATE, SNAPSHOT),
    )
}
