"""Imports point one way: bin -> fileserver -> raftnode -> statemachine; the last of these is pure."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("statemachine", "raftnode", "fileserver")
"""Each may import itself and those before it."""
PURE_FORBIDS = {
    "asyncio",
    "io",
    "logging",
    "os",
    "pathlib",
    "select",
    "selectors",
    "socket",
    "subprocess",
    "threading",
    "time",
}
"""Standard modules that would bring the outside world into the pure core."""


def modules(package: str) -> Iterator[Path]:
    yield from sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every import anywhere in a file, those within functions included: its line and the module's full name."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield node.lineno, node.module or ""


def findings(package: str, is_allowed: object) -> list[str]:
    assert callable(is_allowed)
    return [
        f"{path.relative_to(ROOT)}:{line}: imports {name}"
        for path in modules(package)
        for line, name in imports(path)
        if not is_allowed(name)
    ]


@pytest.mark.parametrize("package", LAYERS)
def test_no_import_points_back(package: str) -> None:
    later = {*LAYERS[LAYERS.index(package) + 1 :], "tests", "bin"}
    assert findings(package, lambda name: name.split(".")[0] not in later) == []


def test_every_package_has_modules() -> None:
    # Otherwise the other tests here would look at nothing and pass.
    assert all(len(list(modules(package))) > 1 for package in LAYERS)


def test_statemachine_imports_the_standard_library_and_attrs_only() -> None:
    allowed = {*sys.stdlib_module_names, "attrs", "statemachine"}
    assert findings("statemachine", lambda name: name.split(".")[0] in allowed) == []


def test_statemachine_is_pure() -> None:
    assert findings("statemachine", lambda name: name.split(".")[0] not in PURE_FORBIDS) == []


def test_statemachine_uses_no_global_random_state() -> None:
    """``random.Random`` may be named, as a type or made from a seed; the module's own functions may not."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: random.{node.attr}"
        for path in modules("statemachine")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "random"
        and node.attr != "Random"
    ]
    assert found == []


def test_raftnode_knows_nothing_of_programs() -> None:
    """What is for people (command lines, tables) belongs to the product."""
    assert findings("raftnode", lambda name: name.split(".")[0] not in {"click", "rich", "h11"}) == []


def test_only_the_programs_use_the_command_line_library() -> None:
    found = [each for each in findings("fileserver", lambda name: name != "click") if "fileserver/cli/" not in each]
    assert found == []
