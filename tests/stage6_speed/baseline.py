"""What operations may cost: figures that were measured once and are kept in ``baseline.json``.

``python -m tests.stage6_speed.baseline`` measures all of them anew and prints them beside the old ones, and with
``--write`` keeps them: to be done, on a machine that does nothing else, after a change that made something cheaper, or
dearer for a good reason; the reason goes into the commit.
"""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, Final

from fileserver.bench.local import temporary_directory
from tests.stage6_speed.operations import EVERY
from tests.stage6_speed.ratios import ratios, rounds_of

FILE: Final = Path(__file__).with_name("baseline.json")
COMMAND: Final = "python -m tests.stage6_speed.baseline --write"
GROWTH_MAX: Final = 1.2
"""How much dearer than the baseline something may be."""
ROUNDS: Final = 10


def baseline() -> dict[str, Any]:
    """The figures kept: ``calls`` by operation and package, ``ratios`` by case."""
    kept: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return kept


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m tests.stage6_speed.baseline")
    parser.add_argument("--write", action="store_true", help="keep what is measured")
    parser.add_argument("--calls-only", action="store_true", help="only count calls; the ratios stay")
    options = parser.parse_args()
    old = baseline() if FILE.exists() else {"calls": {}, "ratios": {}}
    new = {"calls": {name: count() for name, count in EVERY.items()}, "ratios": old["ratios"]}
    if not options.calls_only:
        with temporary_directory() as directory, closing(rounds_of(directory)) as rounds:
            new["ratios"] = {name: round(each, 2) for name, each in ratios(list(islice(rounds, ROUNDS))).items()}
    for name, calls in new["calls"].items():
        was = sum(old["calls"].get(name, {}).values())
        print(f"{name}: {sum(calls.values()):,.1f} calls ({was:,.1f} before)")  # noqa: T201 - a program's output
    for name, ratio in new["ratios"].items():
        print(f"{name}: {ratio:.2f} references ({old['ratios'].get(name, 0):.2f} before)")  # noqa: T201
    if options.write:
        FILE.write_text(json.dumps(new, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
