"""What found each bug when all were last looked for: kept in a file, so that the tests need not search again."""

from __future__ import annotations

import json
from pathlib import Path

import attrs

PATH = Path(__file__).with_name("findings.json")


@attrs.frozen(slots=True)
class Finding:
    """How a bug showed."""

    seed: int
    """The first that showed it, looking from seed 1 on; 0 where a named test did."""
    kind: str
    """The exception's name, or the test."""
    what: str
    """Its text, in one line."""


def recorded() -> dict[str, Finding]:
    """By the names of bugs."""
    return {name: Finding(**fields) for name, fields in json.loads(PATH.read_text()).items()}


def record(findings: dict[str, Finding]) -> None:
    """Keep these, in the place of what was kept."""
    PATH.write_text(json.dumps({name: attrs.asdict(found) for name, found in findings.items()}, indent=1) + "\n")
