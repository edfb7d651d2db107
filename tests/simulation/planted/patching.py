"""Planting a bug: one fragment of a function's source is replaced, in memory, and taken out again afterwards.

The function keeps its identity and gets other code, so the bug is there wherever the function is used, by whatever
name it was imported. The source on disk is never touched. A fragment must be found exactly once: when the product
changes there, the planting fails, loudly, and whoever made the change says what the bug looks like now.
"""

from __future__ import annotations
import __future__

import inspect
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import CodeType, FunctionType

import attrs


class NotPlantable(AssertionError):
    """The product isn't what the patch was made for any more."""


@attrs.frozen(slots=True)
class Edit:
    """One replaced fragment."""

    function: str
    """``module:function`` or ``module:Class.method``; a property or a class method, too."""
    old: str
    """What stands in its source, once; indented as in the function's source when that begins in the first column."""
    new: str


@contextmanager
def planted(edits: Iterable[Edit]) -> Iterator[None]:
    """The bug is there, within the block.

    Raises:
        NotPlantable: a function or a fragment isn't there any more.
    """
    edits_of: defaultdict[str, list[Edit]] = defaultdict(list)
    for edit in edits:
        edits_of[edit.function].append(edit)
    plan = [(function_at(place), edits) for place, edits in edits_of.items()]
    changed = [(function, _changed_code(function, edits)) for function, edits in plan]
    originals = [(function, function.__code__) for function, _ in changed]
    try:
        for function, code in changed:
            function.__code__ = code
        yield
    finally:
        for function, code in originals:
            function.__code__ = code


def function_at(place: str) -> FunctionType:
    """The function that is named so.

    Raises:
        NotPlantable: there is none.
    """
    module_name, _, path = place.partition(":")
    found: object = import_module(module_name)
    for name in path.split("."):
        try:
            found = inspect.getattr_static(found, name)
        except AttributeError as error:
            raise NotPlantable(f"{place}: there is no {name}") from error
    if isinstance(found, property):
        found = found.fget
    elif isinstance(found, classmethod | staticmethod):
        found = found.__func__
    assert callable(found), f"{place} is no function"
    function = inspect.unwrap(found)
    if not isinstance(function, FunctionType):
        raise NotPlantable(f"{place} is no function")
    return function


def _changed_code(function: FunctionType, edits: Iterable[Edit]) -> CodeType:
    source = textwrap.dedent(inspect.getsource(function))
    for edit in edits:
        if source.count(edit.old) != 1:
            raise NotPlantable(f"{edit.function}: {source.count(edit.old)} times in its source: {edit.old!r}")
        source = source.replace(edit.old, edit.new)
    # Lines that are compiled as those of a file of another name: nobody takes them for the product's.
    name = f"<planted in {function.__module__}.{function.__qualname__}>"
    module = compile(source, name, "exec", flags=__future__.annotations.compiler_flag, dont_inherit=True)
    for constant in module.co_consts:
        if isinstance(constant, CodeType) and constant.co_name == function.__name__:
            return constant
    raise NotPlantable(f"{function.__qualname__}: its source has no function of that name")
