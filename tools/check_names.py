"""Report public class names that are defined more than once: one name, one thing.

    python tools/check_names.py            exit 1 where there are any, with the file and line of each definition

Read are the classes of `core`, `plugins` and `repl` whose names do not begin with an underscore.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
CODE = ("core", "plugins", "repl")

RIGHT_TWICE: dict[str, str] = {
    "Outcome": "of an attempt, as events have it on the wire; of a call of `irons` in a plugin author's test",
    "Context": "of a handler, public for plugin authors; of all connections of a gateway",
    "Denied": "an exit code of irons; an answer to a conversation of the gateway",
}
"""Names that may be defined twice, and the two things that each means."""


class Definition(NamedTuple):
    """A class, and where it is defined."""

    name: str
    path: Path
    line: int


def classes(root: Path = ROOT) -> Iterator[Definition]:
    """Yield the public classes below `root`, nested ones too."""
    for part in CODE:
        for path in sorted((root / part).rglob("*.py")):
            text = path.read_text("utf-8")
            # Most of the time goes into parsing, and half of the files have no class.
            for node in _statements(ast.parse(text)) if "class " in text else ():
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    yield Definition(node.name, path.relative_to(root), node.lineno)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements within a node, nested ones too; expressions hold no class."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield child
            yield from _statements(child)


def faults(found: Iterable[Definition], right_twice: Iterable[str] = RIGHT_TWICE) -> Iterator[str]:
    """Yield a line for each name with several definitions, and for each exception that is not needed."""
    by_name: dict[str, list[Definition]] = defaultdict(list)
    for each in found:
        by_name[each.name].append(each)
    allowed = set(right_twice)
    for name, definitions in sorted(by_name.items()):
        if len(definitions) > (2 if name in allowed else 1):
            places = ", ".join(f"{each.path}:{each.line}" for each in definitions)
            yield f"{name} is defined {len(definitions)} times: {places}"
    for name in sorted(allowed):
        if len(by_name[name]) < 2:
            yield f"{name} is not defined twice; remove it from RIGHT_TWICE"


def main() -> int:
    """Print what was found; 1 where there is anything."""
    found = list(faults(classes()))
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
