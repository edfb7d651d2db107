"""Runs a program by its name: ``python -m fileserver.cli <name> ...``, as the scripts of ``bin/`` do.

To load a program takes some tenths of a second, in which it has begun nothing. Whoever presses ^C by then needn't read
where in which import that was: the process ends by the signal.
"""

from __future__ import annotations

import signal
import sys
from importlib import import_module


def main() -> None:
    """Run the program that the first argument names."""
    name = sys.argv.pop(1)
    at_interrupt = signal.getsignal(signal.SIGINT)
    # Otherwise it is ignored, as in a script's background, and stays so.
    if at_interrupt is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    program = import_module(f"fileserver.cli.{name}")
    signal.signal(signal.SIGINT, at_interrupt)
    program.main(prog_name=f"bin/{name}")


if __name__ == "__main__":
    main()
