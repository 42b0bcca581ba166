"""Write the table of packages in docs/architecture.md, from the first paragraph of each package's docstring.

`make docs` runs it.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
ROOTS = ("core", "plugins", "repl")
BEGIN, END = "<!-- packages: written by make docs -->\n", "<!-- end of packages -->\n"


def table() -> str:
    """Return the table: each package below the import roots, and what it holds."""
    lines = ["| package | what is in it |", "|---|---|"]
    for root in ROOTS:
        for path in sorted((ROOT / root).rglob("__init__.py")):
            name = ".".join(path.parent.relative_to(ROOT / root).parts)
            about = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
            first = " ".join(about.partition("\n\n")[0].split())
            lines.append(f"| `{name}` | {first.replace('|', '&#124;')} |")
    return "\n".join(lines) + "\n"


def page(text: str) -> str:
    """Return the page with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
