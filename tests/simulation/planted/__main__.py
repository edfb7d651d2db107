"""``bin/simulate --bugs``: plant each bug, look for it from seed 1 on, and print what found it."""

from __future__ import annotations

from tests.simulation.planted.command import main

if __name__ == "__main__":
    main(prog_name="bin/simulate --bugs")
