"""What the programs share: how they fail, and how they take addresses."""

from __future__ import annotations

import math
import sys
from typing import Any, NoReturn

import click

from fileserver.config import Address

EXIT_UNUSABLE = 2
"""The exit status for what can't work as asked: a wrong option, a wrong configuration, a port in use."""
CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def fail(message: str, status: int = EXIT_UNUSABLE) -> NoReturn:
    """End the program with one line on standard error."""
    click.echo(message if message.isprintable() else ascii(message), err=True)
    sys.exit(status)


class FiniteRange(click.FloatRange):
    """A range of numbers on the command line. `nan` and `inf`, which pass any comparison or no limit, are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # called by click
        """The number, or a usage error."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


class AddressList(click.ParamType[tuple[Address, ...]]):
    """``host:port,host:port,...`` on the command line."""

    name = "host:port,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Address, ...]:  # called by click
        """The addresses, or a usage error."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(Address.parse(each.strip()) for each in value.split(",") if each.strip())
        except ValueError as error:
            self.fail(str(error), param, ctx)
