"""A flame graph as text: which calls the time went to, from the event loop down. Pure.

Theory of operation
    Stacks that begin alike share the nodes of a tree. What all stacks have in common (how the program was started, the
    loop of Trio) is cut off; what happens within Trio's own code is one node, however deep. Nodes with a small share
    are left out: their time stays in what is above them. A node that does hardly anything but call one other stands in
    one line with it, and of a long chain of such nodes only the first and the last are named. If the tree still has too
    many lines, the smallest nodes are left out as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs

from fileserver.bench.stacks import Stack

LOOP = "trio/_core/_run.py unrolled_run"
"""The innermost function that all tasks have in common."""
TRIO_FILES = ("trio/", "trio.", "outcome/", "outcome.")
"""How their paths begin, or the names of the classes whose methods were generated."""
TRIO = "trio"
ROOT = "the main thread"
CHAIN_REST_MAX = 0.01
"""The share that a node may have beside its only child to stand in one line with it."""
CHAIN_NAMES_MAX = 3
THRESHOLD_GROWTH = 1.2


@attrs.define(slots=True, eq=False)
class Node:
    """Calls by the same way."""

    label: str
    count: int = 0
    """How many samples are of this function or of what it called."""
    children: dict[str, Node] = attrs.field(factory=dict)

    @property
    def own(self) -> int:
        """How many samples are of this function itself."""
        return self.count - sum(child.count for child in self.children.values())

    def shown(self, count_min: float) -> list[Node]:
        """The children that are big enough, the biggest first."""
        chosen = [child for child in self.children.values() if child.count >= count_min]
        return sorted(chosen, key=lambda child: (-child.count, child.label))


def tree_of(stacks: Mapping[Stack, int]) -> Node:
    """The tree of so many samples of each stack."""
    root = Node(ROOT)
    for stack, count in stacks.items():
        node = root
        node.count += count
        for name in _path(stack):
            node = node.children.setdefault(name, Node(name))
            node.count += count
    return root


def _path(stack: Stack) -> list[str]:
    """The names of the nodes that lead to a stack's innermost call."""
    begin = max((place + 1 for place, label in enumerate(stack) if label == LOOP), default=0)
    path: list[str] = []
    for label in stack[begin:] or (TRIO,):
        name = short_name(label)
        if name != TRIO or path[-1:] != [TRIO]:
            path.append(name)
    return path


def short_name(label: str) -> str:
    """A method by its qualified name, another function with its module's name in front, all of Trio's by one."""
    file, _, function = label.rpartition(" ")
    if file.startswith(TRIO_FILES) or label == TRIO:
        return TRIO
    module = file.rpartition("/")[2].removesuffix(".py")
    is_method = "." in function.partition(".<locals>")[0]
    return function if is_method or not module else f"{module}.{function}"


def draw(root: Node, *, share_min: float, lines_max: int, samples_min: int = 1) -> list[str]:
    """A line for each node with at least that share and so many samples, or for the biggest of these; indented."""
    if not root.count:
        return ["no samples"]
    count_min = max(share_min * root.count, samples_min)
    lines = list(_lines(root, root.count, count_min, 0))
    while len(lines) > lines_max:
        count_min *= THRESHOLD_GROWTH
        lines = list(_lines(root, root.count, count_min, 0))
    return [f"{'all':>6} {'own':>6}  %", *lines]


def _lines(node: Node, total: int, count_min: float, depth: int) -> Iterator[str]:
    names, last = _chain(node, total * CHAIN_REST_MAX, count_min)
    if len(names) > CHAIN_NAMES_MAX:
        names = [names[0], "...", names[-1]]
    yield f"{100 * node.count / total:6.1f} {100 * last.own / total:6.1f}  {'  ' * depth}{' > '.join(names)}"
    for child in last.shown(count_min):
        yield from _lines(child, total, count_min, depth + 1)


def _chain(node: Node, rest_max: float, count_min: float) -> tuple[list[str], Node]:
    """The names of a node and of those that stand in one line with it, and the last of them."""
    names = [node.label]
    while True:
        shown = node.shown(count_min)
        if len(shown) != 1 or node.count - shown[0].count > rest_max:
            return names, node
        node = shown[0]
        names.append(node.label)
