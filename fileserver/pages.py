"""Pages of documentation with a part that a program writes anew, between two marks. Marks are comments of Markdown."""

from __future__ import annotations

from pathlib import Path


def begin_mark(name: str) -> str:
    """What stands in front of the part of that name."""
    return f"<!-- {name}: begin -->"


def end_mark(name: str) -> str:
    """What stands behind it."""
    return f"<!-- {name}: end -->"


def write_part(page: Path, name: str, text: str) -> None:
    """Put a text between its marks in a page; a page that has none gets them at its end."""
    begin, end = begin_mark(name), end_mark(name)
    content = page.read_text(encoding="utf-8") if page.exists() else ""
    block = f"{begin}\n{text}\n{end}"
    before, found, rest = content.partition(begin)
    if found and end in rest:
        content = before + block + rest.partition(end)[2]
    else:
        content = f"{content.rstrip()}\n\n{block}\n".lstrip()
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(content, encoding="utf-8")
