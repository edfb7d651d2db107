"""Starting programs of ours as processes of their own."""

from __future__ import annotations

import sys


def module_command(module: str) -> list[str]:
    """The beginning of a command that runs a module by the Python, and with the import path, that we run with.

    ``-P`` keeps the caller's directory, where any file may lie, out of the import path. The scripts of ``bin/`` use it,
    and what was started with it hands it on; without it, in a checkout that isn't installed, ours is found just there.
    """
    return [sys.executable, *(["-P"] if sys.flags.safe_path else []), "-m", module]
