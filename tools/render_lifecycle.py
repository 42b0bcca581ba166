"""Write the lifecycle of a sandbox in docs/architecture.md, from the table in `irons_local.control.sandbox.states`.

`make docs` runs it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from irons_local.control.sandbox.states import ASKED, TABLE, State, Verb, VerbRefusal

PAGE = Path(__file__).parents[1] / "docs" / "architecture.md"
BEGIN, END = "<!-- lifecycle: written by make docs -->\n", "<!-- end of lifecycle -->\n"


def tables() -> str:
    """Return both tables: what is asked for, and what happens by itself."""
    happens = tuple(verb for verb in Verb if verb not in ASKED)
    states = tuple(
        state for state in State if any(getattr(TABLE[state], verb.value) is not None for verb in happens)
    )
    return f"{_table(ASKED, State)}\n{_table(happens, states)}"


def page(text: str) -> str:
    """Return the page with the tables as they are now."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


def _table(verbs: Iterable[Verb], states: Iterable[State]) -> str:
    verbs = tuple(verbs)
    lines = [
        f"| state | {' | '.join(verb.value.replace('_', ' ') for verb in verbs)} |",
        "|---" * (len(verbs) + 1) + "|",
    ]
    lines += [f"| {state.value} | {' | '.join(_cell(state, verb) for verb in verbs)} |" for state in states]
    return "\n".join(lines) + "\n"


def _cell(state: State, verb: Verb) -> str:
    cell = getattr(TABLE[state], verb.value)
    if cell is None:
        return "-"
    if cell is state:
        return "stays"
    if isinstance(cell, State):
        return f"→ {cell.value}"
    if isinstance(cell, VerbRefusal) and cell.made is None:
        return "refused"
    if verb is Verb.CREATE:
        return "refused, unless it was never made"
    return "stays; refused until it is made"


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
