"""The plan of the tree: small folders, each of which says what lives there and what may not."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MOST = 14
"""Modules in one folder; a folder that would have more is parted."""
OPEN = {ROOT / "plugins/irons_plugins/ssh"}
"""Packages in which folders still name each other's types."""
PACKAGES = sorted(
    path.parent for root in ("core", "plugins", "repl") for path in (ROOT / root).rglob("__init__.py")
)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: ".".join(path.relative_to(ROOT).parts[1:]))
def test_a_folder_is_small_and_says_what_is_in_it(package: Path) -> None:
    """It has about a dozen modules at most, and its docstring three lines: what is in it, how, and what is not."""
    assert len([path for path in package.glob("*.py") if path.name != "__init__.py"]) <= MOST
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text("utf-8"))) or ""
    stand_in = "kept for one release" in text
    assert stand_in or len([line for line in text.splitlines() if line.strip()]) >= 3


def test_every_module_is_in_a_package() -> None:
    """No folder with modules lacks its `__init__`: tools that look for packages would pass it by."""
    folders = {path.parent for root in ("core", "plugins", "repl") for path in (ROOT / root).rglob("*.py")}
    assert folders <= set(PACKAGES)


@pytest.mark.parametrize(
    "package",
    [
        package
        for package in PACKAGES
        if package not in OPEN and any(child.parent == package for child in PACKAGES)
    ],
    ids=lambda path: ".".join(path.relative_to(ROOT).parts[1:]),
)
def test_no_two_folders_import_each_other(package: Path) -> None:
    """What is imported for type checkers alone counts too, which the import contracts leave out."""
    name = ".".join(package.relative_to(ROOT).parts[1:])
    arrows: set[tuple[str, str]] = set()
    for path in package.rglob("*.py"):
        folder, *inside = path.relative_to(package).parts
        if not inside:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            module = node.module if isinstance(node, ast.ImportFrom) and not node.level else None
            target = (module or "").removeprefix(f"{name}.").partition(".")[0]
            if (module or "").startswith(f"{name}.") and target != folder and (package / target).is_dir():
                arrows.add((folder, target))
    assert {(one, other) for one, other in arrows if (other, one) in arrows} == set()
