"""``bin/bench steps``: what each step of a write and of a read costs, and the ceilings above them."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import click

from fileserver.bench.ceilings import measure_ceilings
from fileserver.bench.local import temporary_directory
from fileserver.bench.results import TextTable, cases_table
from fileserver.bench.steps import READ, STEPS_OF_ONE_ALONE, WRITE, StepCost, costs
from fileserver.cli.bench_output import check_writable, messages, wide_console
from fileserver.cli.bench_suite import as_rich_table
from fileserver.cli.common import CONTEXT_SETTINGS, FiniteRange
from fileserver.pages import write_part

TOGETHER = 64
COLD_PASSES_MAX = 200
"""With cold caches a pass takes many times as long, most of it to make them cold."""
_Costs: TypeAlias = tuple[StepCost, StepCost, StepCost]
"""Of one step: for one request, for one with cold caches, for many together."""


@click.command(context_settings=CONTEXT_SETTINGS)
@click.option(
    "--passes", type=click.IntRange(1, 1_000_000), default=500, show_default=True, help="Medians are of so many."
)
@click.option("--secs", type=FiniteRange(min=0.1), default=3.0, show_default=True, help="How long for each ceiling.")
@click.option("--write", "page", type=click.Path(path_type=Path, dir_okay=False), help="Put the tables into that page.")
def steps(passes: int, secs: float, page: Path | None) -> None:
    """Time each step of a write and of a read by itself, in one process, for one request and for 64 that come together.

    Then the ceilings: what one server alone does, which keeps its files in memory and has no others and no disk.
    """
    check_writable(page, None)
    tables = {
        "steps": _steps_table(passes),
        "ceilings": cases_table("one server alone, in memory", measure_ceilings(secs, _tell)),
    }
    for table in tables.values():
        wide_console().print(as_rich_table(table))
    if page is not None:
        command = f"bin/bench steps --passes {passes} --secs {secs:g}"
        made = f"`{command}`, {datetime.now(tz=UTC):%Y-%m-%d}, Python {platform.python_version()}:"
        for name, table in tables.items():
            write_part(page, name, f"{made}\n\n{table.markdown()}")


def _tell(line: str) -> None:
    messages.print(f"{line} ...", style="dim")


def _steps_table(passes: int) -> TextTable:
    """A row for each step, and sums: of the leader, of one follower, of the leader and the two that it waits for.

    And of those steps that a server alone takes as well.
    """
    with temporary_directory() as directory:
        _tell("one request at a time")
        alone = costs(1, passes, directory)
        _tell("one request at a time, with cold caches")
        cold = costs(1, min(passes, COLD_PASSES_MAX), directory, is_cold=True)
        _tell(f"{TOGETHER} at a time")
        together = costs(TOGETHER, passes, directory)
    rows = []
    for path in (WRITE, READ):
        all_costs: list[_Costs] = [each for each in zip(alone, cold, together, strict=True) if each[0].path == path]
        rows += [_row(path, each[0].step, each[0].where, [each]) for each in all_costs]
        leader = [each for each in all_costs if each[0].where == "leader"]
        follower = [each for each in all_costs if each[0].where != "leader"]
        alone_too = [each for each in leader if each[0].step in STEPS_OF_ONE_ALONE]
        for what, chosen in (
            ("all of the leader", leader),
            ("all of one follower", follower),
            ("leader and two followers", [*leader, *follower, *follower]),
            ("what one server alone does, too", alone_too),
        ):
            rows.append(_row(path, what, "", chosen))
    header = (
        "of a",
        "step",
        "where",
        "CPU us",
        "us",
        "CPU us, cold caches",
        f"CPU us, {TOGETHER} together",
        "us",
        f"CPU us for each of {TOGETHER}",
    )
    return TextTable("what each step costs", header, tuple(rows), left=3)


def _row(path: str, what: str, where: str, of_steps: Sequence[_Costs]) -> tuple[str, ...]:
    """What some steps cost together."""
    one, cold, many = zip(*of_steps, strict=True)
    many_us = sum(cost.cpu_us for cost in many)
    figures = (
        sum(cost.cpu_us for cost in one),
        sum(cost.wall_us for cost in one),
        sum(cost.cpu_us for cost in cold),
        many_us,
        sum(cost.wall_us for cost in many),
    )
    return (path, what, where, *[f"{figure:.1f}" for figure in figures], f"{many_us / TOGETHER:.2f}")
